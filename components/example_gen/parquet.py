"""Parquet files: what is wrong with a whole one, told from its footer, and its rows by groups.

Guarantees: a file is read by row groups, so that a large one is dealt out and never in memory as a whole; the types are
the file's own, and a file that says something else than the schema, or than its siblings, is told before it is read.

    inspected = inspect(file, data, columns)
    for rows, first in read(path, columns, start=0, count=None, line=1): ...
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from components.example_gen import inspection, source, typed
from components.example_gen.inspection import Column, Inspected, Range, Unreadable
from evergreen import settings, spans
from evergreen.errors import Problem
from evergreen.words import short

MAGIC = b"PAR1"
BATCH_CELLS = 4 << 20
"""Values of a batch: enough for Arrow to run at full speed, also with thousands of columns."""
BATCH_ROWS = 1 << 16


def inspect(file: spans.DataFile, data: settings.Data, columns: Mapping[str, Column] | None) -> Inspected:
    """Looks at a file's footer.

    Args:
        file: the file.
        data: unused; all inspections take the same.
        columns: what the schema says of each column; None without a schema.

    Returns:
        The columns with their types and the row groups; or the problems, each of which rules the whole file out.
    """
    del data
    try:
        head = source.head_of_file(file.path)
    except OSError as error:
        return Inspected(file=file, problems=[inspection.unreadable(file, error)])
    if problem := _storage_problem(file, head):
        return Inspected(file=file, problems=[problem])
    try:
        with source.raw(file.path) as stream, contextlib.closing(_opened(stream)) as opened:
            footer, schema = opened.metadata, opened.schema_arrow
            groups = [footer.row_group(index) for index in range(footer.num_row_groups)]
            sizes = [(group.num_rows, group.total_byte_size) for group in groups]
    except (pa.ArrowException, OSError) as error:
        return Inspected(file=file, problems=[damaged(file.path, error)])
    header = list(schema.names)
    problems = list(inspection.name_problems(file.path, header))
    if not problems and columns is not None:
        problems += inspection.column_problems(file.path, header, columns, "the schema")
    problems += _type_problems(file, schema, columns)
    if not sum(rows for rows, _ in sizes) and not problems:
        problems.append(inspection.no_rows(file.path, "columns and no rows"))
    return Inspected(
        file=file,
        problems=problems,
        header=header,
        kinds={field.name: _kind(field.type) for field in schema},
        type_names={field.name: str(field.type) for field in schema},
        ranges=list(_ranges(sizes)),
    )


def _opened(stream: Any) -> Any:
    return parquet.ParquetFile(pa.PythonFile(stream, mode="r"))


def _kind(type_: Any) -> Any:
    return None if pa.types.is_null(type_) else typed.kind_of(type_)


def _ranges(sizes: Sequence[tuple[int, int]]) -> Iterator[Range]:
    line = 1
    for index, (rows, size) in enumerate(sizes):
        if rows:
            yield Range(start=index, length=1, line=line, size=size)
        line += rows


def _storage_problem(file: spans.DataFile, head: bytes) -> Problem | None:
    if not head:
        return inspection.empty(file)
    if not head.startswith(MAGIC):
        return Problem(
            where=file.path,
            found=inspection.format_of(head) or f"no Parquet file (it begins with {head!r})",
            expected="a Parquet file, as data.format says",
            action="Set data.format to what the files are, or correct data.path if it takes in a file that is not "
            "meant.",
        )
    with source.raw(file.path) as stream:
        stream.seek(max(0, file.size - len(MAGIC)))
        if stream.read(len(MAGIC)) != MAGIC or file.size < 12:
            return _truncated(file.path)
    return None


def _truncated(path: str) -> Problem:
    return Problem(
        where=path,
        found="a Parquet file that ends too early",
        expected="a complete file (its footer comes last)",
        action="Deliver the file again; its writing or transfer was cut off or is still going on.",
    )


def damaged(path: str, error: Exception) -> Problem:
    """Tells that a file's contents cannot be read."""
    return Problem(
        where=path,
        found=f"a Parquet file that is damaged ({str(error).splitlines()[0][:200] if str(error) else 'no reason'})",
        expected="a complete file",
        action="Deliver the file again.",
    )


def _type_problems(file: spans.DataFile, schema: Any, columns: Mapping[str, Column] | None) -> Iterator[Problem]:
    for field in schema:
        if typed.kind_of(field.type) is None:
            yield Problem(
                where=f"{file.path}, column {field.name!r}",
                found=f"the type {short(str(field.type), 100)}",
                expected="numbers, text, booleans, moments, or lists of them",
                action="Write its parts as columns of their own, or leave the column out.",
            )
        elif columns is not None and field.name in columns and not typed.fits(field.type, columns[field.name].type):
            yield Problem(
                where=f"{file.path}, column {field.name!r}",
                found=f"the type {short(str(field.type), 100)}",
                expected=f"{columns[field.name].type.words} in every row, as in the schema",
                action="Write the column with this type, or change its type in the schema.",
            )


def read(path: str, *, start: int, length: int | None, line: int) -> Iterator[tuple[pa.Table, int]]:
    """Reads row groups.

    Args:
        path: the file.
        start: the first row group.
        length: how many; None for all that follow.
        line: number of the first row.

    Yields:
        Rows with the file's types, and the number of the first of them.

    Raises:
        Unreadable: the data are damaged.
    """
    try:
        with source.raw(path) as stream, contextlib.closing(_opened(stream)) as opened:
            end = opened.metadata.num_row_groups if length is None else start + length
            size = max(1, min(BATCH_ROWS, BATCH_CELLS // max(1, opened.metadata.num_columns)))
            groups = list(range(start, end))
            for batch in opened.iter_batches(batch_size=size, row_groups=groups, use_threads=False):
                yield pa.Table.from_batches([batch]), line
                line += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise Unreadable(damaged(path, error)) from error
