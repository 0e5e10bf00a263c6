"""Runs every check over statistics, spans and rows, writes anomalies and report, then stops the run on errors.

Everything is checked and written before anything is refused: who repairs the data sees all of it at once.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
from tfx import types
from tfx.components.example_validator import executor as tfx_executor
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils, writer_utils

from components.example_validator import checks, examination, findings
from components.example_validator.checks import Dataset
from components.example_validator.findings import Finding
from components.example_validator.report import Report, write_json
from components.example_validator.spans import History, Judged
from evergreen import progress, settings
from evergreen.errors import GateRefusal

VALIDATION_KEY = "validation"
LABEL_KEY = "label"
WEIGHTS_KEY = "weights"
CHAMPION_KEY = "champion"
SPANS_FILE = "spans.json"
"""What is remembered of the spans; Pusher takes it into the bundle, where the next run's gate finds it."""
CHAMPION_SPANS = os.path.join("bundle", "validation", SPANS_FILE)
CHAMPION_STATISTICS = os.path.join("bundle", "train_stats", "FeatureStats.pb")
TRAIN = "train"


class Executor(base_executor.BaseExecutor):
    """The data gate."""

    def Do(  # noqa: N802 - TFX calls it so
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Checks the data.

        Args:
            input_dict: `statistics` (`ExampleStatistics`), `schema` (`Schema`), `examples` (`Examples`) for what
                statistics do not tell and, where there is a Champion node, `champion` (`Model`, which may hold none).
            output_dict: `anomalies` (`ExampleAnomalies`): `Split-<name>/SchemaDiff.pb`, `report.json` and `spans.json`.
            exec_properties: `validation` (JSON of `settings.Validation`), `label` (the raw column) and, where rows are
                weighted by one, `weights` (the raw column).

        Raises:
            BadInput: when a condition of the configuration names a column that there is not.
            GateRefusal: with every error, after everything was checked and written.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        validation = settings.Validation.model_validate_json(exec_properties[VALIDATION_KEY])
        label = exec_properties[LABEL_KEY]
        statistics = artifact_utils.get_single_instance(input_dict[standard_component_specs.STATISTICS_KEY])
        output = artifact_utils.get_single_instance(output_dict[standard_component_specs.ANOMALIES_KEY])
        schema = _read_schema(artifact_utils.get_single_uri(input_dict[standard_component_specs.SCHEMA_KEY]))
        champion = input_dict.get(CHAMPION_KEY)
        reference, version = _read_champion(champion[0].uri) if champion else (None, None)
        names = artifact_utils.decode_split_names(statistics.split_names)
        examples = input_dict.get(standard_component_specs.EXAMPLES_KEY)
        spans_found, custom_found = None, []
        if examples:
            table = examination.Table(uri=examples[0].uri, splits=names, schema=schema)
            custom_found = list(examination.custom(table, validation.checks))
            history = _read_history(champion[0].uri) if champion else History()
            spans_found = examination.spans(table, history=history, validation=validation, label=label)

        splits = {name: stats_artifact_utils.load_statistics(statistics, name).proto() for name in names}
        anomalies = {
            name: _validate(split, schema, reference if name == TRAIN else None, _widest_drift(validation))
            for name, split in splits.items()
        }
        report = _check(
            {name: _dataset(split) for name, split in splits.items()},
            anomalies=anomalies,
            schema=schema,
            reference=_dataset(reference) if reference else None,
            champion_version=version,
            validation=validation,
            label=label,
            weights=exec_properties.get(WEIGHTS_KEY) or None,
            skew=_skew(splits, schema, validation.max_split_skew),
            judged=spans_found,
            custom_found=custom_found,
        )
        _write(output, statistics, anomalies, report)
        if spans_found is not None:
            write_json(os.path.join(output.uri, SPANS_FILE), spans_found.history.as_json())
        progress.report(report.figure())
        if report.errors:
            # What this node has written is removed with its failure; the log of a cluster's pod stays.
            logging.getLogger(__name__).error("The data gate's report: %s", json.dumps(report.as_json()))
            raise GateRefusal((finding.problem() for finding in report.errors), report=report.as_json())


def _widest_drift(validation: settings.Validation) -> float | None:
    """Returns the threshold that makes TFDV measure; `checks.drift` holds each column against its own."""
    return max((value for value in (validation.max_drift, validation.max_label_drift) if value), default=None)


def _skew(
    splits: Mapping[str, statistics_pb2.DatasetFeatureStatisticsList],
    schema: schema_pb2.Schema,
    most: float | None,
) -> dict[str, anomalies_pb2.Anomalies]:
    """Measures how far each other split is from the train split."""
    if most is None or TRAIN not in splits or not _dataset(splits[TRAIN]).num_examples:
        return {}
    others = {name: split for name, split in splits.items() if name != TRAIN}
    return {name: _validate(split, schema, splits[TRAIN], most) for name, split in others.items()}


def _validate(
    statistics: statistics_pb2.DatasetFeatureStatisticsList,
    schema: schema_pb2.Schema,
    reference: statistics_pb2.DatasetFeatureStatisticsList | None,
    max_drift: float | None,
) -> anomalies_pb2.Anomalies:
    if not _dataset(statistics).num_examples:
        return anomalies_pb2.Anomalies()  # TFDV refuses statistics of nothing; `checks.rows` says it better
    if reference is None or max_drift is None:
        return tfdv.validate_statistics(statistics, schema)
    compared = checks.with_comparators(
        schema, current=_dataset(statistics), reference=_dataset(reference), max_drift=max_drift
    )
    return tfdv.validate_statistics(statistics, compared, previous_statistics=reference)


def _check(
    splits: dict[str, Dataset],
    *,
    anomalies: dict[str, anomalies_pb2.Anomalies],
    schema: schema_pb2.Schema,
    reference: Dataset | None,
    champion_version: int | None,
    validation: settings.Validation,
    label: str,
    weights: str | None,
    skew: Mapping[str, anomalies_pb2.Anomalies],
    judged: Judged | None,
    custom_found: Sequence[Finding],
) -> Report:
    found = [
        *checks.rows(splits, min_rows=validation.min_rows),
        *checks.label(splits, column=label),
        *checks.weights(splits, column=weights),
    ]
    for name, dataset in splits.items():
        found.extend(checks.anomalies(anomalies[name], split=name, dataset=dataset, schema=schema))
    found.extend(checks.empty_columns(splits, schema=schema))
    measured = checks.distances(anomalies[TRAIN]) if TRAIN in anomalies else {}
    moving = judged.moving if judged else frozenset()
    if reference is not None:
        against = _against(reference, champion_version, validation)
        settled = {name: value for name, value in measured.items() if name not in moving}
        found.extend(checks.drift(settled, split=TRAIN, current=splits[TRAIN], against=against, label=label))
    for name, split in skew.items():
        found.extend(checks.skew(checks.distances(split), split=name, current=splits[name], train=splits[TRAIN]))
    kept = [finding for each in found if (finding := findings.of_severity(each, validation.severity)) is not None]
    return Report(
        findings=findings.merge([*kept, *(judged.findings if judged else ()), *custom_found]),
        splits={
            name: {"rows": int(dataset.num_examples), "columns": len(dataset.features)}
            for name, dataset in splits.items()
        },
        drift={name: distance for name, (distance, _) in measured.items()},
        champion_version=champion_version,
        checked_spans=judged.checked if judged else (),
        span_drift=judged.distances if judged else {},
        moving=sorted(moving),
    )


def _against(reference: Dataset, version: int | None, validation: settings.Validation) -> checks.Reference:
    """Returns what drift is measured against: the training data of the serving model."""
    return checks.Reference(
        statistics=reference,
        words="what the serving model was trained on" + ("" if version is None else f" (version {version})"),
        max_drift=validation.max_drift,
        max_label_drift=validation.max_label_drift,
    )


def _write(
    output: types.Artifact,
    statistics: types.Artifact,
    anomalies: dict[str, anomalies_pb2.Anomalies],
    report: Report,
) -> None:
    output.split_names = statistics.split_names
    output.span = statistics.span
    for name, split in anomalies.items():
        folder = artifact_utils.get_split_uri([output], name)
        writer_utils.write_anomalies(os.path.join(folder, tfx_executor.DEFAULT_FILE_NAME), split)
    refused = {split for finding in report.errors for split in finding.splits}
    output.set_json_value_custom_property(
        tfx_executor.ARTIFACT_PROPERTY_BLESSED_KEY,
        {name: tfx_executor.NOT_BLESSED_VALUE if name in refused else tfx_executor.BLESSED_VALUE for name in anomalies},
    )
    report.write(output.uri)


def _dataset(statistics: statistics_pb2.DatasetFeatureStatisticsList) -> statistics_pb2.DatasetFeatureStatistics:
    """Returns the statistics over all rows; an empty one where there was nothing to count."""
    if not statistics.datasets:
        return statistics_pb2.DatasetFeatureStatistics()
    whole = [dataset for dataset in statistics.datasets if dataset.name in ("", "All Examples")]
    return (whole or list(statistics.datasets))[0]


def _read_schema(folder: str) -> schema_pb2.Schema:
    return io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(folder))


def _read_history(uri: str) -> History:
    """Returns what the gate remembered of the spans that the champion was trained on."""
    path = os.path.join(uri, CHAMPION_SPANS)
    if not fileio.exists(path):
        return History()
    with fileio.open(path, "r") as file:
        return History.from_json(json.load(file))


def _read_champion(uri: str) -> tuple[statistics_pb2.DatasetFeatureStatisticsList | None, int | None]:
    """Returns the training statistics of the champion and its version; nothing where there is no champion."""
    path = os.path.join(uri, CHAMPION_STATISTICS)
    if not fileio.exists(path):
        return None, None
    with fileio.open(path, "rb") as file:
        statistics = statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read())
    described = os.path.join(uri, "champion.json")
    if not fileio.exists(described):
        return statistics, None
    with fileio.open(described, "r") as file:
        return statistics, json.load(file).get("version")
