"""Units of work to rows, whatever the format: typed columns, bad lines with their numbers, and where each row stood.

Guarantee: every line, row or record of a unit is in one block as a row or as a bad line.

    for block in read(unit, data, types):
        block.rows, block.bad
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import pyarrow as pa

from components.example_gen import inspection, parquet, source, tfrecord, typed
from components.example_gen.inspection import Column, Inspected, Unreadable
from components.example_gen.table import BadLine, BlockReader, ColumnType, line_count
from evergreen import settings, spans

NOUNS = {"csv": "line", "parquet": "row", "tfrecord": "record"}
"""What is counted in each format."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unit:
    """A file, or a range of one."""

    path: str
    columns: Sequence[str]
    start: int
    """Offset of the first line in the stream of UTF-8; of TFRecord any byte; of Parquet the first row group."""
    length: int | None
    """Bytes to read, or row groups; None for all."""
    line: int
    """Physical number of the first line (of Parquet: row), from 1; of TFRecord not used."""
    span: int = 0
    stored: str | None = None
    """Where what is in the file lies plain, if not in the file itself; see `plain`."""


def stored_in(unit: Unit, data: settings.Data) -> tuple[str, str]:
    """Returns the file that holds a unit's text and its encoding."""
    return (unit.path, data.csv.encoding) if unit.stored is None else (unit.stored, "utf-8")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """Some rows."""

    rows: pa.Table
    """float32, int64 and string, or large lists of them."""
    bad: Sequence[BadLine]
    """Numbered within the file, from 1."""
    locate: Callable[[Sequence[int]], list[tuple[int, str]]]
    """Gives the number within the file, and the text, of rows by their position."""


def inspect(file: spans.DataFile, data: settings.Data, columns: Mapping[str, Column] | None) -> Inspected:
    """Looks at a file, see `inspection.inspect`."""
    inspect_ = {"csv": inspection.inspect, "parquet": parquet.inspect, "tfrecord": tfrecord.inspect}[data.format]
    return inspect_(file, data, columns)


def read(unit: Unit, data: settings.Data, types: Mapping[str, ColumnType]) -> Iterator[Block]:
    """Reads a unit.

    Args:
        unit: what to read.
        data: how it is written.
        types: the type of each column.

    Raises:
        Unreadable: the file turns out to be of no use; blocks may have come before.
    """
    return {"csv": _csv, "parquet": _parquet, "tfrecord": _tfrecord}[data.format](unit, data, types)


def _parquet(unit: Unit, data: settings.Data, types: Mapping[str, ColumnType]) -> Iterator[Block]:
    del data
    for table, first in parquet.read(unit.path, start=unit.start, length=unit.length, line=unit.line):
        rows, bad, numbers = typed.conformed(table, types, first=first)
        yield Block(
            rows=rows,
            bad=bad,
            locate=lambda positions, rows=rows, numbers=numbers: [  # type: ignore[misc]
                (int(numbers[row]), typed.shown(rows, row)) for row in positions
            ],
        )


def _tfrecord(unit: Unit, data: settings.Data, types: Mapping[str, ColumnType]) -> Iterator[Block]:
    del data
    for batch in _records(unit, types):
        yield Block(
            rows=batch.rows,
            bad=batch.bad,
            locate=lambda positions, batch=batch: [  # type: ignore[misc]
                (number, typed.shown(batch.rows, row))
                for number, row in zip(batch.numbers(positions), positions, strict=True)
            ],
        )


def _records(unit: Unit, types: Mapping[str, ColumnType]) -> Iterator[tfrecord.Batch]:
    path = unit.stored or unit.path
    try:
        yield from tfrecord.read(path, types, start=unit.start, length=unit.length)
    except Unreadable as error:
        where = error.problem.where.replace(path, unit.path)
        raise Unreadable(dataclasses.replace(error.problem, where=where)) from error


def _csv(unit: Unit, data: settings.Data, types: Mapping[str, ColumnType]) -> Iterator[Block]:
    reader = BlockReader(unit.columns, types, data.csv)
    line = unit.line
    try:
        for block in _csv_blocks(unit, data):
            rows, bad = reader.read(block)
            yield Block(
                rows=rows,
                bad=[dataclasses.replace(entry, line=line + entry.line) for entry in bad],
                locate=lambda positions, block=block, bad=bad, line=line: [  # type: ignore[misc]
                    (line + number, text) for number, text in reader.locate(block, bad, positions)
                ],
            )
            line += line_count(block)
    except source.LineTooLong as error:
        raise Unreadable(inspection.too_long_a_line(unit.path)) from error
    except UnicodeDecodeError as error:
        raise Unreadable(inspection.undecodable(unit.path, data.csv.encoding, error)) from error


def _csv_blocks(unit: Unit, data: settings.Data) -> Iterator[bytes]:
    """Yields the unit's blocks; where compressed data end early, that is a problem of the file."""
    path, encoding = stored_in(unit, data)
    with source.opened(path, encoding=encoding, start=unit.start) as stream:
        blocks = source.blocks(stream, quote=data.csv.quote.encode(), length=unit.length)
        while True:
            try:
                block = next(blocks, None)
            except OSError as error:
                if unit.stored or source.compression(source.head_of_file(unit.path)) is None:
                    raise
                raise Unreadable(inspection.damaged(unit.path, error)) from error
            if block is None:
                return
            yield block
