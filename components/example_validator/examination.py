"""Reads what the statistics do not tell: the rows of new spans, to be profiled, and those that the conditions look at.

Only what is needed is read: spans that the serving model was trained on are remembered in its bundle.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from tensorflow_metadata.proto.v0 import schema_pb2

from components.example_validator import custom as custom_checks
from components.example_validator import profile, rows
from components.example_validator.findings import Finding
from components.example_validator.profile import Profile
from components.example_validator.rows import Source
from components.example_validator.spans import History, Judged, is_known, judge
from evergreen import progress, settings
from evergreen.errors import BadInput

MOST_ROWS = 50_000
"""Rows of a span that a profile is made of; of a larger span so many are drawn."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Where the rows are."""

    uri: str
    """The folder of the Examples artifact."""
    splits: Sequence[str]
    schema: schema_pb2.Schema

    @property
    def types(self) -> dict[str, str]:
        """Type of each column as the schema names it."""
        return {feature.name: schema_pb2.FeatureType.Name(feature.type) for feature in self.schema.feature}


def spans(table: Table, *, history: History, validation: settings.Validation, label: str) -> Judged | None:
    """Holds every new span against the spans before it; None where the examples do not say which spans they are of.

    Args:
        table: where the rows are.
        history: what is remembered of the spans that the serving model was trained on.
        validation: the thresholds.
        label: the raw label column.
    """
    found = [source for source in rows.sources(table.uri) if source.shards and source.rows]
    if not found:
        return None
    profiles = []
    for source in found:
        remembered = next((known for known in history.profiles if _is(known, source)), None)
        if remembered is not None and not _is_needed(source, found, history):
            profiles.append(remembered)
            continue
        progress.report(f"span {source.span}")
        read = rows.read(table.uri, source, splits=table.splits, schema=table.schema, most=MOST_ROWS)
        profiles.append(profile.of_table(read, source=source))
    return judge(profiles, history=history, validation=validation, label=label)


def _is(known: Profile, source: Source) -> bool:
    return (known.span, known.version, known.rows, known.size) == (
        source.span,
        source.version,
        source.rows,
        source.size,
    )


def _is_needed(source: Source, found: Sequence[Source], history: History) -> bool:
    """Tells whether a span that is known will be compared with a new one and its details are not remembered."""
    if any(known.detailed and _is(known, source) for known in history.profiles):
        return False
    after = [other for other in found if other.span > source.span]
    return bool(after) and not is_known(after[0], history)


def custom(table: Table, checks: Sequence[settings.CustomCheck]) -> Iterator[Finding]:
    """Holds the configuration's own checks against every span by itself (all rows, where spans cannot be told apart).

    Raises:
        BadInput: with every mistake in an expression.
    """
    sound, problems = custom_checks.read(checks, types=table.types)
    if problems:
        raise BadInput(problems)
    if not sound:
        return
    columns = list(dict.fromkeys(name for check in sound for name in check.columns))
    found = rows.sources(table.uri)
    apart = bool(found) and all(source.shards for source in found if source.rows)
    for source in [source for source in found if source.rows] if apart else [None]:
        read = rows.read(table.uri, source, splits=table.splits, schema=table.schema, columns=columns)
        span = source.span if source is not None else None
        yield from custom_checks.hold(sound, read, span=span, splits=tuple(table.splits))
