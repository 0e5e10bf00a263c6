"""Which code this is: the revision that a build wrote down, or git's word for the working tree."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The folder that holds Evergreen's packages."""


def code_revision() -> str:
    """Returns the git revision, with ``-dirty`` where the working tree differs, or ``unknown``.

    An image has no git: its build writes the revision into a file `REVISION` beside the packages.
    """
    written = ROOT / "REVISION"
    if written.is_file():
        return written.read_text(encoding="utf-8").strip()
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip()
