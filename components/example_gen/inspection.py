"""What is wrong with a whole file, told from its beginning, and what columns it has.

Guarantee: every file is looked at and every problem of each is returned, as data, in words that name the file and what
to do. Only the first `HEAD` bytes are read.

    files = [inspect(file, data, types) for file in selection.files]
"""

from __future__ import annotations

import codecs
import csv
import dataclasses
import difflib
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from components.example_gen import source
from components.example_gen.source import head_of_file
from components.example_gen.table import ColumnType, line_count
from evergreen import settings, spans
from evergreen.errors import Problem
from evergreen.words import short

HEAD = 256 << 10
"""Bytes of the decoded text that are looked at."""
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar", "^": "caret", "~": "tilde"}
"""What CSV files are written with, the likelier ones first."""
_BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""The longer marks come first: that of UTF-32 begins with that of UTF-16."""
_JSON = re.compile(rb"""\s*(\[\s*)*\{\s*["}]""")
"""How JSON of objects begins, which no header of a CSV does."""
_FORMATS = {
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a ZIP archive (an Excel workbook is one)",
    b"%PDF": "a PDF document",
    b"\x89PNG": "an image",
    b"SQLite format 3": "an SQLite database",
    b"\xfd7zXZ": "an xz archive",
    b"ORC": "an ORC file",
    b"Obj\x01": "an Avro file",
    b"ARROW1": "an Arrow file",
    b"\xd0\xcf\x11\xe0": "an old Office document",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """What the pipeline knows of a column before it reads it."""

    type: ColumnType
    required: bool = False
    """Whether every file has to hold values of it."""
    optional: bool = False
    """Whether a file may lack it."""


class Unreadable(Exception):
    """A file that turns out further down to be of no use; for the worker that meets it."""

    def __init__(self, problem: Problem) -> None:
        """Keeps what is wrong."""
        super().__init__(str(problem))
        self.problem = problem


class Range(NamedTuple):
    """Some row groups of a Parquet file."""

    start: int
    length: int
    line: int
    """Number of the first row, from 1."""
    size: int
    """Bytes before compression."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspected:
    """A file's beginning (of a Parquet file its footer)."""

    file: spans.DataFile
    problems: Sequence[Problem] = ()
    header: Sequence[str] = ()
    data_start: int = 0
    """Offset of the first line after the header in the stream of UTF-8."""
    data_line: int = 1
    """Its physical line number, from 1."""
    sample: bytes = b""
    """Whole lines after the header."""
    seekable: bool = False
    """Whether the file can be cut into ranges."""
    stored: str | None = None
    """Where what is in the file lies plain, if somebody has written that."""
    stored_size: int = 0
    """Bytes there."""
    kinds: Mapping[str, ColumnType | None] = dataclasses.field(default_factory=dict)
    """What a file with types of its own says of each column; None where there is no value."""
    type_names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The same in the format's own words."""
    ranges: Sequence[Range] = ()
    """What a Parquet file can be cut into."""


def inspect(file: spans.DataFile, data: settings.Data, columns: Mapping[str, Column] | None) -> Inspected:
    """Looks at the beginning of a file.

    Args:
        file: the file.
        data: how it should be written.
        columns: what the schema says of each column; None without a schema.

    Returns:
        The header and where the data begin; or the problems, each of which rules the whole file out.
    """
    try:
        stored = head_of_file(file.path, 4096)
    except OSError as error:
        return Inspected(file=file, problems=[unreadable(file, error)])
    problem = _storage_problem(file, stored, data)
    if problem:
        return Inspected(file=file, problems=[problem])
    try:
        with source.opened(file.path, encoding=data.csv.encoding) as stream:
            head = _read(stream, HEAD)
    except OSError as error:
        return Inspected(file=file, problems=[damaged(file.path, error)])
    except UnicodeDecodeError as error:
        return Inspected(file=file, problems=[undecodable(file.path, data.csv.encoding, error)])
    return _inspect_text(file, head, data, columns, seekable=source.seekable(stored, encoding=data.csv.encoding))


def _inspect_text(
    file: spans.DataFile,
    head: bytes,
    data: settings.Data,
    columns: Mapping[str, Column] | None,
    *,
    seekable: bool,
) -> Inspected:
    complete = len(head) < HEAD
    skipped = len(source.BOM) if head.startswith(source.BOM) else 0
    text = head[skipped:]
    if problem := _content_problem(file, text):
        return Inspected(file=file, problems=[problem])
    blank = len(text) - len(text.lstrip(b"\r\n"))
    end = blank + _record_end(text[blank:], data.csv.quote.encode())
    header_bytes, sample = text[blank:end], text[end:]
    if not data.csv.header:
        end, sample = blank, text[blank:]
    if not complete:
        sample = sample[: max(sample.rfind(b"\n"), sample.rfind(b"\r")) + 1]
    try:
        header_text = header_bytes.decode("utf-8")
    except UnicodeDecodeError as error:
        return Inspected(file=file, problems=[undecodable(file.path, "utf-8", error)])
    header = _fields(header_text, data.csv)
    if data.csv.header:
        problems = list(_header_problems(file, header, columns, text=header_text, sample=sample, csv_format=data.csv))
    else:
        problems = list(_first_line_problems(file, header, columns or {}, text=header_text, csv_format=data.csv))
        header = list(columns or {})
    if not problems and not sample.strip() and complete:
        problems = [no_rows(file.path, "a header and no rows")]
    return Inspected(
        file=file,
        problems=problems,
        header=header,
        data_start=skipped + end,
        data_line=1 + line_count(text[:end]),
        sample=sample,
        seekable=seekable,
    )


def no_rows(path: str, found: str) -> Problem:
    """Tells that a file has everything but rows."""
    return Problem(
        where=path,
        found=found,
        expected="at least one row of data",
        action="Deliver the file again with its rows, or remove it.",
    )


# --- the stored bytes ------------------------------------------------------------------------------------------------


def damaged(path: str, error: OSError) -> Problem:
    """Tells that compressed data end early or are damaged."""
    early = "truncated" in str(error).lower()
    return Problem(
        where=path,
        found="compressed data that end too early" if early else f"compressed data that are damaged ({error})",
        expected="a complete compressed file",
        action="Deliver the file again; its transfer or its compression was cut off." if early else "Deliver it again.",
    )


def undecodable(path: str, encoding: str, error: UnicodeDecodeError) -> Problem:
    """Tells that the text is in another encoding."""
    byte = error.object[error.start]
    return Problem(
        where=path,
        found=f"byte 0x{byte:02x}, which is not {encoding}",
        expected=f"text in {encoding}",
        action="Set data.csv.encoding to the file's encoding (cp1252 for what Windows writes), or convert it to UTF-8.",
    )


def too_long_a_line(path: str) -> Problem:
    """Tells that there is no end of line for very long."""
    return Problem(
        where=path,
        found=f"more than {source.MAX_LINE >> 20} MiB without an end of line",
        expected="CSV: one row a line",
        action="Deliver the rows as CSV text.",
    )


def unreadable(file: spans.DataFile, error: OSError) -> Problem:
    """Tells that a file cannot be opened."""
    return Problem(
        where=file.path,
        found=f"a file that cannot be opened ({error.strerror})",
        expected="a file that this user may read",
        action="Correct its permissions, or deliver it again.",
    )


def _storage_problem(file: spans.DataFile, stored: bytes, data: settings.Data) -> Problem | None:
    if not stored:
        return empty(file)
    if name := format_of(stored):
        return _not_csv(file, name)
    encoding = wide_encoding(stored)
    if encoding and source.is_utf8(data.csv.encoding):
        return Problem(
            where=file.path,
            found=f"text in {encoding.upper()}",
            expected="text in UTF-8",
            action=f"Convert the file to UTF-8, or set data.csv.encoding to {encoding}.",
        )
    return None


def wide_encoding(stored: bytes) -> str | None:
    """Names the encoding of text with more than one byte a character, by its mark or by its pattern of zeros."""
    marked = next((name for bom, name in _BOMS.items() if stored.startswith(bom)), None)
    if marked or len(stored) < 8:
        return marked
    even, odd = stored[0::2], stored[1::2]
    for zeros, others, name in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        if zeros.count(0) > 0.9 * len(zeros) and others.count(0) < 0.1 * len(others):
            return name
    return None


def _content_problem(file: spans.DataFile, text: bytes) -> Problem | None:
    if not text.strip():
        return empty(file)
    if _JSON.match(text):
        return _not_csv(file, "JSON")
    if b"\0" in text[:4096]:
        return _not_csv(file, "binary data")
    control = sum(text[:4096].count(byte) for byte in range(32) if byte not in (9, 10, 12, 13))
    if control > 0.05 * len(text[:4096]):
        return _not_csv(file, "binary data")
    return None


def empty(file: spans.DataFile) -> Problem:
    """Tells that there is nothing in a file."""
    return Problem(
        where=file.path,
        found="an empty file",
        expected="rows",
        action="Deliver the file again, or remove it.",
    )


def format_of(stored: bytes) -> str | None:
    """Names what a file is that is told by its first bytes."""
    return next((name for magic, name in _FORMATS.items() if stored.startswith(magic)), None)


def _not_csv(file: spans.DataFile, found: str) -> Problem:
    parquet = found == _FORMATS[b"PAR1"]
    return Problem(
        where=file.path,
        found=found,
        expected="CSV text",
        action=f"{'Set data.format to parquet' if parquet else 'Deliver the rows as CSV'}, or correct data.path if it "
        "takes in a file that is not meant.",
    )


def _read(stream: source.Stream, size: int) -> bytes:
    parts = []
    while size and (part := stream.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


# --- the header ------------------------------------------------------------------------------------------------------


def _record_end(text: bytes, quote: bytes) -> int:
    """Finds the end of the first record: the first line end outside quotes."""
    position, quotes = 0, 0
    for line in text.splitlines(keepends=True):
        position += len(line)
        quotes += line.count(quote)
        if quotes % 2 == 0:
            return position
    # A quote that is never closed: take the first line, and let the check of the names complain.
    return len(text.splitlines(keepends=True)[0])


def _fields(text: str, csv_format: settings.CsvFormat, delimiter: str | None = None) -> list[str]:
    rows = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter or csv_format.delimiter, quotechar=csv_format.quote
    )
    try:
        return [name.strip() for name in next(rows, [])]
    except csv.Error:
        return [text.strip()]


def _header_problems(
    file: spans.DataFile,
    header: Sequence[str],
    columns: Mapping[str, Column] | None,
    *,
    text: str,
    sample: bytes,
    csv_format: settings.CsvFormat,
) -> Iterator[Problem]:
    """Yields what is wrong with the names; the first kind that fits hides the others, which follow from it."""
    known = set(columns or ())
    delimiter = _better_delimiter(text, header, sample, csv_format, known)
    if delimiter:
        yield Problem(
            where=f"{file.path}, line 1",
            found=f"columns separated by {_name(delimiter)}",
            expected=f"columns separated by {_name(csv_format.delimiter)}",
            action=f"Set data.csv.delimiter to {delimiter!r}, or write the file with {_name(csv_format.delimiter)}.",
        )
        return
    if not known & set(header) and any(_is_number(name) for name in header):
        yield Problem(
            where=f"{file.path}, line 1",
            found=f"data where the header belongs: {short(text.strip(), 80)!r}",
            expected=f"a first line with the names of the columns{': ' + ','.join(columns) if columns else ''}",
            action="Add the header to the file.",
        )
        return
    yield from name_problems(f"{file.path}, line 1", header)
    if columns is not None:
        yield from column_problems(f"{file.path}, line 1", header, columns, "the schema")


def _first_line_problems(
    file: spans.DataFile,
    fields: Sequence[str],
    columns: Mapping[str, Column],
    *,
    text: str,
    csv_format: settings.CsvFormat,
) -> Iterator[Problem]:
    """Yields what is wrong with a file that should begin with data."""
    if len(columns) > 1 and set(fields) <= set(columns):
        yield Problem(
            where=f"{file.path}, line 1",
            found=f"a header: {short(text.strip(), 80)!r}",
            expected="data (data.csv.header is false)",
            action="Set data.csv.header to true, or write the file without the header.",
        )
    elif len(fields) != len(columns):
        yield Problem(
            where=f"{file.path}, line 1",
            found=f"{len(fields)} fields: {short(text.strip(), 80)!r}",
            expected=f"{len(columns)}, one for each column of the schema, separated by {_name(csv_format.delimiter)}: "
            f"{', '.join(columns)}",
            action="Bring the schema into the order of the file's columns, or correct data.csv.delimiter.",
        )


def _better_delimiter(
    text: str, header: Sequence[str], sample: bytes, csv_format: settings.CsvFormat, known: set[str]
) -> str | None:
    """Names the delimiter that the file is written with, if it is clearly another one."""
    lines = [line for line in sample[: 64 << 10].decode("utf-8", "replace").splitlines()[:10] if line]
    for delimiter in DELIMITERS:
        if delimiter == csv_format.delimiter:
            continue
        names = _fields(text, csv_format, delimiter)
        if len(names) <= len(header):
            continue
        if len(known & set(names)) > len(known & set(header)):
            return delimiter
        if len(header) == 1 and all(len(_fields(line, csv_format, delimiter)) == len(names) for line in lines):
            return delimiter
    return None


def name_problems(where: str, header: Sequence[str]) -> Iterator[Problem]:
    """Yields what is wrong with the names by themselves."""
    for name in sorted({name for name in header if name and header.count(name) > 1}):
        yield Problem(
            where=where,
            found=f"column {name!r} {header.count(name)} times",
            expected="every column once",
            action="Rename or remove the other one.",
        )
    unnamed = [str(position) for position, name in enumerate(header, start=1) if not name]
    if unnamed:
        yield Problem(
            where=where,
            found=f"no name for column {', '.join(unnamed)}",
            expected="a name for every column",
            action="Name it in the header, or write the file without it (pandas: index=False).",
        )


def odd_ones(files: Sequence[Inspected], *, may_lack: bool) -> dict[str, list[Problem]]:
    """Finds the files that differ from most of their siblings; where there is no schema, what most have is right.

    Args:
        files: without problems so far.
        may_lack: whether a file may simply not show a column at its beginning, as with TFRecord.

    Returns:
        Problems by path of the file.
    """
    problems = type_conflicts(files)
    alike = [file for file in files if file.file.path not in problems]
    if may_lack or not alike:
        return problems
    most = Counter(frozenset(file.header) for file in alike).most_common(1)[0][0]
    reference = next(file for file in alike if frozenset(file.header) == most)
    for file in alike:
        if frozenset(file.header) != most:
            problems[file.file.path] = columns_differ(file, reference.header, reference.file.path)
    return problems


def columns_differ(file: Inspected, reference: Sequence[str], reference_path: str) -> list[Problem]:
    """Compares the columns of a file with those of another one, where there is no schema to say which are right.

    Args:
        file: the file, without problems so far.
        reference: the columns that it should have.
        reference_path: the file that has them.
    """
    columns = {name: Column(type=ColumnType.STRING) for name in reference}
    where = file.file.path + (", line 1" if not file.kinds else "")
    return list(column_problems(where, file.header, columns, reference_path))


def column_problems(
    where: str, header: Sequence[str], columns: Mapping[str, Column], authority: str
) -> Iterator[Problem]:
    """Compares the names of a file's columns with those that it should have, in the words of `authority`."""
    missing = [name for name, column in columns.items() if name not in header and not column.optional]
    extra = [name for name in dict.fromkeys(header) if name and name not in columns]
    for name in missing:
        similar = _closest(name, extra)
        if similar:
            extra.remove(similar)
            yield Problem(
                where=where,
                found=f"column {similar!r}",
                expected=f"column {name!r}, as in {authority}",
                action=f"Did you mean {name!r}? Rename it in the file.",
            )
            continue
        yield Problem(
            where=where,
            found=f"no column {name!r} (there are {', '.join(header)})",
            expected=f"column {name!r}, as in {authority}",
            action="Deliver the file with this column, or take it out of the schema.",
        )
    for name in extra:
        similar = _closest(name, [known for known in columns if known not in header])
        hint = f"Did you mean {similar!r}? " if similar else ""
        yield Problem(
            where=where,
            found=f"column {name!r}, which {authority} does not have",
            expected=f"the columns {', '.join(columns)}",
            action=f"{hint}Remove it from the file, or add it to the schema.",
        )


def type_conflicts(files: Sequence[Inspected]) -> dict[str, list[Problem]]:
    """Compares what files with types of their own say of each column; what most of them say is right.

    Whole numbers go with numbers; text goes with text only.

    Args:
        files: without problems so far.

    Returns:
        Problems by path of the file.
    """
    says: dict[str, dict[bool, list[Inspected]]] = {}
    for file in files:
        for name, kind in file.kinds.items():
            if kind is not None:
                says.setdefault(name, {}).setdefault(kind is ColumnType.STRING, []).append(file)
    problems: dict[str, list[Problem]] = {}
    for name, sides in says.items():
        if len(sides) == 1:
            continue
        most, fewest = sorted(sides.values(), key=len, reverse=True)
        for file in fewest:
            problems.setdefault(file.file.path, []).append(
                Problem(
                    where=f"{file.file.path}, column {name!r}",
                    found=f"the type {file.type_names[name]}",
                    expected=f"{most[0].type_names[name]}, as in {most[0].file.path}",
                    action="Write the column with one type in all files.",
                )
            )
    return problems


def _closest(name: str, candidates: Sequence[str]) -> str | None:
    lowered = {candidate.lower(): candidate for candidate in candidates}
    matches = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    return lowered[matches[0]] if matches else None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _name(delimiter: str) -> str:
    return f"{DELIMITERS[delimiter]} ({delimiter!r})" if delimiter in DELIMITERS else repr(delimiter)
