"""One look at a table: what each column holds, in one pass and bounded memory, and a sample of rows for closer looks.

Guarantee: memory does not grow with the rows. Counts, types and missing shares are exact over all rows that were looked
at; distinct values are exact up to a limit and told as "more than" beyond it; what needs values side by side (leaks,
shapes of distributions) works on a thinned sample that is the same in every run.

    profile = look(table_source.find("table.csv", ...))
    profile.columns["age"].type, profile.columns["age"].missing_share
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.example_gen import typed
from evergreen.decimals import pointed_column
from pipeline.drafting import table_source

MAX_ROWS = 2_000_000
"""Rows that are looked at; what later rows hold shows when they are ingested."""
LARGEST = float(np.finfo(np.float32).max)
"""Larger numbers are in no tf.Example: ExampleGen puts their rows into quarantine."""
_LARGEST_INT = 2**63 - 1
_SAMPLE_ROWS = 40_000
_SAMPLE_BYTES = 64 << 20
_MAX_DISTINCT = 50_000
_MAX_DISTINCT_OF_ALL = 2_000_000
_LONGEST_COUNTED = 200
"""Characters up to which a value is counted; longer ones are text that nobody repeats."""

# What ExampleGen takes for a whole number, and for a number; NaN is a missing value.
_INT = r"^[ \t]*-?[0-9]{1,19}[ \t]*$"
_LONG_INT = r"^[ \t]*-?[0-9]{19}[ \t]*$"
_FLOAT = r"^[ \t]*(-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|-?[nN][aA][nN])[ \t]*$"
_NAN = r"^[ \t]*-?[nN][aA][nN][ \t]*$"
PLACEHOLDERS = ("na", "n/a", "null", "none", "nil", "?", "-", "--", ".", "missing", "unknown", "#n/a", "inf", "-inf")
"""What people write where a value is missing, in lower case."""
_CLOCK = {"": "", " %H:%M": r" \d{1,2}:\d{2}", " %H:%M:%S": r" \d{1,2}:\d{2}:\d{2}"}
_DATES = {
    "%Y/%m/%d": r"\d{4}/\d{1,2}/\d{1,2}",
    "%d.%m.%Y": r"\d{1,2}\.\d{1,2}\.\d{4}",
    "%d/%m/%Y": r"\d{1,2}/\d{1,2}/\d{4}",
}
_TIMESTAMPS = {
    "iso": r"^\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?\s*([Zz]|[+-]\d{2}:?\d{2})?)?$",
    **{date + clock: f"^{day}{time}$" for date, day in _DATES.items() for clock, time in _CLOCK.items()},
    "%H:%M": r"^\d{1,2}:\d{2}$",
    "%H:%M:%S": r"^\d{1,2}:\d{2}:\d{2}$",
}
"""Formats of `settings.Calendar` and what text in them looks like."""
_BOOLEANS = ({"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"}, {"on", "off"})


class Type(str, enum.Enum):
    """The narrowest type of a tf.Example that takes every value; the values are TensorFlow Metadata's names."""

    INT = "INT"
    FLOAT = "FLOAT"
    STRING = "BYTES"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """What one column holds."""

    name: str
    type: Type
    rows: int
    missing: int
    """Rows without a value: an empty cell, null or NaN."""
    distinct: int
    """Different values; the least there can be where `distinct_exact` is false."""
    distinct_exact: bool
    counts: dict[str, int]
    """Rows of each value as it is written, the most frequent first; empty where there are too many values."""
    not_text: int
    """Values that are bytes and no text."""
    placeholders: dict[str, int]
    """Rows of each value that stands for "missing", where the rest of the column are numbers."""
    sample: Any
    """Values of the sampled rows: float64 with NaN for a number, an Arrow array of text with nulls otherwise."""
    timestamps: dict[str, float]
    """For a column of times: each format of `settings.Calendar` by the share of the values that it fits."""
    clock: bool = False
    """Whether the times have hours."""
    most_values: int = 1
    """How many values a row has at the most; of several all are counted, and the first is in the sample."""
    unique_share: float = 1.0
    """The part of the values that are different: of all where they were all counted, else of the sample."""

    @property
    def missing_share(self) -> float:
        """The part of the rows without a value."""
        return self.missing / self.rows if self.rows else 0.0

    @property
    def present(self) -> int:
        """Rows with a value."""
        return self.rows - self.missing

    @property
    def numeric(self) -> bool:
        """Whether the values are numbers."""
        return self.type is not Type.STRING

    @property
    def boolean(self) -> bool:
        """Whether the values are a yes and a no in words."""
        words = {value.strip().lower() for value in self.counts}
        return len(words) == 2 and any(words == pair for pair in _BOOLEANS)

    def distinct_in_words(self) -> str:
        """Returns the number of different values, "more than" where they were not all counted."""
        return f"{self.distinct:,}" if self.distinct_exact else f"more than {self.distinct:,}"

    def range(self) -> tuple[float, float] | None:
        """Returns the smallest and the largest number: of all where every value was counted, else of the sample."""
        if not self.numeric or not self.present:
            return None
        if self.counts:
            numbers = [float(value) for value in self.counts]
            return min(numbers), max(numbers)
        known = self.sample[np.isfinite(self.sample)]
        return (float(known.min()), float(known.max())) if len(known) else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """What a table holds."""

    rows: int
    bad_lines: int
    complete: bool
    """Whether all rows were looked at."""
    columns: dict[str, Column]


def look(found: table_source.Found, *, max_rows: int = MAX_ROWS) -> Profile:
    """Looks at the rows of the files, at most `max_rows` of them.

    Raises:
        BadInput: when the files cannot be read.
    """
    seen: dict[str, _Seen] = {}
    sample = _Sample()
    rows = bad_lines = 0
    complete = True
    for table, bad in table_source.batches(found):
        bad_lines += bad
        if rows >= max_rows:
            complete = False
            break
        limit = max(1000, min(_MAX_DISTINCT, _MAX_DISTINCT_OF_ALL // max(1, table.num_columns)))
        texts = {name: table_source.as_text(table.column(name)) for name in table.column_names}
        for name, column in texts.items():
            # In TFRecords a column may show up late: where no row has it, it is not there.
            one = seen.setdefault(name, _Seen(name, limit, decimal=found.data.csv.decimal))
            several = table_source.most_values(table.column(name))
            every = table_source.as_text(table.column(name), every=True).drop_null() if several > 1 else None
            one.add(column, declared=_declared(table.column(name), found.format), every=every, most=several)
            one.not_text += table_source.not_text(table.column(name))
        sample.add(texts, rows, table.num_rows)
        rows += table.num_rows
    columns = {name: one.column(sample.of(name), rows) for name, one in seen.items()}
    return Profile(rows=rows, bad_lines=bad_lines, complete=complete, columns=columns)


def _declared(column: Any, format_: str) -> Type | None:
    """Returns the type that the file itself gives a column; None for text, which has to be looked at."""
    if format_ == "csv" or pa.types.is_null(column.type):
        return None
    if pa.types.is_uint64(column.type) and (pc.max(column).as_py() or 0) > _LARGEST_INT:
        return Type.STRING
    kind = typed.kind_of(column.type)
    return Type(kind.value) if kind else Type.STRING


class _Seen:
    """Counts of one column that grow batch by batch."""

    def __init__(self, name: str, limit: int, *, decimal: str) -> None:
        self._name = name
        self._decimal = decimal
        self._limit = limit
        self._declared: Type | None = None
        self._missing = self._ints = self._floats = self._nans = self._values = 0
        self._counts: Counter[str] | None = Counter()
        self._most = 0
        self._placeholders: Counter[str] = Counter()
        self._most_values = 1
        self.not_text = 0

    def add(self, column: Any, *, declared: Type | None, every: Any = None, most: int = 1) -> None:
        self._most_values = max(self._most_values, most)
        if self._declared is not Type.STRING:  # what one file has too large for a number is text in all
            self._declared = declared or self._declared
        values = column.drop_null()
        self._missing += len(column) - len(values)
        if not len(values):
            return
        # What was seen to be text, mostly, stays text: no use in looking for numbers in all the rest.
        if not declared and (self._values < 10_000 or self._floats > 0.5 * self._values):
            self._count_numbers(values)
        self._values += len(values)
        if self._counts is not None:
            self._count_values(values if every is None else every)

    def _count_numbers(self, values: Any) -> None:
        values = _as_points(values, self._decimal)
        floats = pc.match_substring_regex(values, _FLOAT)
        count = int(pc.sum(floats).as_py() or 0)
        self._floats += count
        if not count:
            self._placeholders.update(self._of_placeholders(values))
            return
        self._ints += int(pc.sum(pc.match_substring_regex(values, _INT)).as_py() or 0) - _too_large(values)
        self._nans += int(pc.sum(pc.match_substring_regex(values, _NAN)).as_py() or 0)
        if count < len(values):
            self._placeholders.update(self._of_placeholders(values.filter(pc.invert(floats))))

    def _of_placeholders(self, values: Any) -> Counter[str]:
        lower = pc.utf8_lower(pc.utf8_trim_whitespace(values))
        hits = values.filter(pc.is_in(lower, value_set=pa.array(PLACEHOLDERS)))
        return _counted(hits)

    def _count_values(self, values: Any) -> None:
        assert self._counts is not None
        if pc.max(pc.utf8_length(values)).as_py() > _LONGEST_COUNTED:
            values = pc.utf8_slice_codeunits(values, 0, _LONGEST_COUNTED)
        self._counts.update(_counted(values))
        self._most = len(self._counts)
        if self._most > self._limit:
            self._counts = None

    def column(self, texts: Any, rows: int) -> Column:
        numbers = self._floats - self._nans
        placeholders = sum(self._placeholders.values())
        missing = self._missing
        if self._declared:
            type_ = self._declared
        elif self._values and self._floats == self._values:
            type_ = Type.INT if self._ints == self._values else Type.FLOAT
            missing += self._nans
        else:
            type_ = Type.STRING
        counts = dict(self._counts.most_common()) if self._counts is not None else {}
        if type_ is not Type.STRING:
            values = _as_points(pa.array(list(counts), pa.string()), self._decimal).to_pylist()
            pointed = zip(values, counts.values(), strict=True)
            counts = {value: count for value, count in pointed if value.strip().lower().lstrip("-") != "nan"}
        mostly_numbers = type_ is Type.STRING and numbers > 0 and numbers + placeholders >= 0.9 * self._values
        return Column(
            name=self._name,
            type=type_,
            rows=rows,
            missing=missing + (rows - self._missing - self._values),
            distinct=len(counts) if self._counts is not None else self._most,
            distinct_exact=self._counts is not None,
            counts=counts,
            not_text=self.not_text,
            placeholders=dict(self._placeholders) if mostly_numbers else {},
            unique_share=self._unique_share(counts, texts, rows - missing),
            sample=as_numbers(texts, decimal=self._decimal) if type_ is not Type.STRING else texts,
            timestamps=_timestamps(texts) if type_ is Type.STRING else {},
            clock=type_ is Type.STRING and _has_clock(texts),
            most_values=self._most_values,
        )

    def _unique_share(self, counts: dict[str, int], texts: Any, present: int) -> float:
        if self._counts is not None:
            return len(counts) / max(1, present)
        # As text: a float64 would make neighbours of whole numbers past 2^53 the same.
        values = texts.drop_null()
        return len(values.unique()) / max(1, len(values))


def _too_large(values: Any) -> int:
    """Counts the whole numbers that an int64 cannot hold."""
    long = values.filter(pc.match_substring_regex(values, _LONG_INT))
    return sum(not -(2**63) <= int(value) < 2**63 for value in long.unique().to_pylist()) if len(long) else 0


def _counted(values: Any) -> Counter[str]:
    counted = pc.value_counts(values)
    return Counter(dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True)))


class _Sample:
    """Every n-th row, where n doubles whenever there would be too many."""

    def __init__(self) -> None:
        self._stride = 1
        self._parts: dict[str, list[Any]] = {}
        self._numbers: list[npt.NDArray[np.int64]] = []

    def add(self, texts: dict[str, Any], first_row: int, rows: int) -> None:
        numbers = np.arange(first_row, first_row + rows, dtype=np.int64)
        kept = np.flatnonzero(numbers % self._stride == 0)
        positions = pa.array(kept)
        before = sum(map(len, self._numbers))
        for name in {**self._parts, **texts}:
            parts = self._parts.setdefault(name, [pa.nulls(before, pa.string())])
            parts.append(texts[name].take(positions) if name in texts else pa.nulls(len(kept), pa.string()))
        self._numbers.append(numbers[kept])
        while self._too_large():
            self._thin()

    def _too_large(self) -> bool:
        rows = sum(map(len, self._numbers))
        size = sum(part.nbytes for parts in self._parts.values() for part in parts)
        return rows > 1 and (rows > _SAMPLE_ROWS or size > _SAMPLE_BYTES)

    def _thin(self) -> None:
        self._stride *= 2
        numbers = np.concatenate(self._numbers)
        kept = np.flatnonzero(numbers % self._stride == 0)
        positions = pa.array(kept)
        # Taking copies: what is dropped is free, which a slice would keep alive.
        self._parts = {name: [_one(parts).take(positions)] for name, parts in self._parts.items()}
        self._numbers = [numbers[kept]]

    def of(self, name: str) -> Any:
        return _one(self._parts.get(name, []))


def _one(parts: Sequence[Any]) -> Any:
    return pa.concat_arrays(parts) if parts else pa.array([], pa.string())


def _as_points(texts: Any, decimal: str) -> Any:
    return pointed_column(texts) if decimal == "," else texts


def as_numbers(texts: Any, *, decimal: str = ".") -> npt.NDArray[np.float64]:
    """Reads text as numbers, float64 with NaN where there is none, or one that 32 bits cannot hold.

    Args:
        texts: an Arrow array of text.
        decimal: what stands before a fraction.
    """
    texts = _as_points(texts, decimal)
    valid = pc.fill_null(pc.match_substring_regex(texts, _FLOAT), False)
    numbers = pc.if_else(valid, pc.utf8_trim_whitespace(texts), pa.scalar(None, pa.string())).cast(pa.float64())
    array: npt.NDArray[np.float64] = numbers.to_numpy(zero_copy_only=False).astype(np.float64)
    return np.where(np.abs(array) > LARGEST, np.nan, array)


def _timestamps(texts: Any) -> dict[str, float]:
    """Returns the formats of a column of times; empty where less than nine values in ten are times."""
    values = texts.drop_null()
    if not len(values):
        return {}
    shares = {}
    left = values
    for format_, pattern in _TIMESTAMPS.items():
        matches = pc.match_substring_regex(left, pattern)
        count = int(pc.sum(matches).as_py() or 0)
        if count:
            shares[_order_of_days(format_, left.filter(matches))] = count / len(values)
            left = left.filter(pc.invert(matches))
        if not len(left):
            break
    return shares if sum(shares.values()) >= 0.9 else {}


def _has_clock(texts: Any) -> bool:
    return bool(pc.any(pc.match_substring_regex(texts, r"\d:\d{2}")).as_py())


def _order_of_days(format_: str, values: Iterable[Any]) -> str:
    """Tells 31/12/2024 from 12/31/2024: a number above 12 can only be the day."""
    if not format_.startswith("%d/%m/%Y"):
        return format_
    second = [int(re.split(r"[/ ]", str(value))[1]) for value in list(values)[:2000]]
    return format_.replace("%d/%m", "%m/%d") if second and max(second) > 12 else format_
