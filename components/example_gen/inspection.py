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
from collections.abc import Iterator, Mapping, Sequence

from components.example_gen import source
from components.example_gen.source import head_of_file
from components.example_gen.table import ColumnType, line_count
from evergreen import settings, spans
from evergreen.errors import Problem

HEAD = 256 << 10
"""Bytes of the decoded text that are looked at."""
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
_BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""The longer marks come first: that of UTF-32 begins with that of UTF-16."""
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspected:
    """A file's beginning."""

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
        return Inspected(file=file, problems=[_unreadable(file, error)])
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
    if not complete:
        sample = sample[: max(sample.rfind(b"\n"), sample.rfind(b"\r")) + 1]
    try:
        header_text = header_bytes.decode("utf-8")
    except UnicodeDecodeError as error:
        return Inspected(file=file, problems=[undecodable(file.path, "utf-8", error)])
    header = _fields(header_text, data.csv)
    problems = list(_header_problems(file, header, columns, text=header_text, sample=sample, csv_format=data.csv))
    if not problems and not sample.strip() and complete:
        problems = [
            Problem(
                where=file.path,
                found="a header and no rows",
                expected="at least one row of data",
                action="Deliver the file again with its rows, or remove it.",
            )
        ]
    return Inspected(
        file=file,
        problems=problems,
        header=header,
        data_start=skipped + end,
        data_line=1 + line_count(text[:end]),
        sample=sample,
        seekable=seekable,
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


def _unreadable(file: spans.DataFile, error: OSError) -> Problem:
    return Problem(
        where=file.path,
        found=f"a file that cannot be opened ({error.strerror})",
        expected="a file that this user may read",
        action="Correct its permissions, or deliver it again.",
    )


def _storage_problem(file: spans.DataFile, stored: bytes, data: settings.Data) -> Problem | None:
    if not stored:
        return _empty(file)
    name = next((name for magic, name in _FORMATS.items() if stored.startswith(magic)), None)
    if name:
        return _not_csv(file, name)
    encoding = _wide_encoding(stored)
    if encoding and source.is_utf8(data.csv.encoding):
        return Problem(
            where=file.path,
            found=f"text in {encoding.upper()}",
            expected="text in UTF-8",
            action=f"Convert the file to UTF-8, or set data.csv.encoding to {encoding}.",
        )
    return None


def _wide_encoding(stored: bytes) -> str | None:
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
        return _empty(file)
    if b"\0" in text[:4096]:
        return _not_csv(file, "binary data")
    control = sum(text[:4096].count(byte) for byte in range(32) if byte not in (9, 10, 12, 13))
    if control > 0.05 * len(text[:4096]):
        return _not_csv(file, "binary data")
    return None


def _empty(file: spans.DataFile) -> Problem:
    return Problem(
        where=file.path,
        found="an empty file",
        expected="a header and rows",
        action="Deliver the file again, or remove it.",
    )


def _not_csv(file: spans.DataFile, found: str) -> Problem:
    return Problem(
        where=file.path,
        found=found,
        expected="CSV text",
        action="Deliver the rows as CSV, or correct data.path if it takes in a file that is not meant.",
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
            found=f"data where the header belongs: {_short(text.strip())!r}",
            expected=f"a first line with the names of the columns{': ' + ','.join(columns) if columns else ''}",
            action="Add the header to the file.",
        )
        return
    yield from _name_problems(file, header)
    if columns is not None:
        yield from _column_problems(file, header, columns, "the schema")


def _better_delimiter(
    text: str, header: Sequence[str], sample: bytes, csv_format: settings.CsvFormat, known: set[str]
) -> str | None:
    """Names the delimiter that the file is written with, if it is clearly another one."""
    lines = [line for line in sample[: 64 << 10].decode("utf-8", "replace").splitlines()[:10] if line]
    for delimiter in _DELIMITERS:
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


def _name_problems(file: spans.DataFile, header: Sequence[str]) -> Iterator[Problem]:
    for name in sorted({name for name in header if name and header.count(name) > 1}):
        yield Problem(
            where=f"{file.path}, line 1",
            found=f"column {name!r} {header.count(name)} times",
            expected="every column once",
            action="Rename or remove the other one.",
        )
    unnamed = [str(position) for position, name in enumerate(header, start=1) if not name]
    if unnamed:
        yield Problem(
            where=f"{file.path}, line 1",
            found=f"no name for column {', '.join(unnamed)}",
            expected="a name for every column",
            action="Name it in the header, or write the file without it (pandas: index=False).",
        )


def columns_differ(file: Inspected, reference: Sequence[str], reference_path: str) -> list[Problem]:
    """Compares the columns of a file with those of another one, where there is no schema to say which are right.

    Args:
        file: the file, without problems so far.
        reference: the columns that it should have.
        reference_path: the file that has them.
    """
    columns = {name: Column(type=ColumnType.STRING) for name in reference}
    return list(_column_problems(file.file, file.header, columns, reference_path))


def _column_problems(
    file: spans.DataFile, header: Sequence[str], columns: Mapping[str, Column], authority: str
) -> Iterator[Problem]:
    missing = [name for name, column in columns.items() if name not in header and not column.optional]
    extra = [name for name in dict.fromkeys(header) if name and name not in columns]
    for name in missing:
        similar = _closest(name, extra)
        if similar:
            extra.remove(similar)
            yield Problem(
                where=f"{file.path}, line 1",
                found=f"column {similar!r}",
                expected=f"column {name!r}, as in {authority}",
                action=f"Did you mean {name!r}? Rename it in the file.",
            )
            continue
        yield Problem(
            where=f"{file.path}, line 1",
            found=f"no column {name!r} (there are {', '.join(header)})",
            expected=f"column {name!r}, as in {authority}",
            action="Deliver the file with this column, or take it out of the schema.",
        )
    for name in extra:
        similar = _closest(name, [known for known in columns if known not in header])
        hint = f"Did you mean {similar!r}? " if similar else ""
        yield Problem(
            where=f"{file.path}, line 1",
            found=f"column {name!r}, which {authority} does not have",
            expected=f"the columns {', '.join(columns)}",
            action=f"{hint}Remove it from the file, or add it to the schema.",
        )


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
    return f"{_DELIMITERS[delimiter]} ({delimiter!r})" if delimiter in _DELIMITERS else repr(delimiter)


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
