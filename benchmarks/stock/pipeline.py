"""The stock pipeline and its run in one process: TFX's components, defaults and LocalDagRunner, with a clock on each.

    python -m benchmarks.stock.pipeline --config configs/humidity.yaml --data data/humidity --root /tmp/stock

It writes `<root>/stock.json`: the nodes in the form of our own runner, the metrics, and whether it pushed. Only two
things differ from what TFX's templates make: the preprocessing function is ours (the same for both), and the launcher
notes time and memory of each node.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow_model_analysis as tfma
from tfx import v1 as tfx
from tfx.orchestration.local import local_dag_runner
from tfx.orchestration.portable import launcher

from evergreen import settings
from evergreen.memory import PeakMemory
from pipeline.config import Config, load_config

METRICS = {"rmse": "RootMeanSquaredError", "mae": "MeanAbsoluteError"}
"""Our names of the metrics of a regression, and TFMA's."""


def create_pipeline(config: Config, *, data: Path, root: Path) -> tfx.dsl.Pipeline:
    """Returns the pipeline of stock components over all spans of the data.

    Args:
        config: the problem: schema, features, model, training, metrics and bounds.
        data: the folder with `span-*/v-*/*.csv`.
        root: the folder for artifacts, metadata and the pushed model.
    """
    schema_path = config.schema_path
    assert schema_path is not None, "the stock pipeline imports a curated schema"
    example_gen = tfx.components.CsvExampleGen(
        input_base=str(data),
        input_config=tfx.proto.Input(splits=[tfx.proto.Input.Split(name="all", pattern="span-*/v-*/*.csv")]),
        output_config=tfx.proto.Output(
            split_config=tfx.proto.SplitConfig(
                splits=[
                    tfx.proto.SplitConfig.Split(name=name, hash_buckets=parts)
                    for name, parts in config.data.splits.items()
                ]
            )
        ),
    )
    examples = example_gen.outputs["examples"]
    statistics_gen = tfx.components.StatisticsGen(examples=examples)
    schema_gen = tfx.components.ImportSchemaGen(schema_file=schema_path)
    schema = schema_gen.outputs["schema"]
    validator = tfx.components.ExampleValidator(statistics=statistics_gen.outputs["statistics"], schema=schema)
    transform = tfx.components.Transform(
        examples=examples,
        schema=schema,
        preprocessing_fn="transform.preprocessing.preprocessing_fn",
        custom_config=config.preprocessing().model_dump(mode="json"),
    )
    trainer = tfx.components.Trainer(
        run_fn="benchmarks.stock.trainer.run_fn",
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema,
        train_args=tfx.proto.TrainArgs(splits=["train"]),
        eval_args=tfx.proto.EvalArgs(splits=["eval"]),
        custom_config=config.trainer().model_dump(mode="json"),
    )
    evaluator = tfx.components.Evaluator(
        examples=examples,
        example_splits=["test"],
        model=trainer.outputs["model"],
        schema=schema,
        eval_config=_eval_config(config),
    )
    pusher = tfx.components.Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=str(root / "pushed"))
        ),
    )
    return tfx.dsl.Pipeline(
        pipeline_name=config.name,
        pipeline_root=str(root / "artifacts"),
        components=[example_gen, statistics_gen, schema_gen, validator, transform, trainer, evaluator, pusher],
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            str(root / "metadata.db")
        ),
        beam_pipeline_args=["--runner=DirectRunner", "--direct_running_mode=in_memory", "--direct_num_workers=1"],
    )


def _eval_config(config: Config) -> tfma.EvalConfig:
    """Returns the metrics, slices and bounds of the configuration in TFMA's words."""
    metrics = [tfma.MetricConfig(class_name="ExampleCount")]
    for name in config.evaluation.metrics:
        bound = config.evaluation.bounds.get(name, settings.Bound())
        threshold = tfma.GenericValueThreshold(
            lower_bound=None if bound.min is None else {"value": bound.min},
            upper_bound=None if bound.max is None else {"value": bound.max},
        )
        # A bound holds for all rows together; the slices are there to be looked at.
        overall = tfma.PerSliceMetricThreshold(
            slicing_specs=[tfma.SlicingSpec()], threshold=tfma.MetricThreshold(value_threshold=threshold)
        )
        bounded = bound.min is not None or bound.max is not None
        metrics.append(tfma.MetricConfig(class_name=METRICS[name], per_slice_thresholds=[overall] if bounded else None))
    return tfma.EvalConfig(
        model_specs=[tfma.ModelSpec(signature_name="serving_default", label_key=config.label.column)],
        slicing_specs=[tfma.SlicingSpec(), *(tfma.SlicingSpec(feature_keys=keys) for keys in config.evaluation.slices)],
        metrics_specs=[tfma.MetricsSpec(metrics=metrics)],
    )


def run(pipeline: tfx.dsl.Pipeline) -> list[dict[str, Any]]:
    """Runs the pipeline with LocalDagRunner and returns a record of each node, as our runner writes them."""
    records: list[dict[str, Any]] = []

    class MeasuringLauncher(launcher.Launcher):
        """TFX's launcher with a clock and the kernel's memory counter around it."""

        def launch(self) -> Any:
            memory, started = PeakMemory(), time.monotonic()
            result = super().launch()
            records.append(
                {
                    "node": self._pipeline_node.node_info.id,
                    "state": "done",
                    "seconds": time.monotonic() - started,
                    "figure": "",
                    "peak_memory_mb": memory.megabytes(),
                }
            )
            return result

    # LocalDagRunner makes its launchers itself: the class it finds in its module is the one to replace.
    original = local_dag_runner.launcher.Launcher
    local_dag_runner.launcher.Launcher = MeasuringLauncher
    try:
        tfx.orchestration.LocalDagRunner().run(pipeline)
    finally:
        local_dag_runner.launcher.Launcher = original
    return records


def quality(root: Path) -> dict[str, float]:
    """Returns the metrics of the newest evaluation under `root`, by TFMA's names, over all rows."""
    newest = max((root / "artifacts" / "Evaluator" / "evaluation").iterdir(), key=lambda path: int(path.name))
    result = tfma.load_eval_result(str(newest))
    overall = dict(result.slicing_metrics)[()]
    return {name: float(value["doubleValue"]) for name, value in overall[""][""].items() if "doubleValue" in value}


def main(arguments: Sequence[str]) -> int:
    """Runs the stock pipeline once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    options = parser.parse_args(arguments)
    options.root.mkdir(parents=True, exist_ok=True)
    config = load_config(options.config)
    records = run(create_pipeline(config, data=options.data, root=options.root))
    report = {"nodes": records, "metrics": quality(options.root), "pushed": any(options.root.glob("pushed/*"))}
    (options.root / "stock.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
