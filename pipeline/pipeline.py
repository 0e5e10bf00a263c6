"""The DAG: one `tfx.dsl.Pipeline` for the laptop and the cluster, of nodes that both can run.

```
ExampleGen - StatisticsGen - SchemaGen | ImportSchemaGen - ExampleValidator - Transform - [Tuner] - Trainer ...
                                                                 |                           |         |
Champion --------------------------------------------------------+---------------------------+---------+-- ...

... Trainer - Evaluator - Pusher
                  |          |
... Champion -----+----------+      Tuner only where the configuration has a `tuning`
```
"""

from __future__ import annotations

import dataclasses
import json

# Not `tfx.v1`, which brings in Google's AI platform: a quarter of the time that the import of TFX takes.
from tfx.components.schema_gen.component import SchemaGen
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.components.trainer.component import Trainer
from tfx.dsl.components.base import base_component
from tfx.orchestration import metadata
from tfx.orchestration import pipeline as tfx_pipeline
from tfx.proto import trainer_pb2, transform_pb2
from tfx.types import channel

from components.champion.component import Champion
from components.evaluator.component import Evaluator
from components.example_gen.component import ExampleGen
from components.example_validator.component import ExampleValidator
from components.pusher.component import Pusher
from components.statistics_gen.component import StatisticsGen
from components.transform.component import Transform
from components.tuner.component import Tuner
from pipeline import evaluation
from pipeline.config import Config, Environment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pins:
    """What a run holds fast that would else be decided when the node runs; on a cluster nothing is."""

    spans: str | None = None
    """The spans to train on ("3", "2-5"); the configured window of the latest where it is left out."""
    input_fingerprint: str | None = None
    """Fingerprint of the files behind the spans, so that the cache sees new data."""
    champion: str = ""
    """The version to compare with: a number, "none", or "" for the one that serves when the node runs."""
    run_fingerprint: str = ""
    """What decides the candidate: data, code and configuration up to and with the Trainer."""
    run_id: str = ""


def create_pipeline(config: Config, environment: Environment, *, pins: Pins | None = None) -> tfx_pipeline.Pipeline:
    """Returns the pipeline of `config` in `environment`.

    Args:
        config: the problem.
        environment: where it runs.
        pins: what the runner has decided already.
    """
    pins = pins or Pins()
    root = environment.root(config.name)

    example_gen = ExampleGen(
        config.data,
        schema_path=config.schema_path,
        spans=pins.spans,
        input_fingerprint=pins.input_fingerprint,
        label=config.label.column,
    )
    examples = example_gen.outputs["examples"]
    statistics_gen = StatisticsGen(examples=examples)
    statistics = statistics_gen.outputs["statistics"]
    schema_gen = _schema_node(config, statistics)
    schema = schema_gen.outputs["schema"]
    champion_node = Champion(registry=environment.registry, model_name=config.name, version=pins.champion)
    champion = champion_node.outputs["champion"]
    validator = ExampleValidator(
        examples=examples,
        statistics=statistics,
        schema=schema,
        champion=champion,
        validation=config.validation,
        label=config.label.column,
        weights=config.weights.column if config.weights else None,
    )
    transform = Transform(
        examples=examples,
        schema=schema,
        preprocessing_fn="transform.preprocessing.preprocessing_fn",
        splits_config=transform_pb2.SplitsConfig(analyze=["train"], transform=list(config.data.splits)),
        custom_config=config.preprocessing().model_dump(mode="json"),
        disable_statistics=True,
        # No node reads the cache of the analyzers, and writing it takes as long as the analysis.
        disable_analyzer_cache=True,
    )
    # Without an edge of data between them, this is what makes the gate a gate on the cluster too.
    transform.add_upstream_node(validator)
    learned = {
        "examples": transform.outputs["transformed_examples"],
        "transform_graph": transform.outputs["transform_graph"],
        "schema": schema,
        "base_model": champion,
        "train_args": trainer_pb2.TrainArgs(splits=["train"]),
        "eval_args": trainer_pb2.EvalArgs(splits=["eval"]),
        "custom_config": {
            **config.trainer().model_dump(mode="json"), "checkpoint_folder": _checkpoints(config, environment)
        },
    }  # fmt: skip
    tuner = None if config.tuning is None else Tuner(tuner_fn="trainer.tune.tuner_fn", **learned)
    trainer = Trainer(
        run_fn="trainer.train.run_fn",
        hyperparameters=None if tuner is None else tuner.outputs["best_hyperparameters"],
        **learned,
    )
    model = trainer.outputs["model"]
    evaluator = Evaluator(
        examples=examples,
        model=model,
        baseline_model=champion,
        schema=schema,
        eval_config=evaluation.eval_config(config.evaluation, config.label),
        example_splits=["test"],
        evaluation=config.evaluation,
        label=config.label,
    )
    pusher = Pusher(
        model=model,
        model_blessing=evaluator.outputs["blessing"],
        examples=examples,
        schema=schema,
        statistics=statistics,
        evaluation=evaluator.outputs["evaluation"],
        model_run=trainer.outputs["model_run"],
        champion=champion,
        anomalies=validator.outputs["anomalies"],
        registry=environment.registry,
        model_name=config.name,
        context=json.dumps(
            {"config": config.model_dump(mode="json", by_alias=True), "run_fingerprint": pins.run_fingerprint},
            sort_keys=True,
        ),
    )
    for node in (example_gen, statistics_gen, transform, evaluator):
        node.with_beam_pipeline_args(environment.beam.for_node(node.id).arguments())
    return tfx_pipeline.Pipeline(
        pipeline_name=config.name,
        pipeline_root=str(root / "artifacts"),
        components=[
            example_gen,
            statistics_gen,
            schema_gen,
            champion_node,
            validator,
            transform,
            *([] if tuner is None else [tuner]),
            trainer,
            evaluator,
            pusher,
        ],
        enable_cache=True,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(str(root / "metadata.db")),
    )


def _checkpoints(config: Config, environment: Environment) -> str:
    """Returns the folder of what killed trainings and searches are taken up from; it outlives the nodes' own.

    On a cluster the workspace is gone with the pod; what lasts is where the registry lies.
    """
    if environment.kubeflow is None:
        return str(environment.root(config.name) / "checkpoints")
    return f"{environment.registry.rstrip('/')}/{config.name}/.checkpoints"


def _schema_node(config: Config, statistics: channel.BaseChannel) -> base_component.BaseComponent:
    """Returns the node that brings the schema: the curated one where there is one, else what the data show."""
    if config.schema_path:
        return ImportSchemaGen(schema_file=config.schema_path)
    return SchemaGen(statistics=statistics, infer_feature_shape=True)
