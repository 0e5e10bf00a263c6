"""Which split a row falls into: by its values, by its key, or by its moment.

Guarantees: the same row always falls into the same split; rows of one key are never in two; split by time, no row of an
earlier split is younger than one of a later split (of the whole where cutoffs are given, of its span where not).

    deal = Dealer(data, types, cutoffs=cutoffs)
    deal.splits(rows, span=3)       # int64 [rows], -1 for a row that has no moment
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.example_gen import hashing, typed
from components.example_gen.table import ColumnType
from evergreen import settings
from evergreen.errors import BadInput, Problem

Splits = npt.NDArray[np.int64]
Moments = npt.NDArray[np.float64]


class Dealer:
    """Deals rows to splits."""

    def __init__(self, data: settings.Data, *, cutoffs: Mapping[int, Sequence[float]] | None = None) -> None:
        """Prepares the shares.

        Args:
            data: the splits and what decides.
            cutoffs: by span, the moments at which each split but the first begins; for a split by time.
        """
        self._by = data.split_by
        self._cutoffs = cutoffs or {}
        self._split_of_bucket = np.repeat(np.arange(len(data.splits)), list(data.splits.values()))

    def splits(self, rows: pa.Table, *, span: int) -> Splits:
        """Tells the split of every row.

        Args:
            rows: all columns.
            span: of all the rows.

        Returns:
            Position of the split in `data.splits`, int64 [rows]; -1 for a row without a moment.
        """
        if isinstance(self._by, settings.SplitByTime):
            return self._by_time(rows, self._by, span)
        hashes = hashing.row_hashes(rows)
        if isinstance(self._by, settings.SplitByKey):
            keys = rows.select(self._by.columns)
            known = np.zeros(rows.num_rows, np.bool_)
            for name in self._by.columns:
                known |= typed.whole(keys.column(name)).is_valid().to_numpy(zero_copy_only=False)
            hashes = np.where(known, hashing.row_hashes(keys), hashes)
        chosen: Splits = self._split_of_bucket[(hashes % len(self._split_of_bucket)).astype(np.int64)]
        return chosen

    def _by_time(self, rows: pa.Table, by: settings.SplitByTime, span: int) -> Splits:
        found = moments(rows, by)
        chosen: Splits = np.searchsorted(np.array(self._cutoffs[span], np.float64), found, side="right")
        return np.where(np.isnan(found), -1, chosen)


def moments(rows: pa.Table, by: settings.SplitByTime) -> Moments:
    """Reads the rows' moments: a text's seconds since 1970, a number as it is.

    Returns:
        float64 [rows] (exact to the second, and for whole numbers to 2^53); NaN for a row without one.
    """
    column = typed.whole(rows.column(by.time))
    if pa.types.is_string(column.type):
        return _of_texts(column, by.formats)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        # Several values in a row are no moment.
        return np.full(rows.num_rows, np.nan)
    found: Moments = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return found


def _of_texts(column: pa.StringArray, formats: Sequence[str]) -> Moments:
    import tensorflow as tf

    from transform import moments as parser

    encoded = column.dictionary_encode()
    distinct = encoded.dictionary.cast(pa.binary()).to_pylist()
    if not distinct:
        return np.full(len(column), np.nan)
    parsed = parser.parse(tf.constant(distinct, tf.string), list(formats))
    seconds = np.where(parsed.known.numpy(), parsed.seconds.numpy().astype(np.float64), np.nan)
    positions = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
    return np.where(column.is_null().to_numpy(zero_copy_only=False), np.nan, seconds[positions])


def given_cutoffs(data: settings.Data, type_: ColumnType) -> list[float] | None:
    """Reads the cutoffs of the configuration.

    Args:
        data: the settings.
        type_: of the column with the moment.

    Returns:
        One moment for each split but the first; None if the configuration gives none.

    Raises:
        BadInput: a cutoff is no moment, or they do not ascend in the order of the splits.
    """
    by = data.split_by
    if not isinstance(by, settings.SplitByTime) or by.cutoffs is None:
        return None
    texts = [by.cutoffs[name] for name in list(data.splits)[1:]]
    if type_ is ColumnType.STRING:
        found = _of_texts(pa.array(texts, pa.string()), by.formats).tolist()
    else:
        found = [_number(text) for text in texts]
    problems = [
        Problem(
            where=f"data.split_by.cutoffs.{name}",
            found=repr(text),
            expected=f"a moment written like those of column {by.time!r} ({', '.join(by.formats)})"
            if type_ is ColumnType.STRING
            else f"a number, as in column {by.time!r}",
            action="Correct the cutoff, or data.split_by.formats.",
        )
        for name, text, moment in zip(list(data.splits)[1:], texts, found, strict=True)
        if np.isnan(moment)
    ]
    if not problems and any(low >= high for low, high in itertools.pairwise(found)):
        problems.append(
            Problem(
                where="data.split_by.cutoffs",
                found=", ".join(texts),
                expected=f"later moments for later splits ({', '.join(data.splits)})",
                action="Put the cutoffs, or the splits, in order.",
            )
        )
    if problems:
        raise BadInput(problems)
    return [float(moment) for moment in found]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def cutoffs_of(found: Moments, data: settings.Data) -> list[float]:
    """Cuts the moments of a span by the splits' shares.

    Args:
        found: of all rows of the span; NaN counts for nothing.
        data: the settings.

    Returns:
        One moment for each split but the first; rows of the same moment stay together.
    """
    ordered = np.sort(found[~np.isnan(found)])
    if not ordered.size:
        return [0.0] * (len(data.splits) - 1)
    ends = np.cumsum(list(data.splits.values()))[:-1] / sum(data.splits.values())
    return [float(ordered[min(ordered.size - 1, round(ordered.size * float(end)))]) for end in ends]
