"""Rows out of JSON lines or CSV, each with its line number; a broken line is told of that line, the others go on.

for line in read_rows("rows.csv"):
    print(line.number, line.row or line.problem)
"""

from __future__ import annotations

import codecs
import collections
import contextlib
import csv
import dataclasses
import itertools
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import BinaryIO, Literal, TextIO

from evergreen.errors import BadInput, Problem
from evergreen.words import short

Format = Literal["jsonl", "csv"]
Source = str | os.PathLike[str] | TextIO | BinaryIO
SUFFIXES: Mapping[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "csv"}
"""The format that a file's name stands for."""

_MAX_RECORD_LINES = 1000
"""Lines that one record may span, as in training."""
_NumberedLines = Iterator[tuple[int, str]]


class Text(str):
    """A value of a format that knows only text: "7" may stand for a number here; in JSON it may not."""

    __slots__ = ()


class CommaText(Text):
    """A value of a table whose numbers have a decimal comma."""

    __slots__ = ()


def text_type(decimal: str) -> type[Text]:
    """Names what the values of a CSV are, by what stands before the fractions of its numbers."""
    return CommaText if decimal == "," else Text


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of the input: a row, or why it is none."""

    number: int
    """Counted from 1, a CSV header included."""
    row: Mapping[str, object] | None = None
    problem: Problem | None = None


def read_rows(
    source: Source,
    *,
    format: Format | None = None,
    delimiter: str = ",",
    quote: str = '"',
    decimal: str = ".",
    missing: Collection[str] = (),
) -> Iterator[Line]:
    """Yields the rows of a file while it is read; blank lines are skipped.

    Args:
        source: a path, or an open file (text or binary).
        format: how the rows are written; where it is left out, the path's suffix tells, else the first line.
        delimiter: of the fields of a CSV line (a tab where the path ends in ``.tsv``).
        quote: around CSV fields that hold the delimiter.
        decimal: of the numbers in CSV fields, a point or a comma.
        missing: how a CSV writes a missing value beside an empty field.

    Yields:
        Each line that is not blank, in the input's order.

    Raises:
        BadInput: when the file as a whole cannot be read: missing, not UTF-8 text, a CSV header that is missing or
            names a column twice, a JSON array where lines belong.
    """
    name = _name(source)
    suffix = os.path.splitext(name)[1].lower()
    with _opened(source) as file:
        lines: _NumberedLines = itertools.dropwhile(_is_blank, _decoded(file, name))
        chosen = format or SUFFIXES.get(suffix)
        if chosen is None:
            head = list(itertools.islice(lines, 1))
            chosen = "jsonl" if not head or head[0][1].lstrip()[:1] in {"{", "["} else "csv"
            lines = itertools.chain(head, lines)
        if chosen == "jsonl":
            yield from _json_lines(lines, name)
        else:
            delimiter = "\t" if suffix == ".tsv" else delimiter
            for line in _csv_lines(lines, name, delimiter=delimiter, quote=quote):
                yield _meant(line, text_type(decimal), missing)


# --- JSON lines ------------------------------------------------------------------------------------------------------


def _json_lines(lines: _NumberedLines, name: str) -> Iterator[Line]:
    at_start = True
    for number, text in itertools.filterfalse(_is_blank, lines):
        line = _json_line(number, text, name)
        if at_start and line.problem and text.lstrip().startswith("["):
            raise _bad(name, "a JSON array", "one JSON object a line", "Write each object on a line of its own.")
        at_start = False
        yield line


def _json_line(number: int, text: str, name: str) -> Line:
    where = f"{name}, line {number}"
    example = 'Write it like {"column": 1.5, "other": "text"}.'
    if not _is_text(text):
        return Line(number, problem=_not_utf8(where))
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Line(number, problem=Problem(where=where, found=str(error), expected="a JSON object", action=example))
    if not isinstance(value, dict):
        found = f"{_KINDS.get(type(value), 'a number')} ({short(text.strip(), 40)})"
        return Line(number, problem=Problem(where=where, found=found, expected="a JSON object", action=example))
    return Line(number, row=value)


_KINDS = {list: "an array", str: "a text", bool: "a truth value", type(None): "null"}


# --- CSV -------------------------------------------------------------------------------------------------------------


def _csv_lines(lines: _NumberedLines, name: str, *, delimiter: str, quote: str) -> Iterator[Line]:
    ahead = _Ahead(lines, delimiter=delimiter, quote=quote)
    first = ahead.next()
    if first is None:
        raise _bad(name, "an empty file", "a header of column names, then rows", "Give a file with rows.")
    header = _header(first, ahead, name, delimiter=delimiter, quote=quote)
    while (line := ahead.next()) is not None:
        number, text = line
        try:
            fields = ahead.record(text, fields=len(header))
        except csv.Error as error:
            yield Line(number, problem=_broken(f"{name}, line {number}", error, quote))
        else:
            yield _csv_line(number, fields, header, name)


class _Ahead:
    """Lines that can be looked at before they are taken: a quoted value may hold line ends."""

    def __init__(self, lines: _NumberedLines, *, delimiter: str, quote: str) -> None:
        self._lines = lines
        self._delimiter = delimiter
        self._quote = quote
        self._seen: collections.deque[tuple[int, str]] = collections.deque()

    def next(self) -> tuple[int, str] | None:
        """Takes the next line that is not blank."""
        while self._seen:
            if not _is_blank(line := self._seen.popleft()):
                return line
        return next(itertools.filterfalse(_is_blank, self._lines), None)

    def record(self, text: str, *, fields: int | None) -> list[str]:
        """Parses a line, with those after it that its open quote takes in.

        As in training the quote is a mistake of its own line, and the lines after it stay, where what closes it does
        not make a record of the right number of fields.

        Args:
            text: the line.
            fields: how many there have to be; None of a header.

        Raises:
            csv.Error: when the line is no record.
        """
        try:
            return self._parse(text)
        except csv.Error as error:
            if "unexpected end" not in str(error):
                raise
            together = self._closed(text)
            if together is None or (fields is not None and len(together[0]) != fields):
                raise
        for _ in range(together[1]):
            self._seen.popleft()
        return together[0]

    def _parse(self, text: str) -> list[str]:
        return next(csv.reader([text], delimiter=self._delimiter, quotechar=self._quote, strict=True))

    def _closed(self, text: str) -> tuple[list[str], int] | None:
        """Returns the record that an open quote begins, and how many more lines it has; None where it stays open."""
        for more in range(1, _MAX_RECORD_LINES):
            if len(self._seen) < more:
                following = next(self._lines, None)
                if following is None:
                    return None
                self._seen.append(following)
            text += (line := self._seen[more - 1][1])
            if self._quote not in line:
                continue
            try:
                return self._parse(text), more
            except csv.Error as error:
                if "unexpected end" not in str(error):
                    return None
        return None


def _meant(line: Line, text: type[Text], missing: Collection[str]) -> Line:
    """Gives the fields of a line the meaning that they have in the table."""
    if line.row is None:
        return line
    row = {name: text("" if value in missing else value) for name, value in line.row.items()}
    return dataclasses.replace(line, row=row)


def _csv_line(number: int, fields: list[str], header: list[str], name: str) -> Line:
    where = f"{name}, line {number}"
    if len(fields) != len(header):
        problem = Problem(
            where=where,
            found=f"{len(fields)} fields",
            expected=f"{len(header)} fields as in the header",
            action="Repair the line.",
        )
        return Line(number, problem=problem)
    if not all(map(_is_text, fields)):
        return Line(number, problem=_not_utf8(where))
    return Line(number, row=dict(zip(header, fields, strict=True)))


def _header(line: tuple[int, str], ahead: _Ahead, name: str, *, delimiter: str, quote: str) -> list[str]:
    number, text = line
    where = f"{name}, line {number}"
    try:
        header = ahead.record(text, fields=None)
    except csv.Error as error:
        raise BadInput([_broken(where, error, quote)]) from error
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        found = f"the column{'s' if len(twice) > 1 else ''} {', '.join(map(repr, twice))} more than once"
        raise _bad(where, found, f"each name once, between {delimiter!r}", "Repair the header.")
    return header


def _broken(where: str, error: csv.Error, quote: str) -> Problem:
    found = "a quote that is not closed" if "unexpected end" in str(error) else str(error)
    return Problem(where=where, found=found, expected=f"fields, each {quote} closed", action="Repair the line.")


# --- text ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[Iterable[str | bytes]]:
    if not isinstance(source, (str, os.PathLike)):
        yield source
        return
    try:
        file = open(source, "rb")  # noqa: SIM115 - closed below; only what opening raises is told here
    except OSError as error:
        found = error.strerror or str(error)
        raise _bad(os.fspath(source), found, "a file with rows", "Give the path of a readable file.") from error
    with file:
        yield file


def _decoded(file: Iterable[str | bytes], name: str) -> Iterator[tuple[int, str]]:
    """Yields the numbered lines; bytes that are not UTF-8 become lone surrogates: only their line is refused."""
    for number, line in enumerate(file, start=1):
        if isinstance(line, str):
            text = line
        elif number == 1 and (line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in line):
            raise _bad(name, "UTF-16 or binary data", "text in UTF-8", "Save the file as UTF-8.")
        else:
            text = line.decode("utf-8", errors="surrogateescape")
        yield number, text.removeprefix("\ufeff") if number == 1 else text


def _is_blank(line: tuple[int, str]) -> bool:
    return line[1].isspace()


def _is_text(text: str) -> bool:
    """Tells whether the text came out of UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _not_utf8(where: str) -> Problem:
    return Problem(
        where=where, found="bytes that are not UTF-8", expected="text in UTF-8", action="Save the file as UTF-8."
    )


def _name(source: Source) -> str:
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    name = getattr(source, "name", None)
    return "standard input" if name in (None, "<stdin>", 0) else str(name)


def _bad(where: str, found: str, expected: str, action: str) -> BadInput:
    return BadInput([Problem(where=where, found=found, expected=expected, action=action)])
