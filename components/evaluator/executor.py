"""TFX's Evaluator executor over columnar extractors, with a trivial baseline and a verdict in words.

TFX's executor blesses nothing where no threshold is set, and takes any baseline artifact for a model. This one looks
whether the champion holds a model, measures the trivial baseline, lets TFMA evaluate, and writes the blessing from the
verdict.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import tensorflow_model_analysis as tfma
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_model_analysis.slicer import slicer_lib
from tfx import types
from tfx.components.evaluator import constants
from tfx.components.evaluator import executor as tfx_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils, path_utils, proto_utils

from components.evaluator import columnar, labels, trivial, verdict
from components.records import reading
from evergreen import progress, settings
from evergreen.errors import BadInput, Problem

# The output is called `evaluation`, and TFX wants one name for one thing.
SETTINGS_KEY = "evaluation_settings"
LABEL_KEY = "label"
TRAIN = "train"

Inputs = dict[str, list[types.Artifact]]


class Executor(tfx_executor.Executor):
    """The model gate."""

    def Do(  # noqa: N802 - TFX calls it so
        self, input_dict: Inputs, output_dict: Inputs, exec_properties: dict[str, Any]
    ) -> None:
        """Evaluates the candidate.

        Args:
            input_dict: `examples` (raw, with the train split), `model`, `schema`, and `baseline_model`, the artifact
                of Champion, which may hold none.
            output_dict: `evaluation` (TFMA's results and `verdict.json`) and `blessing`.
            exec_properties: TFX's, with `evaluation_settings` (JSON of `settings.Evaluation`) and `label` (JSON of
                `settings.Label`).

        Raises:
            BadInput: when there is no row with a label to measure on, or to learn the trivial baseline from.
        """
        evaluation = settings.Evaluation.model_validate_json(exec_properties[SETTINGS_KEY])
        label = settings.Label.model_validate_json(exec_properties[LABEL_KEY])
        champion = input_dict.get(standard_component_specs.BASELINE_MODEL_KEY, [])
        has_champion = bool(champion) and fileio.isdir(path_utils.serving_model_path(champion[0].uri))
        inputs = dict(input_dict)
        if not has_champion:
            inputs.pop(standard_component_specs.BASELINE_MODEL_KEY, None)

        train, test = _read_labels(inputs, exec_properties, label)
        progress.report(f"{len(test):,} rows to measure on")
        config = tfma.EvalConfig()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.EVAL_CONFIG_KEY], config)
        if label.task is not settings.Task.REGRESSION:
            config = columnar.with_classes(config, _classes(inputs, label, train))
        uri = artifact_utils.get_single_uri(output_dict[standard_component_specs.EVALUATION_KEY])
        self._evaluate(inputs, config, json.loads(exec_properties[standard_component_specs.EXAMPLE_SPLITS_KEY]), uri)
        measured = verdict.Measured(
            candidate=_metrics(uri, tfma.CANDIDATE_KEY if has_champion else "", evaluation),
            champion=_metrics(uri, tfma.BASELINE_KEY, evaluation) if has_champion else None,
            trivial=trivial.scores(train, test, metrics=evaluation.metrics),
            failures=_failures(uri),
            rows=len(test),
            champion_version=_version(champion[0].uri) if has_champion else None,
        )
        judged = verdict.judge(measured, evaluation)
        judged.write(uri)
        _bless(artifact_utils.get_single_instance(output_dict[standard_component_specs.BLESSING_KEY]), judged, inputs)
        progress.report(judged.figure(evaluation.metrics[0]))

    def _evaluate(self, inputs: Inputs, config: tfma.EvalConfig, splits: Sequence[str], uri: str) -> None:
        """Lets TFMA write its results; what TFX's executor does, with our reader and nothing but the columns needed.

        TFX's executor flattens the splits, of which Beam's in-process runner keeps all rows in memory, serialized and
        decoded.
        """
        has_baseline = standard_component_specs.BASELINE_MODEL_KEY in inputs
        config = tfma.utils.update_eval_config_with_defaults(config, has_baseline=has_baseline, rubber_stamp=True)
        tfma.utils.verify_eval_config(config)
        models = [
            tfma.default_eval_shared_model(
                eval_saved_model_path=path_utils.serving_model_path(_model_of(spec, inputs).uri),
                model_name=spec.name,
                eval_config=config,
            )
            for spec in config.model_specs
        ]
        model = models[0] if len(models) == 1 else models
        examples = inputs[standard_component_specs.EXAMPLES_KEY]
        uris = [uri for split in splits for uri in artifact_utils.get_split_uris(examples, split)]
        with self._make_beam_pipeline() as pipeline:
            _ = (
                pipeline
                | "Read"
                >> reading.ReadBatches(
                    [io_utils.all_files_pattern(uri) for uri in uris],
                    schema=_looked_at(_schema(inputs), config),
                    records=tfma.constants.ARROW_INPUT_COLUMN,
                )
                | "Evaluate"
                >> tfma.ExtractEvaluateAndWriteResults(
                    eval_shared_model=model,
                    eval_config=config,
                    extractors=columnar.custom_extractors(model, config, None),
                    output_path=uri,
                )
            )


def _model_of(spec: tfma.ModelSpec, inputs: Inputs) -> types.Artifact:
    key = standard_component_specs.BASELINE_MODEL_KEY if spec.is_baseline else standard_component_specs.MODEL_KEY
    return artifact_utils.get_single_instance(inputs[key])


def _looked_at(schema: schema_pb2.Schema, config: tfma.EvalConfig) -> schema_pb2.Schema:
    """Returns the part of the schema that labels and slices are found in; the model parses what it needs itself."""
    names = {spec.label_key for spec in config.model_specs}
    for slicing in config.slicing_specs:
        names |= {*slicing.feature_keys, *slicing.feature_values}
    return schema_pb2.Schema(feature=[feature for feature in schema.feature if feature.name in names])


# --- what is measured ------------------------------------------------------------------------------------------------


def _read_labels(inputs: Inputs, exec_properties: dict[str, Any], label: settings.Label) -> tuple[pa.Array, pa.Array]:
    """Returns the labels of the train split and of the splits to measure on, none missing."""
    examples = inputs[standard_component_specs.EXAMPLES_KEY]
    measured_on = json.loads(exec_properties[standard_component_specs.EXAMPLE_SPLITS_KEY])
    kind = _label_type(inputs, label)
    found: list[pa.Array] = []
    problems: list[Problem] = []
    for splits in ([TRAIN], measured_on):
        uris = [uri for split in splits for uri in artifact_utils.get_split_uris(examples, split)]
        values = labels.read(
            uris, column=label.column, is_float=kind == schema_pb2.FLOAT, is_int=kind == schema_pb2.INT
        )
        found.append(values)
        if not len(values):
            problems.append(_no_rows(splits, label))
    if problems:
        raise BadInput(problems)
    return found[0], found[1]


def _no_rows(splits: list[str], label: settings.Label) -> Problem:
    return Problem(
        where=f"split {', '.join(splits)}",
        found="no row with a label",
        expected=f"rows with a value of {label.column!r}",
        action="Give the split a larger share in data.splits, or bring in more rows (data.window).",
    )


def _schema(inputs: Inputs) -> schema_pb2.Schema:
    folder = artifact_utils.get_single_uri(inputs[standard_component_specs.SCHEMA_KEY])
    return io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(folder))


def _label_type(inputs: Inputs, label: settings.Label) -> int:
    schema = _schema(inputs)
    for feature in schema.feature:
        if feature.name == label.column:
            return int(feature.type)
    raise BadInput(
        [
            Problem(
                where="label.column",
                found=f"{label.column!r}, which the schema lacks",
                expected=f"one of {', '.join(feature.name for feature in schema.feature)}",
                action="Correct the name in the configuration, or add the column to the schema.",
            )
        ]
    )


def _classes(inputs: Inputs, label: settings.Label, train: pa.Array) -> Mapping[str, labels.Classes]:
    """Returns the classes of each model: as it carries them, else as its trainer would have found them."""
    models = {tfma.CANDIDATE_KEY: inputs[standard_component_specs.MODEL_KEY][0]}
    if standard_component_specs.BASELINE_MODEL_KEY in inputs:
        models[tfma.BASELINE_KEY] = inputs[standard_component_specs.BASELINE_MODEL_KEY][0]
    is_int = pa.types.is_integer(train.type)
    found = {
        name: labels.of_model(path_utils.serving_model_path(model.uri), column=label.column, is_int=is_int)
        or labels.of_trained(train)
        for name, model in models.items()
    }
    # TFMA takes an only model's name away.
    return found if len(found) > 1 else {"": found[tfma.CANDIDATE_KEY]}


# --- what came out ---------------------------------------------------------------------------------------------------


def _metrics(uri: str, model: str, evaluation: settings.Evaluation) -> dict[str, float]:
    """Returns the configured metrics of one model over all rows, in the order of the configuration."""
    found: dict[str, float] = {}
    for sliced in tfma.load_metrics(uri):
        if sliced.slice_key.single_slice_keys:
            continue
        for item in sliced.metric_keys_and_values:
            if item.key.model_name == model and not item.key.is_diff:
                found[item.key.name] = item.value.double_value.value
    return {name: found[name] for name in evaluation.metrics}


def _failures(uri: str) -> list[verdict.Failure]:
    """Returns the value thresholds that TFMA found broken; what is compared with the champion is judged by us."""
    if not fileio.glob(os.path.join(uri, f"{tfma.VALIDATIONS_KEY}*")):
        return []
    found = []
    for sliced in tfma.load_validation_result(uri).metric_validations_per_slice:
        place = _slice_name(sliced.slice_key)
        for failure in sliced.failures:
            if failure.metric_threshold.HasField("change_threshold") and not place:
                continue
            bound = failure.metric_threshold.value_threshold
            found.append(
                verdict.Failure(
                    metric=failure.metric_key.name,
                    slice=place,
                    value=failure.metric_value.double_value.value,
                    lower=bound.lower_bound.value if bound.HasField("lower_bound") else None,
                    upper=bound.upper_bound.value if bound.HasField("upper_bound") else None,
                    message=failure.message,
                )
            )
    return found


def _slice_name(key: Any) -> str:
    deserialized = slicer_lib.deserialize_slice_key(key)
    return ", ".join(f"{column} = {value}" for column, value in deserialized)


def _version(uri: str) -> int | None:
    path = os.path.join(uri, "champion.json")
    if not fileio.exists(path):
        return None
    with fileio.open(path, "r") as file:
        version = json.load(file).get("version")
    return None if version is None else int(version)


def _bless(blessing: types.Artifact, judged: verdict.Verdict, inputs: Inputs) -> None:
    """Writes the blessing as TFX does: one empty file, and what was compared as properties."""
    candidate = inputs[standard_component_specs.MODEL_KEY][0]
    blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, candidate.uri)
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, candidate.id)
    for champion in inputs.get(standard_component_specs.BASELINE_MODEL_KEY, []):
        blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_BASELINE_MODEL_URI_KEY, champion.uri)
        blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BASELINE_MODEL_ID_KEY, champion.id)
    blessing.set_int_custom_property(
        constants.ARTIFACT_PROPERTY_BLESSED_KEY,
        constants.BLESSED_VALUE if judged.blessed else constants.NOT_BLESSED_VALUE,
    )
    name = constants.BLESSED_FILE_NAME if judged.blessed else constants.NOT_BLESSED_FILE_NAME
    io_utils.write_string_file(os.path.join(blessing.uri, name), "")
