"""The type of every column: from the schema, or found once over samples of all files and then used for all.

columns = from_schema("schemas/humidity/schema.pbtxt")     # name -> Column
columns = infer(inspected_files, data)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from components.example_gen import source
from components.example_gen.inspection import HEAD, Column, Inspected
from components.example_gen.table import BlockReader, ColumnType, unconvertible
from evergreen import settings
from evergreen.decimals import pointed_column
from evergreen.errors import BadInput, Problem

_NOT_YET = ("DEPRECATED", "PLANNED", "ALPHA", "DEBUG_ONLY", "DISABLED")
"""Stages of a feature's life in which data may lack it."""


def from_schema(path: str) -> dict[str, Column]:
    """Reads the columns of a TensorFlow Metadata schema in text form.

    A feature is required when its presence says that some share of the rows has it, and may be missing from a file when
    its presence asks for nothing.

    Args:
        path: local, or remote with "://".

    Returns:
        Every feature's column by name, in the order of the schema.

    Raises:
        BadInput: the schema cannot be read, or a feature has a type that a CSV column cannot have.
    """
    schema = _read(path)
    problems = [
        Problem(
            where=f"{path}, feature {feature.name!r}",
            found=f"type {schema_pb2.FeatureType.Name(feature.type)}",
            expected="FLOAT, INT or BYTES",
            action="Give the feature one of these types.",
        )
        for feature in schema.feature
        if schema_pb2.FeatureType.Name(feature.type) not in {type_.value for type_ in ColumnType}
    ]
    if problems:
        raise BadInput(problems)
    return {feature.name: _column(feature) for feature in schema.feature}


def _read(path: str) -> Any:
    import tensorflow as tf

    try:
        with tf.io.gfile.GFile(path, "r") as file:
            return text_format.Parse(file.read(), schema_pb2.Schema())
    except tf.errors.OpError:
        found, action = "no readable file", "Correct the path of the schema in the configuration."
    except (text_format.ParseError, UnicodeDecodeError) as error:
        found, action = str(error), "Correct the line."
    raise BadInput([Problem(where=path, found=found, expected="a schema in text form (schema.pbtxt)", action=action)])


def _column(feature: Any) -> Column:
    stage = schema_pb2.LifecycleStage.Name(feature.lifecycle_stage)
    present = stage not in _NOT_YET
    return Column(
        type=ColumnType(schema_pb2.FeatureType.Name(feature.type)),
        required=present and feature.presence.min_fraction > 0,
        optional=not (present and (feature.presence.min_fraction > 0 or feature.presence.min_count > 0)),
    )


def infer(files: Sequence[Inspected], data: settings.Data) -> dict[str, Column]:
    """Finds the narrowest type that takes every sampled value: whole numbers, numbers, text.

    Of every CSV file the beginning is sampled, of one that can be cut also its middle and end; other files say
    themselves. A column without any value is text.

    Args:
        files: files without problems that all have the same columns.
        data: how they are written.

    Returns:
        The columns by name; none is required.
    """
    types: dict[str, ColumnType | None] = {}
    if data.format != "csv":
        for file in files:
            for name, kind in file.kinds.items():
                types[name] = _wider(types.get(name), kind)
        return {name: Column(type=type_ or ColumnType.STRING) for name, type_ in types.items()}
    for file in files:
        reader = BlockReader(file.header, dict.fromkeys(file.header, ColumnType.STRING), data.csv)
        for sample in _samples(file):
            rows, _ = reader.read(sample)
            for name in file.header:
                values = rows.column(name)
                numbers = pointed_column(values) if data.csv.decimal == "," else values
                types[name] = _widened(types.get(name), numbers)
    return {name: Column(type=type_ or ColumnType.STRING) for name, type_ in types.items()}


def _samples(file: Inspected) -> Iterator[bytes]:
    yield file.sample
    if not file.seekable or file.file.size < 4 * HEAD:
        return
    for start in (file.file.size // 2, file.file.size - HEAD):
        with source.opened(file.file.path, encoding="utf-8", start=start) as stream:
            sample = stream.read(HEAD)
        # Both ends are somewhere within a line.
        yield sample[sample.find(b"\n") + 1 : sample.rfind(b"\n") + 1]


def _widened(known: ColumnType | None, column: Any) -> ColumnType | None:
    """Returns the type that takes what was `known` and the new values; None as long as there was no value."""
    values = column.combine_chunks().drop_null() if isinstance(column, pa.ChunkedArray) else column.drop_null()
    if not len(values) or known is ColumnType.STRING:
        return known
    numbers: Iterable[ColumnType] = (
        (ColumnType.FLOAT,) if known is ColumnType.FLOAT else (ColumnType.INT, ColumnType.FLOAT)
    )
    return next((type_ for type_ in numbers if not unconvertible(values, type_)), ColumnType.STRING)


def _wider(known: ColumnType | None, kind: ColumnType | None) -> ColumnType | None:
    """Joins what two files say, which are both text or both numbers."""
    return ColumnType.FLOAT if ColumnType.FLOAT in (known, kind) else known or kind


def types_of(columns: Mapping[str, Column]) -> dict[str, ColumnType]:
    """Leaves the types of the columns."""
    return {name: column.type for name, column in columns.items()}
