"""The configuration's own checks, held against each span by itself: a bad day does not hide in a good month."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from components.example_validator import conditions
from components.example_validator.conditions import Mask
from components.example_validator.findings import Finding, Severity
from evergreen import expressions, settings
from evergreen.errors import Problem

_EXAMPLES = 3
_CHECK = "custom"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """A check with its expressions read."""

    said: settings.CustomCheck
    position: int
    parts: Mapping[str, expressions.Expression]
    """By key: `row` or `column`, and `where`."""

    @property
    def condition(self) -> expressions.Expression:
        """What has to be so."""
        return self.parts["row" if "row" in self.parts else "column"]

    @property
    def name(self) -> str:
        """What to call it."""
        where = self.parts.get("where")
        return self.said.name or self.condition.text + (f" where {where.text}" if where else "")

    @property
    def columns(self) -> list[str]:
        """The columns that it reads."""
        return list(dict.fromkeys(name for part in self.parts.values() for name in part.columns))


def read(checks: Sequence[settings.CustomCheck], *, types: Mapping[str, str]) -> tuple[list[Check], list[Problem]]:
    """Reads the expressions, against the schema that the run has.

    Args:
        checks: as the configuration has them.
        types: type of each column as the schema names it.

    Returns:
        The checks that can be held, and a problem for each mistake in the others.
    """
    sound, problems = [], []
    for position, check in enumerate(checks):
        parts = {}
        for key, kind, text in check.expressions():
            try:
                parts[key] = expressions.parse(text, kind, types=types)
            except expressions.ExpressionError as error:
                problems.append(
                    Problem(
                        where=f"validation.checks.{position}.{key}, position {error.position}",
                        found=error.found,
                        expected=error.expected,
                        action=error.action,
                    )
                )
                break
        else:
            sound.append(Check(said=check, position=position, parts=parts))
    return sound, problems


def hold(checks: Iterable[Check], table: pa.Table, *, span: int | None, splits: tuple[str, ...]) -> Iterator[Finding]:
    """Holds the checks against the rows of one span.

    Args:
        checks: what `read` gave.
        table: the columns that they read.
        span: the span's number; None where the spans cannot be told apart.
        splits: the splits that the rows are of, to be named where there is no span.
    """
    for check in checks:
        finding = _of_rows(check, table) if "row" in check.parts else _of_column(check, table)
        if finding is not None:
            yield dataclasses.replace(
                finding, spans=() if span is None else (span,), splits=splits if span is None else ()
            )


def _of_rows(check: Check, table: pa.Table) -> Finding | None:
    failing = conditions.rows_that_fail(check.condition, table)
    looked_at = table.num_rows
    if "where" in check.parts:
        inside = conditions.rows_that_hold(check.parts["where"], table)
        failing &= inside
        looked_at = int(inside.sum())
    count = int(failing.sum())
    if not count or count <= check.said.max_failing * looked_at:
        return None
    return _finding(
        check,
        found=f"{count:,} of {looked_at:,} rows ({count / looked_at:.2%}) that break it",
        expected=f"{check.condition.text} in "
        + ("every row" if not check.said.max_failing else f"all rows but {check.said.max_failing:.2%}")
        + _where(check),
        examples=_examples(check, table, failing),
    )


def _of_column(check: Check, table: pa.Table) -> Finding | None:
    if "where" in check.parts:
        inside = conditions.rows_that_hold(check.parts["where"], table)
        table = table.filter(pa.array(inside))
    if conditions.holds(check.condition, table) is not False:
        return None
    values = conditions.gathered_values(check.condition, table)
    return _finding(
        check,
        found=", ".join(f"{words} = {_number(value)}" for words, value in values) + f" over {table.num_rows:,} rows",
        expected=check.condition.text + _where(check),
        examples=(),
    )


def _finding(check: Check, *, found: str, expected: str, examples: tuple[str, ...]) -> Finding:
    return Finding(
        column=", ".join(check.condition.columns) or None,
        check=f"{_CHECK}: {check.name}",
        severity=Severity(check.said.severity),
        splits=(),
        found=found,
        expected=f"{expected} (validation.checks.{check.position})",
        action="Correct the rows at the source and deliver the span again, or correct the check.",
        examples=examples,
    )


def _where(check: Check) -> str:
    return f" where {check.parts['where'].text}" if "where" in check.parts else ""


def _examples(check: Check, table: pa.Table, failing: Mask) -> tuple[str, ...]:
    rows = table.select(check.columns).take(pa.array(np.flatnonzero(failing)[:_EXAMPLES])).to_pylist()
    return tuple(" ".join(f"{name}={_number(value)}" for name, value in row.items()) for row in rows)


def _number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)
