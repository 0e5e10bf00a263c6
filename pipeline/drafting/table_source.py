"""Reading a table that nobody has described yet: what `--data` means, and its rows as Arrow batches in bounded memory.

Guarantee: every reason why the files cannot be read is told at once, as for a run; no more than one block of a file is
in memory; a line that is no row is counted, not fatal.

    found = find("taxi/", called_from=Path.cwd(), root=ROOT)
    for batch in batches(found): ...          # text columns of a CSV, typed columns of a Parquet file
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import glob
import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.example_gen import inspection, parquet, source, typed
from components.example_gen.table import BlockReader, ColumnType
from evergreen import settings, spans
from evergreen.errors import BadInput, Problem

Format = Literal["csv", "parquet", "tfrecord"]

_ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".csv.gz": "csv",
    ".tsv.gz": "csv",
    ".csv.zst": "csv",
    ".csv.bz2": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord",
    ".tfrecord.gz": "tfrecord",
    ".tfrecords.gz": "tfrecord",
}
_NUMBER = r"0*\d+"
_NAMES_SHOWN = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """The files of a table and how they are written."""

    data: settings.Data
    """The section of the configuration that leads to them."""
    selection: spans.Selection
    names: Sequence[str] | None = None
    """The columns of a CSV without a header, in their order."""

    @property
    def format(self) -> str:
        """The files' format."""
        return str(self.data.format)


def find(text: str, *, called_from: Path, root: Path) -> Found:
    """Finds the files that a person means.

    Args:
        text: a file, a folder, a glob, or a pattern with `{SPAN}` and `{VERSION}`.
        called_from: what a relative path is relative to.
        root: the project, to which a path in the configuration is relative.

    Raises:
        BadInput: when there is no such file, or its format is none that a run reads.
    """
    path = text if "://" in text else os.path.normpath(os.path.join(called_from, os.path.expanduser(text)))
    pattern = _pattern(path, shown=text)
    format_ = _format(pattern)
    pattern = as_named(pattern, root)
    selection = spans.resolve(settings.Data(path=pattern))
    if format_ != "csv":
        _require_known(pattern, format_)
        return Found(data=settings.Data.model_validate({"path": pattern, "format": format_}), selection=selection)
    first = selection.files[0].path
    encoding = _encoding(first)
    delimiter = _delimiter(first, encoding)
    quote = _quote(first, encoding, delimiter)
    decimal = _decimal(first, encoding, delimiter, quote)
    csv_format = settings.CsvFormat(delimiter=delimiter, quote=quote, decimal=decimal, encoding=encoding)
    return Found(data=settings.Data(path=pattern, csv=csv_format), selection=selection)


def batches(found: Found) -> Iterator[tuple[pa.Table, int]]:
    """Reads the files of the chosen spans.

    Yields:
        Rows (text columns of a CSV, an empty cell null; the file's own types of a Parquet file) and the number of lines
        among them that are no rows.

    Raises:
        BadInput: with the problems of all files, before any row is read.
    """
    data = found.data
    columns = None
    if not data.csv.header:
        columns = {name: inspection.Column(type=ColumnType.STRING) for name in found.names or ()}
    inspected = [_inspect(file, data, columns) for file in found.selection.files]
    problems = [problem for file in inspected for problem in file.problems]
    readable = [file for file in inspected if not file.problems]
    odd = inspection.odd_ones(readable, may_lack=data.format == "tfrecord")
    problems += [problem for of_file in odd.values() for problem in of_file]
    if problems:
        raise BadInput(problems)
    if data.format == "tfrecord":
        yield from _tfrecord(inspected, data)
        return
    for file in inspected:
        yield from _parquet(file) if data.format == "parquet" else _csv(file, data)


def _inspect(file: spans.DataFile, data: settings.Data, columns: Any) -> inspection.Inspected:
    if data.format == "tfrecord":
        from components.example_gen import tfrecord  # loads TensorFlow

        return tfrecord.inspect(file, data, columns)
    return (parquet.inspect if data.format == "parquet" else inspection.inspect)(file, data, columns)


def _csv(file: inspection.Inspected, data: settings.Data) -> Iterator[tuple[pa.Table, int]]:
    reader = BlockReader(file.header, dict.fromkeys(file.header, ColumnType.STRING), data.csv)
    try:
        with source.opened(file.file.path, encoding=data.csv.encoding, start=file.data_start) as stream:
            for block in source.blocks(stream, quote=data.csv.quote.encode()):
                rows, bad = reader.read(block)
                yield rows, len(bad)
    except OSError as error:
        raise BadInput([inspection.damaged(file.file.path, error)]) from error
    except UnicodeDecodeError as error:
        raise BadInput([inspection.undecodable(file.file.path, data.csv.encoding, error)]) from error
    except source.LineTooLong as error:
        raise BadInput([inspection.too_long_a_line(file.file.path)]) from error


def _parquet(file: inspection.Inspected) -> Iterator[tuple[pa.Table, int]]:
    try:
        for rows, _ in parquet.read(file.file.path, start=0, length=None, line=1):
            yield rows, 0
    except inspection.Unreadable as error:
        raise BadInput([error.problem]) from error


def as_named(path: str | Path, root: Path) -> str:
    """Returns how a configuration names a path: relative to the project where the runner, which works there, is in it.

    Args:
        path: absolute, or remote with "://".
        root: the project.
    """
    text = str(path)
    if "://" in text or not Path(text).is_relative_to(root) or not os.path.samefile(root, os.getcwd()):
        return text
    return os.path.relpath(text, root)


def _tfrecord(files: Sequence[inspection.Inspected], data: settings.Data) -> Iterator[tuple[pa.Table, int]]:
    from components.example_gen import columns, reading  # loads TensorFlow

    types = columns.types_of(columns.infer(files, data))
    for file in files:
        try:
            whole = reading.Unit(path=file.file.path, columns=file.header, start=0, length=None, line=1)
            for block in reading.read(whole, data, types):
                yield block.rows, len(block.bad)
        except inspection.Unreadable as error:
            raise BadInput([error.problem]) from error


def most_values(column: Any) -> int:
    """Returns how many values a row has at the most; 1 for a column that holds no lists."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return int(pc.max(pc.list_value_length(column)).as_py() or 1) if typed.is_list(column.type) else 1


def _of_any_length(column: Any) -> Any:
    """Returns lists whose rows may have different lengths; a row without one of a fixed length has an empty one."""
    if not pa.types.is_fixed_size_list(column.type):
        return column.cast(pa.list_(column.type.value_type))
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, column.flatten())


def _first(column: Any) -> Any:
    """Returns the first value of every row of a list column, null where it has none."""
    if pa.types.is_null(column.type):
        return column
    starts = column.offsets.to_numpy(zero_copy_only=False)
    empty = (starts[1:] == starts[:-1]) | column.is_null().to_numpy(zero_copy_only=False)
    return column.values.take(pa.array(starts[:-1], pa.int64(), mask=empty))


# --- what --data means -----------------------------------------------------------------------------------------------


def _pattern(path: str, *, shown: str) -> str:
    """Turns a folder into a glob of its files; a file, a glob and a pattern stay."""
    if os.path.isfile(path) and "://" not in path:
        return glob.escape(path)  # a file may be called a[1].csv
    if "://" in path or any(sign in path for sign in "*?{["):
        return path
    if not os.path.isdir(path):
        raise BadInput([_missing(path, shown)])
    files = [
        os.path.relpath(name, path)
        for name in glob.glob(os.path.join(path, "**"), recursive=True)
        if os.path.isfile(name) and _ending(name)
    ]
    if not files:
        raise BadInput([_no_table(path, shown)])
    return os.path.join(path, _glob_of(files))


def _glob_of(files: Sequence[str]) -> str:
    """Returns a glob for files below a folder; what looks like spans and versions becomes their placeholders."""
    endings = [_ending(name) or "" for name in files]
    ending = max(sorted(set(endings)), key=endings.count)
    chosen = sorted(name for name, its in zip(files, endings, strict=True) if its == ending)
    shapes = {_shape(name) for name in chosen}
    if len(shapes) == 1 and "{SPAN}" in (shape := shapes.pop()):
        return shape
    depths = {name.count(os.sep) for name in chosen}
    if len(chosen) == 1:
        return chosen[0]
    return ("**/" if depths != {0} else "") + f"*{ending}"


def _shape(name: str) -> str:
    """Replaces `span-12` and `v-3` in a path by placeholders, and a file's name below them by a star."""
    shape = re.sub(rf"(span[-_=]?){_NUMBER}", r"\1{SPAN}", name, count=1, flags=re.IGNORECASE)
    shape = re.sub(rf"((?:^|[/_.-])(?:v|version)[-_=]?){_NUMBER}", r"\1{VERSION}", shape, count=1, flags=re.IGNORECASE)
    folder, _, file = shape.rpartition("/")
    return shape if "{" in file else f"{folder}/*{_ending(file)}"


def _ending(name: str) -> str | None:
    lower = name.lower()
    return next((ending for ending in sorted(_ENDINGS, key=len, reverse=True) if lower.endswith(ending)), None)


def _format(pattern: str) -> Format:
    return _ENDINGS.get(_ending(pattern) or "", "csv")


def _require_known(pattern: str, format_: Format) -> None:
    known = get_args(settings.Data.model_fields["format"].annotation) or ("csv",)
    if format_ in known:
        return
    raise BadInput(
        [
            Problem(
                where="--data",
                found=f"{pattern}, {format_}",
                expected=f"{' or '.join(known)}: a run of this version reads nothing else",
                action="Write the table as CSV.",
            )
        ]
    )


def _missing(path: str, shown: str) -> Problem:
    reached = path
    while not os.path.isdir(folder := os.path.dirname(reached) or "."):
        reached = folder
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    close = difflib.get_close_matches(os.path.basename(reached), names, n=1)
    holds = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
    return Problem(
        where=f"--data {shown}",
        found=_in_its_place(path),
        expected="a file, a folder, a glob or a pattern with {SPAN}",
        action=f"Did you mean {close[0]!r}?"
        if close and close[0] != os.path.basename(reached)
        else f"{folder} holds {holds or 'nothing'}.",
    )


def _in_its_place(path: str) -> str:
    """Says what is where a file should be."""
    if os.path.islink(path):
        return f"a link to {os.readlink(path)}, where nothing is"
    return "a pipe or a device" if os.path.exists(path) else "no such file or folder"


def _no_table(path: str, shown: str) -> Problem:
    names = sorted(os.listdir(path))[:5]
    return Problem(
        where=f"--data {shown}",
        found=f"a folder with {', '.join(names) or 'nothing in it'}",
        expected=f"files that end in {', '.join(sorted(_ENDINGS))}",
        action="Give the file itself, or a glob such as 'folder/*.dat'.",
    )


# --- how a CSV is written --------------------------------------------------------------------------------------------


def _head(path: str, encoding: str) -> bytes:
    try:
        with source.opened(path, encoding=encoding) as stream:
            return stream.read(inspection.HEAD)
    except (OSError, UnicodeDecodeError):
        return b""


def _encoding(path: str) -> str:
    """Names the encoding of a file by its first bytes: UTF-8, what has more bytes a character, else Windows'."""
    stored = source.head_of_file(path, 4096)
    if wide := inspection.wide_encoding(stored):
        return wide
    head = _head(path, "utf-8")
    try:
        # The end may have been cut within a character.
        head[: max(head.rfind(b"\n"), 0) or len(head)].decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252" if b"\0" not in head[:4096] else "utf-8"
    return "utf-8"


def _delimiter(path: str, encoding: str) -> str:
    """Names the delimiter that cuts the first lines into the same number of fields, the most of them."""
    lines = _first_lines(path, encoding)

    def fields(delimiter: str) -> int:
        try:
            counts = [len(row) for row in csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter)]
        except csv.Error:
            return 1
        body = counts[:-1] if len(counts) > 2 else counts  # the last line may have been cut
        alike = sum(count == body[0] for count in body)
        return body[0] if body and alike >= 0.8 * len(body) else 1

    return max(inspection.DELIMITERS, key=lambda delimiter: (fields(delimiter), delimiter == ","))


def _quote(path: str, encoding: str, delimiter: str) -> str:
    """Names the quote: a single one where fields are wrapped in it and no field is in double ones."""
    lines = _first_lines(path, encoding)
    wrapped = re.compile(rf"(^|{re.escape(delimiter)})'[^']*'(?={re.escape(delimiter)}|$)")
    single = sum(bool(wrapped.search(line)) for line in lines)
    return "'" if single >= 0.5 * len(lines) > 0 and not any('"' in line for line in lines) else '"'


def _decimal(path: str, encoding: str, delimiter: str, quote: str) -> Literal[".", ","]:
    """Names what stands before the fractions: a comma where more fields look like such numbers than like 1.5."""
    try:
        rows = list(csv.reader(_first_lines(path, encoding), delimiter=delimiter, quotechar=quote))
    except csv.Error:
        return "."
    fields = [field.strip() for row in rows for field in row]
    commas, points = (sum(bool(re.fullmatch(rf"-?[0-9]+{sign}[0-9]+", f)) for f in fields) for sign in (",", r"\."))
    return "," if commas > points else "."


def _first_lines(path: str, encoding: str) -> list[str]:
    text = _head(path, encoding).removeprefix(source.BOM).decode("utf-8", "replace")
    return [line for line in text[: 64 << 10].splitlines()[:20] if line.strip()]


def as_text(column: Any, *, every: bool = False) -> Any:
    """Writes a typed column out as a CSV would hold it; null where it has no value: empty text and NaN are none.

    Args:
        column: an Arrow array of a Parquet file's column, or of a TFRecord's.
        every: whether all values of a list follow each other, instead of the first of each row alone.
    """
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if typed.is_list(column.type):
        lists = _of_any_length(column)
        column = lists.flatten() if every else _first(lists)
    text = _written(column)
    nothing = pc.equal(text, "")
    if pa.types.is_floating(column.type):
        nothing = pc.or_(nothing, pc.is_in(pc.utf8_lower(text), value_set=pa.array(["nan", "-nan"])))
    return pc.if_else(nothing, pa.scalar(None, pa.string()), text)


def _written(column: Any) -> Any:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type):
        return column
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return _utf8(column)
    if pa.types.is_boolean(column.type):
        return pc.if_else(column, "1", "0")  # as ExampleGen reads them: whole numbers
    try:
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())


def not_text(column: Any) -> int:
    """Counts the values of a column of bytes that are no UTF-8."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        return 0
    try:
        column.cast(pa.string())
    except pa.ArrowInvalid:
        return sum(one is not None and not _is_utf8(one) for one in column.to_pylist())
    return 0


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _utf8(column: Any) -> Any:
    """Reads bytes as text; what is no UTF-8 keeps a mark in the place of each byte."""
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([None if one is None else one.decode("utf-8", "replace") for one in column.to_pylist()])
