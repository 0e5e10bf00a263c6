"""How much of the label one column gives away on its own: what a leak is told by.

    score = leaks.score(feature, label)      # 1.0: that column alone answers every held-out row

A column that is known only after the label (a settlement, an outcome code, the label itself in another unit) predicts
it nearly perfectly alone, which honest columns hardly ever do. The score is measured on rows that the rule did not see:
two halves of the sample, each answered by a rule learned on the other, so that a column of identifiers, which knows
every row it has seen by heart, scores nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

LEAK = 0.98
"""From this score on a column is taken for a leak."""
_MIN_ROWS = 40
_BINS = 64

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def score(feature: Any, label: Any) -> float:
    """Returns how well one column alone predicts the label on rows that were held out.

    Args:
        feature: a sample of the column: float64 with NaN for numbers, an Arrow array of text with nulls otherwise.
        label: the same of the label; numbers for a regression, else the classes.

    Returns:
        R2 for a regression; for classes the share of the errors of the most frequent class that the column avoids. 0
        where it says nothing or there are too few rows.
    """
    known = np.isfinite(label) if isinstance(label, np.ndarray) else label.is_valid().to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(known)
    if len(rows) < _MIN_ROWS:
        return 0.0
    target: Any = label[rows] if isinstance(label, np.ndarray) else _codes(label.take(pa.array(rows)))
    column = feature[rows] if isinstance(feature, np.ndarray) else _codes(feature.take(pa.array(rows)))
    # A fixed shuffle: halves of a sorted table would not know each other.
    halves = np.random.default_rng(0).permutation(len(rows)) % 2 == 0
    if target.dtype == np.float64:
        return max(_r2(_binned_means, column, target, halves), _r2(_line, column, target, halves))
    return _avoided(column, target, halves)


def _codes(texts: Any) -> Ints:
    """Numbers the values of a text column, -1 for a missing one."""
    encoded = texts.dictionary_encode()
    codes: Ints = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def _groups(column: Any, fit: npt.NDArray[np.bool_]) -> Ints:
    """Puts every row into a group by its value: quantile bins of the fitting half for numbers; missing is one too."""
    if column.dtype == np.int64:
        groups: Ints = column + 1
        return groups
    finite = np.isfinite(column)
    known = np.unique(column[fit & finite])
    if len(known) <= _BINS:
        edges = known
    else:
        edges = np.unique(np.quantile(column[fit & finite], np.linspace(0, 1, _BINS + 1)[1:-1]))
    return np.where(finite, np.searchsorted(edges, np.nan_to_num(column), side="right") + 1, 0).astype(np.int64)


def _r2(rule: Any, column: Any, target: Floats, halves: npt.NDArray[np.bool_]) -> float:
    answers = np.empty_like(target)
    for fit in (halves, ~halves):
        answers[~fit] = rule(column, target, fit)[~fit]
    spread = float(np.var(target))
    return max(0.0, 1.0 - float(np.mean((answers - target) ** 2)) / spread) if spread else 0.0


def _binned_means(column: Any, target: Floats, fit: npt.NDArray[np.bool_]) -> Floats:
    groups = _groups(column, fit)
    size = int(groups.max()) + 1
    counts = np.bincount(groups[fit], minlength=size)
    sums = np.bincount(groups[fit], weights=target[fit], minlength=size)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), target[fit].mean())
    answers: Floats = means[groups]
    return answers


def _line(column: Any, target: Floats, fit: npt.NDArray[np.bool_]) -> Floats:
    """Answers with the least-squares line; the mean where there is no number."""
    mean = np.full_like(target, target[fit].mean())
    if column.dtype == np.int64:
        return mean
    finite = np.isfinite(column)
    x, y = column[fit & finite], target[fit & finite]
    if len(x) < 3 or not np.var(x):
        return mean
    slope = float(np.cov(x, y, bias=True)[0, 1] / np.var(x))
    return np.where(finite, y.mean() + slope * (np.nan_to_num(column) - x.mean()), mean)


def _avoided(column: Any, target: Ints, halves: npt.NDArray[np.bool_]) -> float:
    """Returns the share of the most frequent class's errors that the majority class of each group avoids."""
    right = np.zeros(len(target), bool)
    classes = int(target.max()) + 1
    for fit in (halves, ~halves):
        groups = _groups(column, fit)
        # Counted by pairs that occur: a table of all groups by all classes could be huge.
        cells, counts = np.unique(groups[fit] * classes + target[fit], return_counts=True)
        order = np.argsort(counts, kind="stable")
        answers = np.full(int(groups.max()) + 1, int(np.bincount(target[fit], minlength=classes).argmax()))
        answers[cells[order] // classes] = cells[order] % classes  # the most frequent pair of a group comes last
        right[~fit] = (answers[groups] == target)[~fit]
    trivial = 1.0 - float(np.bincount(target).max()) / len(target)
    return max(0.0, 1.0 - float((~right).mean()) / trivial) if trivial else 0.0
