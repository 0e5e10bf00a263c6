"""Our Transform beside TFX's own executor: the same values, graph, metadata and splits, on two tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tfx.components.transform import executor as tfx_executor
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils, standard_artifacts

from components.records import reading
from components.transform import executor
from datagen import taxi
from tests import data_nodes, tables
from transform import preprocessing  # noqa: F401  found by its dotted path

TAXI_TYPES = {
    name: "BYTES" if kind == "string" else "INT" if kind == "int64" else "FLOAT"
    for name, kind in ((field.name, str(field.type)) for field in taxi.table(rows=10).schema)
}
TAXI: dict[str, Any] = {
    "features": {
        **{name: {"kind": "numeric"} for name in ("trip_miles", "trip_seconds", "fare", "pickup_latitude")},
        **{name: {"kind": "vocabulary", "top_k": 50, "out_of_vocabulary": 3} for name in ("company", "taxi_id")},
        "pickup_community_area": {"kind": "identity", "size": 78},
        "day_hour": {
            "kind": "cross",
            "parts": [{"column": "trip_start_day", "size": 8}, {"column": "trip_start_hour", "size": 24}],
        },
    },
    "label": {"column": "tips", "task": "regression"},
}


def _run(
    kind: type[tfx_executor.Executor], root: Path, name: str, config: Mapping[str, Any], splits: list[str]
) -> Path:
    examples, schema = standard_artifacts.Examples(), standard_artifacts.Schema()
    examples.uri, schema.uri = str(root / "examples"), str(root / "schema")
    examples.split_names = artifact_utils.encode_split_names(splits)
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    examples.set_string_custom_property("file_format", "tfrecords_gzip")
    graph, transformed = standard_artifacts.TransformGraph(), standard_artifacts.Examples()
    graph.uri, transformed.uri = str(root / name / "graph"), str(root / name / "examples")
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=["--runner=DirectRunner", "--direct_num_workers=1"], tmp_dir=str(root / "tmp"), unique_id="1"
    )
    kind(context).Do(
        {"examples": [examples], "schema": [schema]},
        {"transform_graph": [graph], "transformed_examples": [transformed]},
        {
            "preprocessing_fn": "transform.preprocessing.preprocessing_fn",
            "custom_config": json.dumps(config),
            "disable_statistics": 1,
            "force_tf_compat_v1": 0,
        },
    )
    assert sorted(artifact_utils.decode_split_names(transformed.split_names)) == sorted(splits)
    return root / name


def _both(root: Path, config: Mapping[str, Any], splits: list[str]) -> tuple[Path, Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "ROWS", 300)  # so that there are several batches
        ours = _run(executor.Executor, root, "ours", config, splits)
    return ours, _run(tfx_executor.Executor, root, "stock", config, splits)


@pytest.mark.slow
def test_taxi_with_holes_and_vocabularies_is_transformed_as_by_tfx(tmp_path: Path) -> None:
    rows = {"train": 1500, "eval": 400, "one": 1, "empty": 0}
    tables.write_schema(tmp_path / "schema" / "schema.pbtxt", TAXI_TYPES, dense=False)
    parts = {split: taxi.table(rows=count, part=part) for part, (split, count) in enumerate(rows.items()) if count > 1}
    parts["one"] = parts["eval"].drop_null().slice(0, 1)
    tables.write_examples(tmp_path / "examples", {split: table.to_pydict() for split, table in parts.items()})
    (tmp_path / "examples" / "Split-empty").mkdir()
    (tmp_path / "examples" / "Split-empty" / "data_tfrecord-00000-of-00001").touch()
    config = tables.settings.Preprocessing.model_validate(TAXI).model_dump(mode="json")
    ours, stock = _both(tmp_path, config, list(rows))
    data_nodes.same_transformed(ours, stock, rows)
    assert len(list((ours / "examples" / "Split-train").iterdir())) > 1


@pytest.mark.slow
def test_humidity_is_transformed_as_by_tfx(tmp_path: Path) -> None:
    rows = {"train": 800, "test": 100}
    tables.write_schema(tmp_path / "schema" / "schema.pbtxt", tables.HUMIDITY_TYPES, dense=True)
    humidity = {split: tables.humidity_table(count, seed) for seed, (split, count) in enumerate(rows.items())}
    tables.write_examples(tmp_path / "examples", humidity)
    config = tables.settings.Preprocessing.model_validate(tables.HUMIDITY).model_dump(mode="json")
    ours, stock = _both(tmp_path, config, list(rows))
    data_nodes.same_transformed(ours, stock, rows)
