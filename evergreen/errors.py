"""Errors as objects: what was found where, what was expected, what to do; and the exit code of each kind.

A mistake of the user's ends as one `BadInput` that carries every problem found, a gate that stops a run as one
`GateRefusal`. Anything else that escapes is a fault of ours or of the machine's. The command line turns the kind into
an exit code, so that a scheduler can tell "fix the file" from "look at the model" from "try again".

    raise BadInput([Problem(where="data.csv, line 7", found="3 fields", expected="5 fields", action="repair the line")])
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class ExitCode(enum.IntEnum):
    """What a process of Evergreen tells its caller."""

    OK = 0
    """The run did what was asked (an unchanged run that did no work included)."""
    FAULT = 1
    """Neither the input nor a gate: a bug, a full disk, a lost connection. Worth a retry."""
    BAD_INPUT = 2
    """The command line, the configuration or the data: repair it; a retry does not help."""
    REFUSED = 3
    """A gate (data, model, serving) stopped the candidate; the registry is untouched."""
    BUSY = 4
    """Another run holds the workspace; nothing was done."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C or SIGTERM; the same command resumes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong, in words that a person can act on."""

    where: str
    """The file, line, key, column or option."""
    found: str
    expected: str
    action: str
    """What to do about it."""

    def __str__(self) -> str:
        """Renders the problem on one line."""
        return f"{self.where}: found {self.found}; expected {self.expected}. {self.action}"


class EvergreenError(Exception):
    """Base of the errors that are told to the user without a traceback."""

    exit_code = ExitCode.FAULT

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Keeps every problem; at least one is required.

        Raises:
            ValueError: when `problems` is empty, for an error that says nothing helps nobody.
        """
        self.problems: Sequence[Problem] = tuple(problems)
        if not self.problems:
            raise ValueError("an error needs at least one problem")
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles by problems, so that the error survives a worker's process boundary."""
        return (type(self), (self.problems,))


class BadInput(EvergreenError):
    """The user's configuration, command line or data cannot be used."""

    exit_code = ExitCode.BAD_INPUT


class GateRefusal(EvergreenError):
    """A gate stopped the run; `problems` holds every reason."""

    exit_code = ExitCode.REFUSED

    def __init__(self, problems: Iterable[Problem], *, report: Mapping[str, Any] | None = None) -> None:
        """Keeps every problem, and the gate's report: what a node that fails has written is removed with it."""
        super().__init__(problems)
        self.report = report

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the report beside the problems."""
        return (_refusal, (self.problems, self.report))


def _refusal(problems: Sequence[Problem], report: Mapping[str, Any] | None) -> GateRefusal:
    return GateRefusal(problems, report=report)


class Busy(EvergreenError):
    """Another process is at work on the same thing."""

    exit_code = ExitCode.BUSY
