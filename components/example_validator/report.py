"""`report.json`: what the data gate found, for people and programs; written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from tfx.dsl.io import fileio

from components.example_validator.findings import Finding, Severity
from evergreen.words import counted

REPORT_FILE = "report.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that the gate found."""

    findings: Sequence[Finding]
    splits: Mapping[str, Mapping[str, int]]
    """Rows and columns of each split."""
    drift: Mapping[str, float]
    """Distance of each column of the train split from the champion's training statistics; empty without a champion."""
    champion_version: int | None = None
    checked_spans: Sequence[int] = ()
    """The spans that were held against the ones before them."""
    span_drift: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Distance of each column of the newest span from the span before it."""
    moving: Sequence[str] = ()
    """Columns that change from span to span by their nature; drift says nothing of them."""

    @property
    def errors(self) -> list[Finding]:
        """The findings that stop the run."""
        return [finding for finding in self.findings if finding.severity is Severity.ERROR]

    @property
    def warnings(self) -> list[Finding]:
        """The findings that do not."""
        return [finding for finding in self.findings if finding.severity is Severity.WARNING]

    def as_json(self) -> dict[str, Any]:
        """Returns the report as a JSON object."""
        return {
            "anomalies": len(self.findings),
            "errors": [finding.as_json() for finding in self.errors],
            "warnings": [finding.as_json() for finding in self.warnings],
            "splits": {split: dict(figures) for split, figures in self.splits.items()},
            "drift": dict(self.drift),
            "champion_version": self.champion_version,
            "checked_spans": list(self.checked_spans),
            "span_drift": {name: round(value, 4) for name, value in self.span_drift.items()},
            "moving": list(self.moving),
        }

    def write(self, folder: str) -> None:
        """Writes the report into `folder`, on any filesystem that TFX opens."""
        write_json(os.path.join(folder, REPORT_FILE), self.as_json())

    def figure(self) -> str:
        """Returns the telling figure: how much was found, and the largest drift."""
        text = f"{counted(len(self.errors), 'error')}, {counted(len(self.warnings), 'warning')}"
        if not self.drift:
            return text
        column = max(self.drift, key=lambda name: self.drift[name])
        return f"{text}; largest drift {self.drift[column]:.3f} ({column})"


def write_json(path: str, document: Mapping[str, Any]) -> None:
    """Writes a JSON object whole or not at all."""
    staged = f"{path}.partial"
    with fileio.open(staged, "w") as file:
        file.write(json.dumps(document, indent=1) + "\n")
    fileio.rename(staged, path, overwrite=True)
