"""What a check of the data hands over: a finding for each thing that is wrong, one for several splits."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evergreen.errors import Problem


class Severity(str, enum.Enum):
    """What a finding does to the run."""

    ERROR = "error"
    """The run stops before anything is trained."""
    WARNING = "warning"
    """The run goes on; the finding is reported."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing about the data that is not as it should be."""

    column: str | None
    """The raw column; None where the finding is about the table."""
    check: str
    """Stable name of the check, for example `range` or `drift`."""
    severity: Severity
    splits: tuple[str, ...]
    """Where it was seen; `found` and `examples` are those of the first."""
    found: str
    expected: str
    action: str
    examples: tuple[str, ...] = ()
    """Values that show it, where the statistics hold them."""
    spans: tuple[int, ...] = ()
    """The spans that it is about; empty where it is about the splits of the whole window."""

    @property
    def place(self) -> str:
        """Where it was seen, in words."""
        if self.spans:
            return f"{'span' if len(self.spans) == 1 else 'spans'} {', '.join(map(str, self.spans))}"
        return f"{'split' if len(self.splits) == 1 else 'splits'} {', '.join(self.splits)}"

    def problem(self) -> Problem:
        """Returns the finding as a problem to tell to a person."""
        place = f"column {self.column!r}" if self.column else "the data"
        found = self.found + (f" (for example {', '.join(self.examples)})" if self.examples else "")
        return Problem(
            where=f"{place}, {self.place}",
            found=found,
            expected=self.expected,
            action=self.action,
        )

    def as_json(self) -> dict[str, Any]:
        """Returns the finding as a JSON object."""
        return {**dataclasses.asdict(self), "severity": self.severity.value}


def of_severity(finding: Finding, wanted: Mapping[Any, str]) -> Finding | None:
    """Gives a finding the severity that the configuration wants of its check; None where it wants none of it.

    Args:
        finding: as the check made it.
        wanted: "error", "warning" or "off" by the check's name; `rows_eval` goes by `rows`.
    """
    name = "rows" if finding.check.startswith("rows") else finding.check
    severity = wanted.get(name)
    if severity == "off":
        return None
    return finding if severity is None else dataclasses.replace(finding, severity=Severity(severity))


def merge(findings: Iterable[Finding]) -> Sequence[Finding]:
    """Makes one finding of what the same check says of the same column in several splits, errors first.

    Nobody wants to read three times that a column is missing. The words are those of the first split; the severest
    counts.
    """
    merged: dict[tuple[str | None, str], Finding] = {}
    for finding in findings:
        key = (finding.column, finding.check)
        known = merged.get(key)
        if known is None:
            merged[key] = finding
            continue
        severest = Severity.ERROR if Severity.ERROR in (known.severity, finding.severity) else Severity.WARNING
        splits = tuple(dict.fromkeys((*known.splits, *finding.splits)))
        spans = tuple(dict.fromkeys((*known.spans, *finding.spans)))
        merged[key] = dataclasses.replace(known, splits=splits, spans=spans, severity=severest)
    return sorted(merged.values(), key=lambda finding: finding.severity is not Severity.ERROR)
