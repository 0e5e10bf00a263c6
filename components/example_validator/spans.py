"""The checks of one span against the spans before it: what changed from delivery to delivery, slice by slice.

Every new span (one that the serving model was not trained on) is held against the nearest earlier span that passed. A
column that changes from span to span by its nature is held against what it always does: twice the lower
quartile of the distances of the last spans, where that is more than the threshold.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from components.example_validator import comparison
from components.example_validator.comparison import Distance
from components.example_validator.findings import Finding, Severity, of_severity
from components.example_validator.profile import Profile
from components.example_validator.rows import Source
from evergreen import settings

_REMEMBERED = 10
"""Distances of each column that are kept."""
_ENOUGH = 3
"""Distances from which on there is something that a column always does."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class History:
    """What is known of the spans that the serving model was trained on."""

    profiles: Sequence[Profile] = ()
    distances: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    """The last distances of each column from span to span."""

    def as_json(self) -> dict[str, Any]:
        """Returns the history as a JSON object."""
        return {
            "profiles": [profile.as_json() for profile in self.profiles],
            "distances": {name: [round(value, 4) for value in values] for name, values in self.distances.items()},
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> History:
        """Reads what `as_json` gave."""
        profiles = [Profile.from_json(profile) for profile in document["profiles"]]
        return cls(profiles=profiles, distances=document["distances"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """What became of the new spans."""

    findings: Sequence[Finding]
    history: History
    """To remember with a model that is trained on these spans: details of the newest one that passed."""
    checked: Sequence[int]
    """The new spans."""
    moving: frozenset[str]
    """Columns that change from span to span by their nature."""
    distances: Mapping[str, float]
    """Of each column of the newest span from the span before it."""


def judge(
    current: Sequence[Profile], *, history: History, validation: settings.Validation, label: str | None
) -> Judged:
    """Checks every new span.

    Args:
        current: the spans of the run; those that the history knows need no details.
        history: what the serving model was trained on.
        validation: the thresholds.
        label: the raw label column.
    """
    return _Judge(current, history, validation, label).go()


def is_known(profile: Profile | Source, history: History) -> bool:
    """Tells whether the serving model was trained on this delivery of the span."""
    return any(_same(profile, known) for known in history.profiles)


def _same(one: Profile | Source, other: Profile) -> bool:
    return (one.span, one.version, one.rows, one.size) == (other.span, other.version, other.rows, other.size)


class _Judge:
    def __init__(
        self, current: Sequence[Profile], history: History, validation: settings.Validation, label: str | None
    ) -> None:
        self._validation = validation
        self._label = label
        ordered = sorted(current, key=lambda profile: profile.span)
        self._new = [profile for profile in ordered if not is_known(profile, history)]
        new = {profile.span for profile in self._new}
        by_span = {profile.span: profile for profile in ordered if profile.span not in new}
        for profile in history.profiles:
            if profile.span not in new and (profile.detailed or profile.span not in by_span):
                by_span[profile.span] = profile
        # A table without spans comes under the same number every time: there is only what was there before to compare.
        self._replaced = {profile.span: profile for profile in history.profiles if profile.span in new}
        self._passed = sorted(by_span.values(), key=lambda profile: profile.span)
        self._distances = {name: list(values) for name, values in history.distances.items()}
        self._cache: dict[tuple[int, int], list[Distance]] = {}
        self._moving: set[str] = set()

    def go(self) -> Judged:
        found: list[Finding] = []
        usual = self._what_is_usual()
        latest: dict[str, float] = {}
        for profile in self._new:
            before = self._before(profile)
            said = [of_severity(finding, self._validation.severity) for finding in self._check(profile, before, usual)]
            findings = [finding for finding in said if finding is not None]
            found += findings
            latest = {}
            if before is not None:
                whole = [d for d in self._between(profile, before) if d.by is None]
                latest = {d.column: d.distance for d in sorted(whole, key=lambda d: d.distance)}
            if any(finding.severity is Severity.ERROR for finding in findings):
                continue
            self._remember(profile, before)
            self._passed.append(profile)
        return Judged(
            findings=found,
            history=self._to_remember(),
            checked=[profile.span for profile in self._new],
            moving=frozenset(self._moving),
            distances=latest,
        )

    def _check(self, profile: Profile, before: Profile | None, usual: Mapping[str, float]) -> Iterator[Finding]:
        yield from _row_count(profile, self._passed or list(self._replaced.values()), self._validation)
        earlier = [other for other in self._new if other.span < profile.span]
        yield from _duplicates(profile, [*self._passed, *earlier], self._validation)
        if before is None:
            return
        yield from _quarantine(profile, before)
        drifted = set()
        for finding in self._drift(profile, before, usual):
            drifted.add(finding.column)
            yield finding
        yield from self._slice_drift(profile, before, usual, except_for=drifted)
        yield from self._changed_values(profile, before)

    # --- the reference ---

    def _before(self, profile: Profile) -> Profile | None:
        """Returns the nearest span that passed, an earlier one if there is any."""
        detailed = [other for other in self._passed if other.detailed]
        earlier = [other for other in detailed if other.span < profile.span]
        if earlier:
            return max(earlier, key=lambda other: other.span)
        replaced = self._replaced.get(profile.span)
        if not detailed:
            return replaced if replaced is not None and replaced.detailed else None
        return min(detailed, key=lambda other: other.span)

    def _between(self, profile: Profile, before: Profile) -> list[Distance]:
        key = (profile.span, before.span)
        if key not in self._cache:
            self._cache[key] = [
                *comparison.of_columns(profile, before),
                *comparison.of_slices(profile, before),
            ]
        return self._cache[key]

    def _what_is_usual(self) -> dict[str, float]:
        """Returns twice the lower quartile of each column's distances from span to span, where there are enough.

        A bad span among others is two of the distances: one to it, one from it. The lower quartile is small as long as
        two spans in a row were alike.
        """
        distances = {name: list(values) for name, values in self._distances.items()}
        detailed = [profile for profile in (*self._passed, *self._new) if profile.detailed]
        for before, profile in itertools.pairwise(detailed):
            for name, column in profile.columns.items():
                if name in before.columns and comparison.moves_on(column, before.columns[name]):
                    self._moving.add(name)
            for name, value in _largest(self._between(profile, before)).items():
                distances.setdefault(name, []).append(value)
        usual = {
            name: 2.0 * sorted(values)[len(values) // 4] for name, values in distances.items() if len(values) >= _ENOUGH
        }
        limit = self._validation.max_drift or 1.0
        self._moving |= {name for name, value in usual.items() if "|" not in name and value > limit}
        return usual

    def _remember(self, profile: Profile, before: Profile | None) -> None:
        if before is None:
            return
        for name, value in _largest(self._between(profile, before)).items():
            self._distances[name] = [*self._distances.get(name, []), value][-_REMEMBERED:]

    def _to_remember(self) -> History:
        newest = max((profile.span for profile in self._passed if profile.detailed), default=None)
        profiles = [
            profile if profile.span == newest else profile.without_details()
            for profile in sorted(self._passed, key=lambda profile: profile.span)
        ]
        return History(profiles=profiles[-366:], distances=self._distances)

    # --- what changed ---

    def _drift(self, profile: Profile, before: Profile, usual: Mapping[str, float]) -> Iterator[Finding]:
        validation = self._validation
        for distance in _worst(d for d in self._between(profile, before) if d.by is None):
            labelled = distance.column == self._label
            threshold = validation.max_label_drift if labelled else validation.max_span_drift
            if threshold is None or not _far(distance, threshold, usual):
                continue
            key = "validation.max_label_drift" if labelled else "validation.max_span_drift"
            yield Finding(
                column=distance.column,
                check="label_drift" if labelled else "span_drift",
                severity=Severity.ERROR,
                splits=(),
                spans=(profile.span,),
                found=f"{distance.distance:.2f} away from span {before.span}: {distance.was} then, {distance.now} now",
                expected=f"at most {_allowed(distance, threshold, usual):.2f} ({key}, noise of sampling included)",
                action=f"Look at what delivers span {profile.span}; where the change is real, raise {key} for a run.",
            )

    def _slice_drift(
        self, profile: Profile, before: Profile, usual: Mapping[str, float], *, except_for: set[str | None]
    ) -> Iterator[Finding]:
        threshold = self._validation.max_slice_drift
        if threshold is None:
            return
        far = [
            distance
            for distance in self._between(profile, before)
            if distance.by is not None
            and distance.column not in except_for
            and distance.by not in except_for
            and _far(distance, threshold, usual)
        ]
        for distance in _worst(far):
            others = {(d.by, d.category) for d in far if d.column == distance.column}
            more = f" (and {len(others) - 1} more slices)" if len(others) > 1 else ""
            yield Finding(
                column=distance.column,
                check="slice_drift",
                severity=Severity.ERROR,
                splits=(),
                spans=(profile.span,),
                found=f"where {distance.by} is {distance.category!r}{more}, {distance.distance:.2f} away from span "
                f"{before.span}: {distance.was} then, {distance.now} now",
                expected=f"at most {_allowed(distance, threshold, usual):.2f} within a category "
                "(validation.max_slice_drift, noise of sampling included)",
                action=f"Look at what delivers these rows of span {profile.span}; where the change is real, raise "
                "validation.max_slice_drift for a run.",
                examples=(f"{distance.by}={distance.category}",),
            )

    def _changed_values(self, profile: Profile, before: Profile) -> Iterator[Finding]:
        share = self._validation.max_value_change
        if share is None:
            return
        changes = comparison.changed_values(profile, before, share=share)
        found = [change for change in changes if change[0] not in self._moving]
        for is_new in (True, False):
            for column in dict.fromkeys(name for name, _, _, new in found if new is is_new):
                values = [(value, part) for name, value, part, new in found if name == column and new is is_new]
                total = sum(part for _, part in values)
                yield _value_finding(
                    column, [value for value, _ in values], total, new=is_new, span=profile.span, before=before.span
                )


def _value_finding(column: str, values: Sequence[str], share: float, *, new: bool, span: int, before: int) -> Finding:
    count = f"{len(values)} value{'s' if len(values) > 1 else ''}"
    return Finding(
        column=column,
        check="new_values" if new else "vanished_values",
        severity=Severity.ERROR,
        splits=(),
        spans=(span,),
        found=f"{count} in {share:.2%} of the rows that span {before} does not have"
        if new
        else f"no row with {count} that had {share:.2%} of the rows of span {before}",
        expected="the same categories as before (validation.max_value_change)",
        action="Look whether these are errors; where they are right, set validation.severity of this check to warning."
        if new
        else "Look whether their rows were lost or quarantined; where they are gone for good, set validation.severity "
        "of this check to warning.",
        examples=tuple(repr(value) for value in values[:5]),
    )


def _largest(distances: Iterable[Distance]) -> dict[str, float]:
    """Returns the largest distance of each kind; one that sampling explains counts for nothing."""
    largest: dict[str, float] = {}
    for distance in distances:
        value = distance.distance if distance.excess > 0 else 0.0
        largest[distance.key] = max(value, largest.get(distance.key, 0.0))
    return largest


def _worst(distances: Iterable[Distance]) -> list[Distance]:
    """Keeps, of each column, the distance that sampling explains least; the worst column first."""
    worst: dict[str, Distance] = {}
    for distance in distances:
        known = worst.get(distance.column)
        if known is None or distance.excess > known.excess:
            worst[distance.column] = distance
    return sorted(worst.values(), key=lambda distance: -distance.excess)


def _allowed(distance: Distance, threshold: float, usual: Mapping[str, float]) -> float:
    return min(1.0, max(threshold, distance.noise, usual.get(distance.key, 0.0)))


def _far(distance: Distance, threshold: float, usual: Mapping[str, float]) -> bool:
    return distance.distance > max(threshold, distance.noise, usual.get(distance.key, 0.0))


# --- rows ------------------------------------------------------------------------------------------------------------


def _row_count(profile: Profile, passed: Sequence[Profile], validation: settings.Validation) -> Iterator[Finding]:
    factor = validation.max_rows_factor
    counts = [other.rows for other in passed if other.span < profile.span] or [other.rows for other in passed]
    if factor is None or not counts:
        return
    usual = statistics.median(counts)
    # Where the counts differ by their nature, half as much again as ever before is usual.
    factor = max(factor, 1.5 * max(max(counts) / max(usual, 1), usual / max(min(counts), 1)))
    few, many = usual / factor, usual * factor
    noise = 6.0 * max(usual, profile.rows) ** 0.5
    if few <= profile.rows <= many or abs(profile.rows - usual) <= noise:
        return
    yield Finding(
        column=None,
        check="span_rows",
        severity=Severity.ERROR,
        splits=(),
        spans=(profile.span,),
        found=f"{profile.rows:,} rows",
        expected=f"{few:,.0f} to {many:,.0f}: usual are {usual:,.0f} (validation.max_rows_factor)",
        action="Look whether the delivery was cut short or came twice; deliver the span again.",
    )


def _duplicates(profile: Profile, others: Iterable[Profile], validation: settings.Validation) -> Iterator[Finding]:
    most = validation.max_duplicate_share
    if most is None:
        return
    shares = {other.span: comparison.overlap(profile, other) for other in others if other.span != profile.span}
    same = {span: share for span, share in shares.items() if share > most}
    if not same:
        return
    span, share = max(same.items(), key=lambda item: item[1])
    whole = "the same rows as" if share >= 1.0 else f"about {share:.0%} of its rows also in"
    yield Finding(
        column=None,
        check="duplicate_span",
        severity=Severity.ERROR,
        splits=(),
        spans=(profile.span,),
        found=f"{whole} span {span}",
        expected=f"at most {most:.0%} of its rows in another span (validation.max_duplicate_share)",
        action=f"Deliver the right rows as span {profile.span}, or remove it.",
    )


def _quarantine(profile: Profile, before: Profile) -> Iterator[Finding]:
    """Finds many more lines in quarantine than before, though fewer than would stop ExampleGen."""
    lines = profile.rows + profile.quarantined
    share = profile.quarantined / lines if lines else 0.0
    usual = (before.quarantined + 1) / (before.rows + before.quarantined + 1)
    if profile.quarantined < 30 or share <= 5 * usual:
        return
    yield Finding(
        column=None,
        check="quarantine",
        severity=Severity.WARNING,
        splits=(),
        spans=(profile.span,),
        found=f"{profile.quarantined:,} lines in quarantine ({share:.2%}); span {before.span} had "
        f"{before.quarantined:,}",
        expected="about as many bad lines as before",
        action="Read the files in ExampleGen's quarantine folder; one kind of row may be missing from the data.",
    )
