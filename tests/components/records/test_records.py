"""Record batches written as TFRecord files and read back, in one process and with two workers."""

from __future__ import annotations

from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.coders import example_coder

from components.records import reading, writing

SCHEMA = text_format.Parse(
    'feature { name: "id" type: INT } feature { name: "name" type: BYTES } feature { name: "x" type: FLOAT }',
    schema_pb2.Schema(),
)
OPTIONS = ["--runner=DirectRunner", "--direct_running_mode=in_memory", "--direct_num_workers=1"]
THREADS = ["--runner=DirectRunner", "--direct_running_mode=multi_threading", "--direct_num_workers=2"]


def _batch(ids: list[int]) -> pa.RecordBatch:
    """A row for each id; every third lacks its name."""
    names = [None if number % 3 == 0 else [f"n{number}".encode()] for number in ids]
    return pa.RecordBatch.from_pydict(
        {
            "id": pa.array([[number] for number in ids], pa.large_list(pa.int64())),
            "name": pa.array(names, pa.large_list(pa.large_binary())),
            "x": pa.array([[number / 2] for number in ids], pa.large_list(pa.float32())),
        }
    )


def _ids(folder: Path) -> list[int]:
    reader = reading.Reader(SCHEMA)
    found: list[int] = []
    for file in sorted(folder.iterdir()):
        for batch in reader.read(str(file)):
            found += batch.column(batch.schema.get_field_index("id")).flatten().to_pylist()
    return found


def _write(folder: Path, batches: list[list[int]], options: list[str]) -> None:
    with beam.Pipeline(argv=options) as pipeline:
        _ = (
            pipeline
            | beam.Create(batches)
            | beam.Map(lambda ids: ("train" if ids[0] % 100 else "test", _batch(ids)))
            | writing.WriteKeyedBatches(
                {split: str(folder / split / "data") for split in ("train", "test")},
                schema=SCHEMA,
                staging=str(folder / ".writing"),
            )
        )


@pytest.mark.parametrize("options", [OPTIONS, THREADS], ids=["one", "two threads"])
def test_every_row_is_written_once_and_nothing_else_is_left(tmp_path: Path, options: list[str]) -> None:
    batches = [list(range(start, start + 50)) for start in range(0, 500, 50)]
    _write(tmp_path, batches, options)
    for split, remainder in (("test", 0), ("train", 50)):
        files = sorted(file.name for file in (tmp_path / split).iterdir())
        assert len(files) >= writing.SHARDS
        assert files == [f"data-{index:05d}-of-{len(files):05d}" for index in range(len(files))]
        expected = [number for batch in batches if batch[0] % 100 == remainder for number in batch]
        assert sorted(_ids(tmp_path / split)) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test", "train"]


def test_no_rows_make_one_empty_file(tmp_path: Path) -> None:
    _write(tmp_path, [[100, 101]], OPTIONS)
    assert [file.name for file in (tmp_path / "train").iterdir()] == ["data-00000-of-00001"]
    assert _ids(tmp_path / "train") == []
    assert sorted(_ids(tmp_path / "test")) == [100, 101]


def test_lists_of_lists_become_the_features_that_the_schema_names(tmp_path: Path) -> None:
    schema = text_format.Parse(
        """feature { name: "v" type: INT } feature { name: "v_length" type: INT }
        tensor_representation_group { key: "" value { tensor_representation { key: "v" value { ragged_tensor {
        feature_path { step: "v" } partition { row_length: "v_length" } } } } } }""",
        schema_pb2.Schema(),
    )
    nested = pa.array([[[1, 2], [3]], [[]]], pa.large_list(pa.large_list(pa.int64())))
    with beam.Pipeline(argv=OPTIONS) as pipeline:
        batches = pipeline | beam.Create([("train", pa.RecordBatch.from_pydict({"v": nested}))])
        prefixes = {"train": str(tmp_path / "train" / "data")}
        _ = batches | writing.WriteKeyedBatches(prefixes, schema=schema, staging=str(tmp_path / ".writing"))
    found = [
        {
            name: list(feature.int64_list.value)
            for name, feature in tf.train.Example.FromString(one).features.feature.items()
        }
        for file in sorted((tmp_path / "train").iterdir())
        for one in tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    ]
    assert found == [{"v": [1, 2, 3], "v_length": [2, 1]}, {"v": [], "v_length": [0]}]


def test_naming_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    staging = tmp_path / ".staging"
    staging.mkdir()
    for name in ("a", "b", "left by a bundle that was done again"):
        (staging / name).write_text(name)
    written = [("train", str(staging / "b")), ("train", str(staging / "a"))]
    (staging / "a").rename(tmp_path / "data-00000-of-00002")
    names = writing.name_files(written, {"train": str(tmp_path / "data")}, str(staging))
    assert [Path(name).read_text() for name in names] == ["a", "b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data-00000-of-00002", "data-00001-of-00002"]


def test_keyed_batches_hold_every_row_of_plain_and_gzipped_files(tmp_path: Path) -> None:
    encoder = example_coder.RecordBatchToExamplesEncoder(SCHEMA)
    for name, option, ids in (("a/1", "", range(10)), ("a/2.gz", "GZIP", range(10, 25)), ("b/1", "", range(100, 103))):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        with tf.io.TFRecordWriter(str(file), option) as writer:
            for example in encoder.encode(_batch(list(ids))):
                writer.write(example)
    out = tmp_path / "found.txt"
    with beam.Pipeline(argv=THREADS) as pipeline:
        _ = (
            pipeline
            | reading.ReadKeyedBatches({"a": f"{tmp_path}/a/*", "b": f"{tmp_path}/b/*", "c": f"{tmp_path}/c/*"}, rows=4)
            | beam.Map(lambda keyed: f"{keyed[0]} {keyed[1].num_rows} {keyed[1].to_pydict()['id']}")
            | beam.io.WriteToText(str(out), shard_name_template="")
        )
    found: dict[str, list[int]] = {}
    for line in out.read_text().splitlines():
        key, rows, ids = line.split(" ", 2)
        assert 1 <= int(rows) <= 4
        found.setdefault(key, []).extend(number for row in eval(ids) for number in row)
    assert {key: sorted(ids) for key, ids in found.items()} == {"a": list(range(25)), "b": [100, 101, 102]}


def test_wide_rows_make_batches_of_fewer_rows() -> None:
    wide = tf.data.Dataset.from_tensor_slices([b"x" * (reading.BATCH_BYTES // 10)] * 3)
    assert reading.rows_of_a_batch(wide) == 10
    assert reading.rows_of_a_batch(tf.data.Dataset.from_tensor_slices([b"x"])) == reading.ROWS
    assert (
        reading.rows_of_a_batch(tf.data.Dataset.from_tensor_slices(np.array([], dtype=object).astype(str)))
        == reading.ROWS
    )


def test_with_a_schema_the_batches_are_those_of_the_tfx_decoder(tmp_path: Path) -> None:
    several = pa.RecordBatch.from_pydict(
        {
            "id": pa.array([[1, 2], None, [], [3]], pa.large_list(pa.int64())),
            "name": pa.array([None, [b"a", b"\xff"], [b""], None], pa.large_list(pa.large_binary())),
            "x": pa.array([None, None, None, None], pa.large_list(pa.float32())),
        }
    )
    file = tmp_path / "data"
    serialized = example_coder.RecordBatchToExamplesEncoder(SCHEMA).encode(several)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for example in [*serialized, b""]:
            writer.write(example)
    (batch,) = reading.Reader(SCHEMA).read(str(file))
    expected = example_coder.ExamplesToRecordBatchDecoder(SCHEMA.SerializeToString()).DecodeBatch([*serialized, b""])
    assert batch.schema.equals(expected.schema)
    found = batch.to_pydict()
    # A list that is there and empty is no value either, to all who read it.
    assert found == {name: [row or None for row in rows] for name, rows in expected.to_pydict().items()}
    assert found["id"] == [[1, 2], None, None, [3], None]


def test_files_are_cut_evenly_and_dealt_by_size(tmp_path: Path) -> None:
    for name, size in (("a", 1100), ("b", 90), ("c.gz", 5000)):
        (tmp_path / name).write_bytes(b"x" * size)
    found = reading.ranges([("k", f"{tmp_path}/*")], size=1000)
    assert [(Path(path).name, start, end) for _, path, start, end in found] == [
        ("c.gz", 0, 5000),
        ("a", 0, 550),
        ("a", 550, 1100),
        ("b", 0, 90),
    ]
