r"""Lines of CSV to typed columns, and the lines that cannot be: every line becomes a row or is accounted for.

The fast path is Arrow's reader with fixed column types over a whole block. Only when a block fails is it taken apart:
its records are found, the bad ones picked out by vectorised checks, and the rest read again; what those checks miss is
found by halving. So what counts as a good line is always decided by the same reader.

    reader = BlockReader(["a", "b"], {"a": ColumnType.FLOAT, "b": ColumnType.INT}, settings.CsvFormat())
    rows, bad = reader.read(b"1.5,2\nx,3\n")      # one row, one BadLine
"""

from __future__ import annotations

import csv
import dataclasses
import enum
import io
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from evergreen import settings
from evergreen.decimals import pointed_column

TEXT_SHOWN = 200
"""Characters of a bad line that are kept."""
_VALUE_SHOWN = 40
_MAX_RECORD_LINES = 1000
"""Lines that one quoted value may span before its opening quote is taken for a mistake."""
_NEWLINE = ord("\n")
_FLOAT = r"^[ \t]*(-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|-?[nN][aA][nN])[ \t]*$"
_INT = r"^[ \t]*(-?[0-9]+|0[xX][0-9a-fA-F]+)[ \t]*$"


_Fault = tuple[str, tuple[str, ...]]
"""Why a record is bad, and the columns whose values make it so."""


class ColumnType(str, enum.Enum):
    """What a column holds; each has one kind of list in a tf.Example."""

    FLOAT = "FLOAT"
    """float_list (32 bits)."""
    INT = "INT"
    """int64_list."""
    STRING = "BYTES"
    """bytes_list, UTF-8. The values are TensorFlow Metadata's names of the types."""

    @property
    def arrow(self) -> Any:
        """The Arrow type that the column is read as."""
        return {ColumnType.FLOAT: pa.float32(), ColumnType.INT: pa.int64(), ColumnType.STRING: pa.string()}[self]

    @property
    def words(self) -> str:
        """What to call a value of this type."""
        return {
            ColumnType.FLOAT: "a number",
            ColumnType.INT: "a whole number",
            ColumnType.STRING: "text",
        }[self]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BadLine:
    """A line that cannot become a row."""

    line: int
    """Physical line within the block, from 0."""
    reason: str
    text: str
    """The line without its end, cut to `TEXT_SHOWN` characters."""
    columns: tuple[str, ...] = ()
    """The columns whose values are at fault, if it is they."""


class BlockReader:
    """Reads blocks of whole lines that all have the same columns."""

    def __init__(self, columns: Sequence[str], types: Mapping[str, ColumnType], csv_format: settings.CsvFormat) -> None:
        """Prepares Arrow's options.

        Args:
            columns: names of the fields, in the order of the file.
            types: the type of each of them.
            csv_format: delimiter and quote, both ASCII, and what stands for a missing value.
        """
        self._columns = list(columns)
        self._types = {name: types[name] for name in columns}
        self._delimiter = csv_format.delimiter
        self._quote = csv_format.quote
        self._decimal = csv_format.decimal
        self._missing = ["", *csv_format.missing]
        self._parse_options = arrow_csv.ParseOptions(delimiter=self._delimiter, quote_char=self._quote)

    def read(self, block: bytes) -> tuple[pa.Table, list[BadLine]]:
        """Reads one block.

        Args:
            block: whole lines, without the header.

        Returns:
            The good rows in order (float32, int64 and string columns in the order of the file; an empty cell and a
            NaN are null), and the bad lines in order.
        """
        rows = self._typed(block)
        if rows is not None:
            return rows, []
        return self._salvage(block)

    def locate(self, block: bytes, bad: Sequence[BadLine], positions: Sequence[int]) -> list[tuple[int, str]]:
        """Finds where rows that `read` gave stand in the block.

        Args:
            block: what was read.
            bad: the bad lines of it.
            positions: of the rows among those that were read.

        Returns:
            The line of each (within the block, from 0) and its text.
        """
        records = _Records(block, delimiter=self._delimiter, quote=self._quote, fields=len(self._columns))
        left_out = {line.line for line in bad}
        good = [index for index in range(len(records)) if records.line(index) not in left_out]
        return [(records.line(good[row]), _shown(records.raw(good[row]), TEXT_SHOWN)) for row in positions]

    # --- the fast path ---

    def _typed(self, data: bytes) -> pa.Table | None:
        """Reads lines with their types; None if any of them is bad."""
        try:
            rows = self._parse(data, {name: type_.arrow for name, type_ in self._types.items()})
        except pa.ArrowInvalid:
            return None
        return self._without_nan(rows)

    def _parse(self, data: bytes, arrow_types: Mapping[str, Any]) -> pa.Table:
        if not data.strip(b"\r\n"):
            return pa.table({name: pa.array([], type_) for name, type_ in arrow_types.items()})
        # Not `read_csv`: before Python 3.11 each call of it goes through all objects there are (70 ms with TensorFlow).
        reader = arrow_csv.open_csv(
            pa.BufferReader(data),
            read_options=arrow_csv.ReadOptions(
                use_threads=False, column_names=self._columns, block_size=max(len(data), 1 << 16)
            ),
            parse_options=self._parse_options,
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict(arrow_types),
                null_values=self._missing,
                strings_can_be_null=True,
                include_columns=self._columns,
                decimal_point=self._decimal,
            ),
        )
        return reader.read_all()

    def _without_nan(self, rows: pa.Table) -> pa.Table | None:
        """Makes a NaN a missing value; None if a number is infinite, which no model can learn from."""
        for index, (name, type_) in enumerate(self._types.items()):
            if type_ is not ColumnType.FLOAT:
                continue
            column = rows.column(index)
            # Null when there is no value at all.
            if pc.all(pc.is_finite(column)).as_py() is not False:
                continue
            if pc.any(pc.is_inf(column)).as_py():
                return None
            rows = rows.set_column(index, name, pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float32()), column))
        return rows

    # --- the slow path ---

    def _salvage(self, block: bytes) -> tuple[pa.Table, list[BadLine]]:
        records = _Records(block, delimiter=self._delimiter, quote=self._quote, fields=len(self._columns))
        bad: dict[int, _Fault] = dict(records.malformed())
        good = [index for index in range(len(records)) if index not in bad]
        bad.update(self._bad_cells(records, good))
        good = [index for index in good if index not in bad]
        rows, missed = self._halve(records, good)
        bad.update(missed)
        lines = [
            BadLine(line=records.line(index), reason=reason, text=_shown(records.raw(index), TEXT_SHOWN), columns=names)
            for index, (reason, names) in sorted(bad.items())
        ]
        return rows, lines

    def _bad_cells(self, records: _Records, candidates: Sequence[int]) -> dict[int, _Fault]:
        """Finds the records with a value that its column's type does not take."""
        try:
            texts = self._parse(records.join(candidates), dict.fromkeys(self._columns, pa.string()))
        except pa.ArrowInvalid:
            return {}
        if texts.num_rows != len(candidates):
            return {}
        bad: dict[int, _Fault] = {}
        for name, type_ in self._types.items():
            if type_ is ColumnType.STRING:
                continue
            column = texts.column(name).combine_chunks()
            numbers = pointed_column(column) if self._decimal == "," else column
            for row in unconvertible(numbers, type_):
                value = _shown(column[row].as_py().encode(), _VALUE_SHOWN)
                reasons, names = bad.get(candidates[row], ("", ()))
                reason = f"column {name}: {value!r} is {_why_not(numbers[row].as_py(), type_)}"
                bad[candidates[row]] = (f"{reasons}; {reason}" if reasons else reason, (*names, name))
        return bad

    def _halve(self, records: _Records, candidates: Sequence[int]) -> tuple[pa.Table, dict[int, _Fault]]:
        """Reads records, and finds what the reader refuses by trying ever smaller parts."""
        data = records.join(candidates)
        rows = self._typed(data)
        if rows is not None and rows.num_rows == len(candidates):
            return rows, {}
        if len(candidates) == 1:
            return self._parse(b"", {name: t.arrow for name, t in self._types.items()}), {
                candidates[0]: (self._refusal(data), ())
            }
        middle = len(candidates) // 2
        parts = [self._halve(records, candidates[:middle]), self._halve(records, candidates[middle:])]
        return pa.concat_tables([part[0] for part in parts]), {**parts[0][1], **parts[1][1]}

    def _refusal(self, data: bytes) -> str:
        try:
            rows = self._parse(data, {name: type_.arrow for name, type_ in self._types.items()})
        except pa.ArrowInvalid as error:
            return str(error).split("\n")[0][:TEXT_SHOWN]
        return f"{rows.num_rows} rows in one line" if rows.num_rows != 1 else "a number that is not finite"


def unconvertible(column: pa.Array, type_: ColumnType) -> list[int]:
    """Lists the positions of the values that are no numbers of `type_`."""
    matches = pc.match_substring_regex(column, _FLOAT if type_ is ColumnType.FLOAT else _INT)
    bad = np.flatnonzero(~pc.fill_null(matches, True).to_numpy(zero_copy_only=False)).tolist()
    if type_ is ColumnType.INT:
        # Only these can be too large; there are hardly ever any.
        long = pc.fill_null(pc.greater_equal(pc.utf8_length(column), 19), False)
        candidates = np.flatnonzero(pc.and_(long, pc.fill_null(matches, False)).to_numpy(zero_copy_only=False)).tolist()
        return bad + [row for row in candidates if not _fits_int64(column[row].as_py())]
    numbers = pc.if_else(matches, pc.utf8_trim_whitespace(column), pa.scalar(None, pa.string())).cast(pa.float32())
    too_large = pc.fill_null(pc.is_inf(numbers), False)
    return bad + np.flatnonzero(too_large.to_numpy(zero_copy_only=False)).tolist()


def _why_not(text: str, type_: ColumnType) -> str:
    number = re.match(_FLOAT if type_ is ColumnType.FLOAT else _INT, text)
    bits = 32 if type_ is ColumnType.FLOAT else 64
    return f"too large for {type_.words} of {bits} bits" if number else f"not {type_.words}"


def _fits_int64(text: str) -> bool:
    text = text.strip()
    number = int(text, 16) if text[:2] in ("0x", "0X") else int(text)
    return -(2**63) <= number < 2**63


def _shown(data: bytes, limit: int) -> str:
    """Makes text of a line or value for people to read."""
    return data[: 4 * limit].decode("utf-8", "replace").rstrip("\r\n")[:limit]


class _Records:
    """The records of a block: one line each, or several where a quoted value holds newlines. Blank lines are none."""

    def __init__(self, block: bytes, *, delimiter: str, quote: str, fields: int) -> None:
        self._block = block
        self._delimiter = delimiter
        self._quote = quote
        self._fields = fields
        buffer = np.frombuffer(block, np.uint8)
        ends = _line_ends(buffer)
        if not ends.size or ends[-1] != len(block):
            ends = np.append(ends, len(block))
        starts = np.concatenate([[0], ends[:-1]])
        self._buffer = buffer
        lines = np.arange(len(starts))
        # What quotes span is sorted out first: a blank line inside a value belongs to the value.
        merged_ends, kept = self._merge(starts, ends)
        starts, ends, lines = starts[kept], merged_ends[kept], lines[kept]
        content = ~self._blank(starts, ends)
        self._starts, self._ends, self._lines = starts[content], ends[content], lines[content]

    def __len__(self) -> int:
        """Counts the records."""
        return len(self._starts)

    def line(self, index: int) -> int:
        """Returns the record's first physical line, from 0."""
        return int(self._lines[index])

    def raw(self, index: int) -> bytes:
        """Returns the record's bytes with its line end."""
        return self._block[int(self._starts[index]) : int(self._ends[index])]

    def join(self, indices: Sequence[int]) -> bytes:
        """Puts records together to a block."""
        if len(indices) == len(self):
            return b"".join(map(self.raw, indices))
        return b"".join(data if data.endswith(b"\n") else data + b"\n" for data in map(self.raw, indices))

    def malformed(self) -> Iterable[tuple[int, _Fault]]:
        """Finds the records with the wrong number of fields or with bytes that are not UTF-8."""
        for index in np.flatnonzero(self._any(self._buffer >= 0x80)).tolist():
            try:
                self.raw(index).decode("utf-8")
            except UnicodeDecodeError as error:
                yield index, (f"byte 0x{error.object[error.start]:02x} is not UTF-8", ())
        counts = self._count(self._buffer == ord(self._delimiter)) + 1
        for index in np.flatnonzero(self._any(self._buffer == ord(self._quote))).tolist():
            # What Python's parser, which is stricter, cannot tell is left to Arrow's.
            counts[index] = _field_count(self.raw(index), self._delimiter, self._quote) or self._fields
        for index in np.flatnonzero(counts != self._fields).tolist():
            yield index, (_wrong_count(int(counts[index]), self._fields), ())

    def _count(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Counts the true bytes of each record."""
        sums = np.concatenate([[0], np.cumsum(mask, dtype=np.int64)])
        counts: npt.NDArray[np.int64] = sums[self._ends] - sums[self._starts]
        return counts

    def _any(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        return self._count(mask) > 0

    def _blank(self, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        visible = (self._buffer != _NEWLINE) & (self._buffer != ord("\r"))
        sums = np.concatenate([[0], np.cumsum(visible, dtype=np.int64)])
        blank: npt.NDArray[np.bool_] = sums[ends] == sums[starts]
        return blank

    def _merge(
        self, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Joins the lines that a quoted value spans.

        A line with an odd number of quotes opens such a value, the next one closes it, provided that together they have
        the right number of fields. Otherwise the opening quote is a mistake in that one line: the lines after it are
        records of their own again.
        """
        kept = np.ones(len(starts), dtype=np.bool_)
        ends = ends.copy()
        if self._quote.encode() not in self._block:
            return ends, kept
        sums = np.concatenate([[0], np.cumsum(self._buffer == ord(self._quote), dtype=np.int64)])
        odd = np.flatnonzero((sums[ends] - sums[starts]) % 2 == 1).tolist()
        position = 0
        while position + 1 < len(odd):
            first, last = odd[position], odd[position + 1]
            position += 1
            if last - first > _MAX_RECORD_LINES:
                continue
            whole = self._block[int(starts[first]) : int(ends[last])]
            if _field_count(whole, self._delimiter, self._quote) != self._fields:
                continue
            kept[first + 1 : last + 1] = False
            ends[first] = ends[last]
            position += 1
        return ends, kept


def line_count(data: bytes) -> int:
    """Counts the line ends in `data`, which are those that Arrow's reader sees: LF, CR LF and a lone CR."""
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


def _line_ends(buffer: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Lists the offsets after each line end."""
    newline = buffer == _NEWLINE
    lone = buffer == ord("\r")
    lone[:-1] &= ~newline[1:]
    return np.flatnonzero(newline | lone) + 1


def _field_count(record: bytes, delimiter: str, quote: str) -> int | None:
    """Counts the fields of a record that holds quotes; None if a quote is not closed or it is not one record."""
    text = io.StringIO(record.decode("utf-8", "replace"), newline="")
    try:
        rows = list(itertools.islice(csv.reader(text, delimiter=delimiter, quotechar=quote, strict=True), 2))
    except csv.Error:
        return None
    return len(rows[0]) if len(rows) == 1 else None


def _wrong_count(found: int, expected: int) -> str:
    return f"{found} field{'' if found == 1 else 's'} instead of {expected}"
