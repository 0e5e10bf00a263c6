"""A table in memory through the stock Transform, for benchmarks of what comes after it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def write(folder: Path, table: Mapping[str, npt.NDArray[Any]], *, shards: int = 4) -> list[str]:
    """Writes float32 and int64 columns as a train split of tf.Examples and returns the pattern of its files."""
    import tensorflow as tf
    from tfx_bsl.coders import example_coder

    split = folder / "Split-train"
    split.mkdir(parents=True)
    rows = len(next(iter(table.values())))
    offsets = pa.array(np.arange(rows + 1), pa.int32())
    lists = {name: pa.ListArray.from_arrays(offsets, pa.array(values)) for name, values in table.items()}
    encoded = example_coder.RecordBatchToExamplesEncoder(None).encode(pa.RecordBatch.from_pydict(lists))
    for shard in range(shards):
        with tf.io.TFRecordWriter(str(split / f"data_tfrecord-{shard:05d}-of-{shards:05d}")) as writer:
            for example in encoded[shard::shards]:
                writer.write(example)
    return [str(split / "*")]


def make(
    folder: Path, preprocessing: Mapping[str, Any], table: Mapping[str, npt.NDArray[Any]]
) -> tuple[tuple[str, ...], str]:
    """Runs TFX's Transform executor on a train split.

    Args:
        folder: where to.
        preprocessing: `settings.Preprocessing` as JSON.
        table: raw columns, float32 or int64.

    Returns:
        The transformed files, and the transform graph.
    """
    from tfx.components.transform import executor
    from tfx.dsl.components.base import base_beam_executor
    from tfx.types import artifact_utils, standard_artifacts

    write(folder / "raw", table)
    schema_folder = folder / "schema"
    schema_folder.mkdir()
    (schema_folder / "schema.pbtxt").write_text(
        "\n".join(
            f'feature {{ name: "{name}" type: {"INT" if values.dtype == np.int64 else "FLOAT"} '
            "shape { dim { size: 1 } } presence { min_fraction: 1.0 min_count: 1 } }"
            for name, values in table.items()
        ),
        encoding="utf-8",
    )
    raw, schema, graph, transformed, cache = (
        standard_artifacts.Examples(),
        standard_artifacts.Schema(),
        standard_artifacts.TransformGraph(),
        standard_artifacts.Examples(),
        standard_artifacts.TransformCache(),
    )
    named = {"raw": raw, "schema": schema, "graph": graph, "transformed": transformed, "cache": cache}
    for name, artifact in named.items():
        artifact.uri = str(folder / name)
    raw.split_names = artifact_utils.encode_split_names(["train"])
    raw.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    raw.set_string_custom_property("file_format", "tfrecords_gzip")
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=["--runner=DirectRunner", "--direct_num_workers=1"], tmp_dir=str(folder), unique_id="1"
    )
    executor.Executor(context).Do(
        {"examples": [raw], "schema": [schema]},
        {"transform_graph": [graph], "transformed_examples": [transformed], "updated_analyzer_cache": [cache]},
        {
            "preprocessing_fn": "transform.preprocessing.preprocessing_fn",
            "custom_config": json.dumps(preprocessing),
            "disable_statistics": 1,
            "force_tf_compat_v1": 0,
        },
    )
    files = sorted(str(file) for file in (folder / "transformed" / "Split-train").iterdir() if file.is_file())
    return tuple(files), str(folder / "graph")
