"""The rows of each span as Arrow columns, read back from the Examples artifact without any Python per row.

for source in sources(examples_uri):
    table = read(examples_uri, source, splits=["train", "eval", "test"], schema=schema, most=50_000)
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.dsl.io import fileio

from components.example_gen import summary
from components.records import frames, reading

_BATCH = 16_384
_SEED = 20240229
_ARROW = {schema_pb2.FLOAT: pa.float32(), schema_pb2.INT: pa.int64(), schema_pb2.BYTES: pa.string()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """One span as ExampleGen read it."""

    span: int
    version: int
    rows: int
    """Over all splits."""
    quarantined: int
    shards: Sequence[int]
    """Numbers of the files, of each split, that hold its rows and nothing else; empty where there are none such."""
    size: int
    """Bytes of the files that it was read from."""


def sources(uri: str) -> list[Source]:
    """Reads what ExampleGen says of the spans; nothing where the examples come from another component."""
    path = os.path.join(uri, summary.FILE)
    if not fileio.exists(path):
        return []
    with fileio.open(path, "r") as file:
        return of_summary(json.load(file))


def of_summary(told: dict[str, Any]) -> list[Source]:
    """Reads the spans of a `summary.json`, oldest first."""
    return [
        Source(
            span=span["span"],
            version=span["version"],
            rows=sum(file["rows"] for file in span["files"]),
            quarantined=sum(file["quarantined"] for file in span["files"]),
            shards=tuple(span.get("shards", ())),
            size=sum(file["size"] for file in span["files"]),
        )
        for span in sorted(told.get("spans", ()), key=lambda span: span["span"])
    ]


def read(
    uri: str,
    source: Source | None,
    *,
    splits: Sequence[str],
    schema: schema_pb2.Schema,
    columns: Sequence[str] | None = None,
    most: int | None = None,
) -> pa.Table:
    """Reads the rows of one span, of all splits, in a fixed order.

    Args:
        uri: the folder of the Examples artifact.
        source: the span; None for the rows of all spans.
        splits: which splits.
        schema: names and types of the columns; of several values in a row the first counts.
        columns: the columns to read; all of the schema where it is left out.
        most: draws about this many rows where there are more. The same rows in the same order always give the same
            draw, so that a span that was delivered twice still looks the same.

    Returns:
        Columns of float32, int64 and string; a missing value is null.
    """
    fields = {feature.name: feature.type for feature in schema.feature if feature.type in _ARROW}
    names = [name for name in fields if columns is None or name in columns]
    kept = schema_pb2.Schema(feature=[schema_pb2.Feature(name=name, type=fields[name]) for name in names])
    empty = pa.table({name: pa.array([], _ARROW[fields[name]]) for name in names})
    if not names:
        return empty
    reader = reading.Reader(kept)
    share = 1.0 if most is None or source is None or source.rows <= most else most / source.rows
    random = np.random.default_rng(_SEED)
    tables = [empty]
    for serialized in _records(uri, source, splits):
        chosen = serialized if share >= 1.0 else serialized[random.random(len(serialized)) < share]
        if len(chosen):
            batch = reader.decode(chosen)
            tables.append(pa.table({name: _first_values(batch.column(name), _ARROW[fields[name]]) for name in names}))
    return pa.concat_tables(tables)


def _records(uri: str, source: Source | None, splits: Sequence[str]) -> Iterator[Any]:
    """Yields arrays of serialized examples."""
    for split in splits:
        files = sorted(fileio.glob(os.path.join(uri, f"Split-{split}", "*")))
        if source is not None:
            wanted = {f"{number:05d}" for number in source.shards}
            files = [file for file in files if os.path.basename(file).split("-")[1:2] and _number(file) in wanted]
        for file in sorted(files, key=lambda file: not file.endswith(".gz")):
            compression = "GZIP" if file.endswith(".gz") else ""
            yield from frames.from_record(file, 0, compression=compression).batch(_BATCH).as_numpy_iterator()


def _number(path: str) -> str:
    """Returns NNNNN of `data_tfrecord-NNNNN-of-MMMMM`."""
    return os.path.basename(path).split("-")[1]


def _first_values(lists: Any, type_: Any) -> pa.Array:
    lists = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
    if pa.types.is_null(lists.type):
        return pa.nulls(len(lists), type_)
    offsets = lists.offsets.to_numpy()
    starts, lengths = offsets[:-1], np.diff(offsets)
    values = lists.values
    if not lists.null_count and np.all(lengths == 1):
        return _cast(values.slice(offsets[0], len(lists)), type_)
    present = (lengths > 0) & lists.is_valid().to_numpy(zero_copy_only=False)
    return _cast(values.take(pa.array(np.where(present, starts, 0), mask=~present)), type_)


def _cast(values: pa.Array, type_: Any) -> pa.Array:
    """Casts values; bytes that are no text are told by what can be read of them."""
    try:
        return values.cast(type_)
    except pa.ArrowInvalid:
        return pa.array([None if value is None else value.decode("utf-8", "replace") for value in values.to_pylist()])
