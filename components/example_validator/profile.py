"""What is remembered of a span: how each column is distributed, in the whole and within each category of others.

A profile is small (quantiles and counts, no rows), so that it goes into the registry beside the model that was trained
on the span. Two profiles are compared by `components.example_validator.comparison`.

    profile = of_table(table, source=source, label="price")
    Profile.from_json(profile.as_json()) == profile
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.example_gen import hashing
from components.example_validator.rows import Source

LEVELS = 64
"""Parts of equal weight into which quantiles cut a column."""
SLICE_LEVELS = 32
FEW_VALUES = 50
"""Different values up to which a column of texts counts as categories."""
FEW_INTEGERS = 32
"""The same for whole numbers."""
MIN_SLICE = 30
"""Rows below which nothing is said of a category."""
_KEPT_VALUES = 200
_LONGEST = 60
"""Characters of a value that are kept."""
_KEPT_HASHES = 256
_MAX_SLICES = 200
_MAX_CELLS = 6_000
"""Slices times columns that are described: what bounds a profile's size and the time that it takes."""

_LARGEST = float(np.finfo(np.float32).max)

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """How one column is distributed."""

    rows: int
    present: int
    distinct: int
    quantiles: tuple[float, ...] = ()
    """`LEVELS` + 1 order statistics of a column of numbers, the smallest and the largest among them."""
    values: Mapping[str, int] | None = None
    """Rows of each value, of a column with few; of the most frequent ones of other texts; None for other numbers."""
    whole: bool = False
    """Whether these are whole numbers."""

    @property
    def complete(self) -> bool:
        """Whether every value is in `values`."""
        return self.values is not None and len(self.values) == self.distinct


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """How one column is distributed within each category of another, in the order of the categories."""

    present: tuple[int, ...]
    quantiles: tuple[tuple[float, ...], ...] = ()
    """`SLICE_LEVELS` + 1 order statistics each; empty for categories without a value."""
    values: tuple[Mapping[str, int], ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slices:
    """The categories of one column, and the other columns within each."""

    categories: tuple[str, ...]
    rows: tuple[int, ...]
    targets: Mapping[str, Target]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """One span."""

    span: int
    version: int
    rows: int
    quarantined: int
    size: int
    sampled: int
    """Rows that the profile was made of."""
    digest: str
    """Depends on the rows and not on their order."""
    hashes: tuple[int, ...] = ()
    """The smallest hashes of rows: what two spans share of them tells how many rows they share."""
    columns: Mapping[str, Column] = dataclasses.field(default_factory=dict)
    slices: Mapping[str, Slices] = dataclasses.field(default_factory=dict)

    @property
    def detailed(self) -> bool:
        """Whether the columns are known; of older spans only the figures are kept."""
        return bool(self.columns)

    def without_details(self) -> Profile:
        """Returns what is kept of a span that nothing will be compared with."""
        return dataclasses.replace(self, columns={}, slices={})

    def as_json(self) -> dict[str, Any]:
        """Returns the profile as a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Profile:
        """Reads what `as_json` gave, also after a way through text."""
        columns = {name: _column_of(column) for name, column in document["columns"].items()}
        slices = {name: _slices_of(cut) for name, cut in document["slices"].items()}
        return cls(**{**document, "hashes": tuple(document["hashes"]), "columns": columns, "slices": slices})


def of_table(table: pa.Table, *, source: Source) -> Profile:
    """Describes the rows of one span.

    Args:
        table: columns of float32, int64 and string.
        source: the span that they are of; it may have more rows than were drawn.
    """
    hashes = hashing.row_hashes(table)
    coded = {name: _coded(table.column(name)) for name in table.column_names}
    return Profile(
        span=source.span,
        version=source.version,
        rows=source.rows,
        quarantined=source.quarantined,
        size=source.size,
        sampled=table.num_rows,
        digest=f"{int(hashes.sum(dtype=np.uint64)):016x}-{table.num_rows}",
        hashes=tuple(int(value) for value in np.unique(hashes)[:_KEPT_HASHES]),
        columns={name: _describe(table.column(name), coded[name]) for name in table.column_names},
        slices=_cut(table, coded),
    )


# --- columns ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Coded:
    """A column of few values as their numbers."""

    values: Sequence[str]
    codes: npt.NDArray[np.int64]
    """-1 where there is no value."""


def _coded(column: pa.ChunkedArray) -> _Coded | None:
    """Returns the column as categories, or None where it has too many values (or none)."""
    if pa.types.is_floating(column.type):
        return None
    most = FEW_VALUES if pa.types.is_string(column.type) else FEW_INTEGERS
    distinct = pc.count_distinct(column).as_py()
    if not 0 < distinct <= most:
        return None
    encoded = _array(column).dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return _Coded([_short(str(value)) for value in encoded.dictionary.to_pylist()], codes)


def _describe(column: pa.ChunkedArray, coded: _Coded | None) -> Column:
    present = len(column) - column.null_count
    distinct = pc.count_distinct(column).as_py()
    quantiles: tuple[float, ...] = ()
    if not pa.types.is_string(column.type):
        numbers = _numbers(column)
        quantiles = _quantiles(np.sort(numbers[~np.isnan(numbers)]), LEVELS)
    values = None
    if coded is not None:
        counts = np.bincount(coded.codes[coded.codes >= 0], minlength=len(coded.values))
        values = dict(zip(coded.values, counts.tolist(), strict=True))
    elif pa.types.is_string(column.type) and present:
        top = sorted(pc.value_counts(_array(column).drop_null()).to_pylist(), key=lambda pair: -pair["counts"])
        # The rest goes by the name of no value: the shares of the frequent ones are what is compared.
        values = {_short(pair["values"]): pair["counts"] for pair in top[:_KEPT_VALUES]} if _repeats(top) else None
    return Column(
        rows=len(column),
        present=present,
        distinct=distinct,
        quantiles=quantiles,
        values=values,
        whole=pa.types.is_integer(column.type),
    )


def _short(value: str) -> str:
    """Keeps a profile small where a cell is not; two long values stay two."""
    if len(value) <= _LONGEST:
        return value
    return f"{value[:_LONGEST]}... ({hashlib.blake2b(value.encode(), digest_size=6).hexdigest()})"


def _repeats(top: Sequence[Mapping[str, Any]]) -> bool:
    return bool(top and top[0]["counts"] > 1)


def _array(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    if isinstance(combined, pa.ChunkedArray):
        return pa.concat_arrays(combined.chunks) if combined.num_chunks else pa.array([], column.type)
    return combined


def _numbers(column: pa.ChunkedArray) -> Floats:
    """Returns the numbers with NaN where there is none; JSON has no infinities."""
    numbers: Floats = column.cast(pa.float64(), safe=False).to_numpy()
    return np.clip(numbers, -_LARGEST, _LARGEST)


def _quantiles(ordered: Floats, levels: int) -> tuple[float, ...]:
    """Returns order statistics, not means of two: a value that many rows have stays that value."""
    if not len(ordered):
        return ()
    at = np.round(np.linspace(0, len(ordered) - 1, levels + 1)).astype(np.int64)
    return tuple(float(f"{value:.7g}") for value in ordered[at])


# --- slices ----------------------------------------------------------------------------------------------------------


def _cut(table: pa.Table, coded: Mapping[str, _Coded | None]) -> dict[str, Slices]:
    """Describes all columns within each category of the columns that have few; texts first, then fewer values first."""
    cutting = [name for name, column in coded.items() if column is not None and len(column.values) > 1]
    cutting.sort(key=lambda name: (not pa.types.is_string(table.column(name).type), len(_known(coded, name).values)))
    numbers = {
        name: _numbers(table.column(name))
        for name in table.column_names
        if not pa.types.is_string(table.column(name).type)
    }
    missing = {name: table.column(name).is_null().to_numpy().astype(bool) for name in table.column_names}
    cut: dict[str, Slices] = {}
    slices = cells = 0
    for name in cutting:
        count = len(_known(coded, name).values)
        targets = [other for other in table.column_names if other != name]
        if slices + count > _MAX_SLICES or cells >= _MAX_CELLS:
            break
        targets = targets[: max(1, (_MAX_CELLS - cells) // count)]
        slices, cells = slices + count, cells + count * len(targets)
        cut[name] = _slices(_known(coded, name), targets, coded=coded, numbers=numbers, missing=missing)
    return cut


def _known(coded: Mapping[str, _Coded | None], name: str) -> _Coded:
    column = coded[name]
    assert column is not None
    return column


def _slices(
    cutting: _Coded,
    targets: Sequence[str],
    *,
    coded: Mapping[str, _Coded | None],
    numbers: Mapping[str, Floats],
    missing: Mapping[str, npt.NDArray[np.bool_]],
) -> Slices:
    inside = np.flatnonzero(cutting.codes >= 0)
    order = inside[np.argsort(cutting.codes[inside], kind="stable")]
    bounds = np.searchsorted(cutting.codes[order], np.arange(len(cutting.values) + 1))
    groups = [order[start:end] for start, end in itertools.pairwise(bounds)]
    described = {}
    for target in targets:
        present = tuple(int(len(group) - missing[target][group].sum()) for group in groups)
        column = coded[target]
        if target in numbers:
            described[target] = Target(
                present=present,
                quantiles=tuple(_group_quantiles(numbers[target][group]) for group in groups),
            )
        elif column is not None:
            described[target] = Target(present=present, values=tuple(_counts(column, group) for group in groups))
        else:
            described[target] = Target(present=present)
    return Slices(
        categories=tuple(cutting.values),
        rows=tuple(len(group) for group in groups),
        targets=described,
    )


def _group_quantiles(values: Floats) -> tuple[float, ...]:
    if len(values) < MIN_SLICE:
        return ()
    return _quantiles(np.sort(values[~np.isnan(values)]), SLICE_LEVELS)


def _counts(column: _Coded, group: npt.NDArray[np.int64]) -> dict[str, int]:
    codes = column.codes[group]
    counts = np.bincount(codes[codes >= 0], minlength=len(column.values))
    return {value: int(count) for value, count in zip(column.values, counts, strict=True) if count}


# --- from JSON -------------------------------------------------------------------------------------------------------


def _column_of(document: Mapping[str, Any]) -> Column:
    return Column(**{**document, "quantiles": tuple(document["quantiles"])})


def _slices_of(document: Mapping[str, Any]) -> Slices:
    return Slices(
        categories=tuple(document["categories"]),
        rows=tuple(document["rows"]),
        targets={name: _target_of(target) for name, target in document["targets"].items()},
    )


def _target_of(document: Mapping[str, Any]) -> Target:
    return Target(
        present=tuple(document["present"]),
        quantiles=tuple(tuple(levels) for levels in document["quantiles"]),
        values=tuple(document["values"]),
    )


def each_slice(slices: Slices) -> Iterator[tuple[str, int]]:
    """Yields category and position of each one that has rows enough to say something of."""
    for position, (category, rows) in enumerate(zip(slices.categories, slices.rows, strict=True)):
        if rows >= MIN_SLICE:
            yield category, position
