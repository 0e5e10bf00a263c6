"""Runs every check over every split's statistics, writes anomalies and report, then stops the run on errors.

Everything is checked and written before anything is refused: who repairs the data sees all of it at once.
"""

from __future__ import annotations

import json
import os
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

from components.example_validator import checks, findings
from components.example_validator.report import Report
from evergreen import progress, settings
from evergreen.errors import GateRefusal

VALIDATION_KEY = "validation"
LABEL_KEY = "label"
CHAMPION_KEY = "champion"
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
            input_dict: `statistics` (`ExampleStatistics`), `schema` (`Schema`) and, where there is a Champion node,
                `champion` (`Model`, which may hold none).
            output_dict: `anomalies` (`ExampleAnomalies`): `Split-<name>/SchemaDiff.pb` and `report.json`.
            exec_properties: `validation` (JSON of `settings.Validation`) and `label` (the raw column).

        Raises:
            GateRefusal: with every error, after everything was checked and written.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        validation = settings.Validation.model_validate_json(exec_properties[VALIDATION_KEY])
        statistics = artifact_utils.get_single_instance(input_dict[standard_component_specs.STATISTICS_KEY])
        output = artifact_utils.get_single_instance(output_dict[standard_component_specs.ANOMALIES_KEY])
        schema = _read_schema(artifact_utils.get_single_uri(input_dict[standard_component_specs.SCHEMA_KEY]))
        champion = input_dict.get(CHAMPION_KEY)
        reference, version = _read_champion(champion[0].uri) if champion else (None, None)

        names = artifact_utils.decode_split_names(statistics.split_names)
        splits = {name: stats_artifact_utils.load_statistics(statistics, name).proto() for name in names}
        anomalies = {
            name: _validate(split, schema, reference if name == TRAIN else None, validation.max_drift)
            for name, split in splits.items()
        }
        report = _check(
            {name: _dataset(split) for name, split in splits.items()},
            anomalies=anomalies,
            schema=schema,
            reference=_dataset(reference) if reference else None,
            champion_version=version,
            validation=validation,
            label=exec_properties[LABEL_KEY],
        )
        _write(output, statistics, anomalies, report)
        progress.report(report.figure())
        if report.errors:
            raise GateRefusal(finding.problem() for finding in report.errors)


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
    splits: dict[str, statistics_pb2.DatasetFeatureStatistics],
    *,
    anomalies: dict[str, anomalies_pb2.Anomalies],
    schema: schema_pb2.Schema,
    reference: statistics_pb2.DatasetFeatureStatistics | None,
    champion_version: int | None,
    validation: settings.Validation,
    label: str,
) -> Report:
    found = [
        *checks.rows(splits, min_rows=validation.min_rows),
        *checks.label(splits, column=label),
    ]
    for name, dataset in splits.items():
        found.extend(checks.anomalies(anomalies[name], split=name, dataset=dataset, schema=schema))
    found.extend(checks.empty_columns(splits, schema=schema))
    measured = checks.distances(anomalies[TRAIN]) if TRAIN in anomalies else {}
    if reference is not None:
        version = "" if champion_version is None else f" (version {champion_version})"
        against = f"what the serving model was trained on{version}"
        found.extend(checks.drift(measured, split=TRAIN, current=splits[TRAIN], reference=reference, against=against))
    return Report(
        findings=findings.merge(found),
        splits={
            name: {"rows": int(dataset.num_examples), "columns": len(dataset.features)}
            for name, dataset in splits.items()
        },
        drift={name: distance for name, (distance, _) in measured.items()},
        champion_version=champion_version,
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
