"""How far a span is from another: pure functions from two profiles to distances, each with what sampling alone does.

All distances are differences of shares, in [0, 1]: the Kolmogorov-Smirnov distance of numbers, the largest change of a
value's share of categories, the change of the share of missing values. For each there is a bound that two honest
samples exceed with a chance of at most `CHANCE`, whatever the distribution (Dvoretzky-Kiefer-Wolfowitz, Hoeffding).

Numbers that are less than `SAME` of their own value apart (and less than `SAME_SPREAD` of the column's spread) count as
the same: the exchange rate of a day is another number every day, and that is no fault.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from components.example_validator.profile import (
    LEVELS,
    MIN_SLICE,
    SLICE_LEVELS,
    Column,
    Floats,
    Profile,
    Slices,
    Target,
    each_slice,
)

CHANCE = 1e-9
"""Of one comparison: a month of 30 spans with 5,000 comparisons each has a chance of 1 in 6,000 for any false alarm."""
SAME = 0.05
SAME_SPREAD = 0.25
_ALIKE_RANGE = 5.0
_WIDE = 10_000
"""The range from which on whole numbers that move on are taken for identifiers or times."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distance:
    """How far a column is from what it was."""

    column: str
    distance: float
    noise: float
    """What sampling alone does at the most."""
    was: str
    now: str
    by: str | None = None
    """The column whose category this is within; None for the whole."""
    category: str | None = None

    @property
    def key(self) -> str:
        """Names what is compared, the same from span to span."""
        return self.column if self.by is None else f"{self.by}|{self.column}"

    @property
    def excess(self) -> float:
        """How much of the distance sampling does not explain."""
        return self.distance - self.noise


def noise(rows: int, others: int) -> float:
    """Returns what two honest samples are apart at the most: 0.03 at 20,000 rows each, 0.33 at 200."""
    return math.sqrt(math.log(2.0 / CHANCE) / 2.0 * (1.0 / rows + 1.0 / others))


def moves_on(current: Column, before: Column) -> bool:
    """Tells whether a column differs from span to span by its nature: a date, a running number, a time."""
    if current.distinct == 1 and before.distinct == 1 and current.present == current.rows:
        return True
    if not (current.whole and before.whole and current.quantiles and before.quantiles):
        return False
    reach, reached = (column.quantiles[-1] - column.quantiles[0] for column in (current, before))
    alike = reach <= _ALIKE_RANGE * reached and reached <= _ALIKE_RANGE * reach
    many = min(current.distinct / current.present, before.distinct / before.present) >= 0.5 or reach >= _WIDE
    return alike and many and current.quantiles[0] >= before.quantiles[-1]


def of_columns(current: Profile, before: Profile) -> Iterator[Distance]:
    """Compares every column that both have, in the whole."""
    for name, column in current.columns.items():
        other = before.columns.get(name)
        if other is None or not column.rows or not other.rows or moves_on(column, other):
            continue
        yield from _missing(name, column.present, column.rows, other.present, other.rows)
        if column.present < MIN_SLICE or other.present < MIN_SLICE:
            continue
        bound = noise(column.present, other.present)
        if column.values is not None and other.values is not None:
            yield _categories(name, (column.values, column.present), (other.values, other.present), bound)
        elif column.quantiles and other.quantiles:
            spread = spread_of(other.quantiles)
            yield _numbers(name, column.quantiles, other.quantiles, bound=bound + 1.0 / LEVELS, spread=spread)


def of_slices(current: Profile, before: Profile) -> Iterator[Distance]:
    """Compares every column within every category that both have rows enough of."""
    for by, cut in current.slices.items():
        other = before.slices.get(by)
        if other is None or moves_on(current.columns[by], before.columns[by]):
            continue
        positions = dict(each_slice(other))
        for category, position in each_slice(cut):
            if category in positions:
                sides = ((cut, position), (other, positions[category]))
                for distance in _of_slice(*sides, current=current, before=before):
                    yield dataclasses.replace(distance, by=by, category=category)


def _of_slice(
    mine: tuple[Slices, int], theirs: tuple[Slices, int], *, current: Profile, before: Profile
) -> Iterator[Distance]:
    (cut, at), (other, other_at) = mine, theirs
    rows, other_rows = cut.rows[at], other.rows[other_at]
    for name, target in cut.targets.items():
        past = other.targets.get(name)
        if past is None or moves_on(current.columns[name], before.columns[name]):
            continue
        present, other_present = target.present[at], past.present[other_at]
        yield from _missing(name, present, rows, other_present, other_rows)
        if present < MIN_SLICE or other_present < MIN_SLICE:
            continue
        bound = noise(present, other_present)
        if _few(current, name) and _few(before, name) and target.values and past.values:
            yield _categories(name, (target.values[at], present), (past.values[other_at], other_present), bound)
        elif (levels := _levels(target, at)) and (others := _levels(past, other_at)):
            # The column's spread over all categories: within one of them it may have none.
            spread = spread_of(before.columns[name].quantiles)
            yield _numbers(name, levels, others, bound=bound + 1.0 / SLICE_LEVELS, spread=spread)


def _levels(target: Target, at: int) -> Sequence[float]:
    return target.quantiles[at] if target.quantiles else ()


def _few(profile: Profile, name: str) -> bool:
    return profile.columns[name].complete


def changed_values(current: Profile, before: Profile, *, share: float) -> Iterator[tuple[str, str, float, bool]]:
    """Yields column, value, its share and whether it is new (else gone) of every category that came or went.

    Only values with at least `share` of the rows that chance cannot have hidden on the other side count.
    """
    for name, column in current.columns.items():
        other = before.columns.get(name)
        if other is None or not column.complete or not other.complete or moves_on(column, other):
            continue
        for value, part in _absent(column, other, share):
            yield name, value, part, True
        for value, part in _absent(other, column, share):
            yield name, value, part, False


def _absent(column: Column, other: Column, share: float) -> Iterator[tuple[str, float]]:
    """Yields the values of `column` that `other` lacks, though it would have them were they as frequent there."""
    if not other.present or column.values is None or other.values is None:
        return
    each = math.log(column.present / (column.present + other.present))
    for value, rows in column.values.items():
        if value not in other.values and rows / column.rows >= share and rows * each < math.log(CHANCE):
            yield value, rows / column.rows


def overlap(current: Profile, other: Profile) -> float:
    """Returns the share of the rows of `current` that are also in `other`, about.

    Of tables whose rows repeat anyway (a few columns with few values) only a span that is the same as a whole counts.
    """
    if current.digest == other.digest and current.rows == other.rows and len(current.hashes) >= MIN_SLICE:
        return 1.0
    mine, theirs = _different_rows(current), _different_rows(other)
    if mine < 0.9 * current.rows or theirs < 0.9 * other.rows:
        return 0.0
    kept = min(len(current.hashes), len(other.hashes))
    if kept < MIN_SLICE:
        return 0.0
    smallest = sorted({*current.hashes, *other.hashes})[:kept]
    both = {*current.hashes} & {*other.hashes}
    jaccard = sum(value in both for value in smallest) / kept
    return min(1.0, jaccard / (1.0 + jaccard) * (mine + theirs) / mine)


def _different_rows(profile: Profile) -> float:
    """Estimates how many different rows there are; of a span of which only a part was drawn nothing is known."""
    if profile.sampled < profile.rows or not profile.hashes:
        return 0.0
    if len(profile.hashes) < 256:
        return float(len(profile.hashes))
    return (len(profile.hashes) - 1) / (profile.hashes[-1] / 2.0**64)


# --- the distances ---------------------------------------------------------------------------------------------------


def _missing(name: str, present: int, rows: int, other_present: int, other_rows: int) -> Iterator[Distance]:
    now, was = 1 - present / rows, 1 - other_present / other_rows
    if now != was:
        yield Distance(
            column=name,
            distance=abs(now - was),
            noise=noise(rows, other_rows),
            was=f"no value in {was:.1%} of the rows",
            now=f"in {now:.1%}",
        )


def spread_of(levels: Sequence[float]) -> float:
    """Returns the distance between the quartiles, or of the outer twentieths where that is none."""
    parts = len(levels) - 1
    middle = levels[round(parts * 0.75)] - levels[round(parts * 0.25)]
    return middle or levels[round(parts * 0.95)] - levels[round(parts * 0.05)]


def tolerated(values: Floats, spread: float) -> Floats:
    """Returns by how much a number may differ and count as the same."""
    own = SAME * np.abs(values)
    return np.minimum(own, SAME_SPREAD * spread) if spread else own


def between(mine: Floats, theirs: Floats, *, spread: float) -> float:
    """Measures the Kolmogorov-Smirnov distance with a tolerance: how far one curve is above the other moved aside.

    Args:
        mine: order statistics at equal steps, ascending.
        theirs: the others.
        spread: of the column, as `spread_of` gives it.
    """
    above = [0.0]
    for one, other in ((mine, theirs), (theirs, mine)):
        reached = np.searchsorted(one, one, side="right") / len(one)
        beside = np.searchsorted(other, one + tolerated(one, spread), side="right") / len(other)
        above.append(float((reached - beside).max()))
    return max(above)


def _numbers(name: str, levels: Sequence[float], others: Sequence[float], *, bound: float, spread: float) -> Distance:
    mine, theirs = np.asarray(levels), np.asarray(others)
    return Distance(
        column=name,
        distance=between(mine, theirs, spread=spread),
        noise=bound,
        was=_range(theirs),
        now=_range(mine),
    )


def _range(levels: Floats) -> str:
    parts = len(levels) - 1
    low, middle, high = (levels[round(parts * share)] for share in (0.05, 0.5, 0.95))
    return f"always {middle:.5g}" if low == high else f"mostly {low:.5g} to {high:.5g}, median {middle:.5g}"


def _categories(
    name: str, mine: tuple[Mapping[str, int], int], theirs: tuple[Mapping[str, int], int], bound: float
) -> Distance:
    """Compares rows of each value, given with the rows that have any."""
    (values, present), (others, other_present) = mine, theirs
    shares = {
        value: (values.get(value, 0) / present, others.get(value, 0) / other_present) for value in {*values, *others}
    }
    value, (now, was) = max(shares.items(), key=lambda item: (abs(item[1][0] - item[1][1]), item[0]))
    return Distance(
        column=name,
        distance=abs(now - was),
        noise=bound,
        was=f"{value!r} in {was:.1%} of the rows",
        now=f"in {now:.1%}",
    )
