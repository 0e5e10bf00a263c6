"""Tables for tests: the built-in problem drawn with numpy, written as tf.Examples, put through the stock Transform."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from evergreen import settings


@dataclasses.dataclass(frozen=True)
class Transformed:
    """What the stock Transform executor made of a table."""

    config: settings.Preprocessing
    schema_path: Path
    graph: Path
    examples: Path

    def files(self, split: str) -> list[str]:
        """Lists the pattern of a split's files, as TFX hands it to `run_fn`."""
        return [str(self.examples / f"Split-{split}" / "*")]


def humidity_table(rows: int, seed: int) -> dict[str, npt.NDArray[Any]]:
    """Draws rows of the built-in problem; the humidity's noise has a standard deviation of 1.416 outside the cells."""
    random = np.random.default_rng(seed)
    weekday, hour = random.integers(0, 7, rows), random.integers(0, 24, rows)
    beta1, beta2 = random.uniform(-5, 5, rows), random.uniform(-5, 5, rows)
    wet = ((weekday <= 2) & (hour >= 18) & (hour <= 21)) | (
        ((weekday == 4) | (weekday == 5)) & (hour >= 14) & (hour <= 16)
    )
    humidity = 2 * beta1 + 20 + random.normal(0, 1, rows) - 0.5 * beta2 - 1.5 + random.normal(0, 1, rows)
    humidity += wet * random.normal(8, 0.2, rows)
    return {
        "weekday": weekday,
        "hour": hour,
        "beta1": beta1.astype(np.float32),
        "beta2": beta2.astype(np.float32),
        "humidity": humidity.astype(np.float32),
    }


HUMIDITY = {
    "features": {
        "beta1": {"kind": "numeric"},
        "beta2": {"kind": "numeric"},
        "week_hour": {
            "kind": "cross",
            "parts": [{"column": "weekday", "size": 7}, {"column": "hour", "size": 24}],
        },
    },
    "label": {"column": "humidity", "task": "regression"},
}


def write_schema(path: Path, types: Mapping[str, str], *, dense: bool) -> Path:
    """Writes a schema with one value a row (dense) or with columns that may lack it (sparse)."""
    shape = "shape { dim { size: 1 } } presence { min_fraction: 1.0 min_count: 1 }" if dense else ""
    features = [f'feature {{ name: "{name}" type: {type_} {shape} }}' for name, type_ in types.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(features))
    return path


def write_examples(
    root: Path, tables: Mapping[str, Mapping[str, Sequence[Any] | npt.NDArray[Any]]], *, shards: int = 2
) -> None:
    """Writes serialized tf.Examples by split; `None` is a missing value, a list holds several values of a row."""
    import tensorflow as tf
    from tfx_bsl.coders import example_coder

    for split, table in tables.items():
        folder = root / f"Split-{split}"
        folder.mkdir(parents=True)
        columns = {name: pa.array(values, from_pandas=False) for name, values in table.items()}
        encodable = {
            pa.float64(): pa.float32(), pa.string(): pa.binary(), pa.list_(pa.string()): pa.list_(pa.binary())
        }  # fmt: skip
        columns = {name: column.cast(encodable.get(column.type, column.type)) for name, column in columns.items()}
        lists = {
            name: column
            if pa.types.is_list(column.type)
            else pa.array([v if v is None else [v] for v in column.to_pylist()], pa.list_(column.type))
            if column.null_count
            else pa.ListArray.from_arrays(pa.array(np.arange(len(column) + 1), pa.int32()), column)
            for name, column in columns.items()
        }
        encoded = example_coder.RecordBatchToExamplesEncoder(None).encode(pa.RecordBatch.from_pydict(lists))
        for shard in range(shards):
            with tf.io.TFRecordWriter(str(folder / f"data_tfrecord-{shard:05d}-of-{shards:05d}")) as writer:
                for example in encoded[shard::shards]:
                    writer.write(example)


def run_transform(
    root: Path,
    tables: Mapping[str, Mapping[str, Sequence[Any] | npt.NDArray[Any]]],
    types: Mapping[str, str],
    config: Mapping[str, Any],
    *,
    dense: bool = True,
) -> Transformed:
    """Runs TFX's own Transform executor on tables by split."""
    import json

    from tfx.components.transform import executor
    from tfx.dsl.components.base import base_beam_executor
    from tfx.types import artifact_utils, standard_artifacts

    preprocessing = settings.Preprocessing.model_validate(config)
    schema_path = write_schema(root / "schema" / "schema.pbtxt", types, dense=dense)
    write_examples(root / "examples", tables)
    examples, schema = standard_artifacts.Examples(), standard_artifacts.Schema()
    examples.uri, schema.uri = str(root / "examples"), str(root / "schema")
    examples.split_names = artifact_utils.encode_split_names(list(tables))
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    examples.set_string_custom_property("file_format", "tfrecords_gzip")
    graph, transformed, cache = (
        standard_artifacts.TransformGraph(),
        standard_artifacts.Examples(),
        standard_artifacts.TransformCache(),
    )
    graph.uri, transformed.uri, cache.uri = (str(root / name) for name in ("graph", "transformed", "cache"))
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=["--runner=DirectRunner", "--direct_num_workers=1"], tmp_dir=str(root / "tmp"), unique_id="1"
    )
    executor.Executor(context).Do(
        {"examples": [examples], "schema": [schema]},
        {"transform_graph": [graph], "transformed_examples": [transformed], "updated_analyzer_cache": [cache]},
        {
            "preprocessing_fn": "transform.preprocessing.preprocessing_fn",
            "custom_config": json.dumps(preprocessing.model_dump(mode="json")),
            "disable_statistics": 1,
            "force_tf_compat_v1": 0,
        },
    )
    return Transformed(preprocessing, schema_path, root / "graph", root / "transformed")


HUMIDITY_TYPES = {"weekday": "INT", "hour": "INT", "beta1": "FLOAT", "beta2": "FLOAT", "humidity": "FLOAT"}
