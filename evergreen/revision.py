"""Which code this is: the revision that a build wrote down, or git's word for the working tree; and which libraries."""

from __future__ import annotations

import importlib.metadata
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The folder that holds Evergreen's packages."""
LIBRARIES = (
    "tfx",
    "tensorflow",
    "keras",
    "tensorflow-transform",
    "tensorflow-data-validation",
    "tensorflow-model-analysis",
    "tfx-bsl",
    "apache-beam",
    "pyarrow",
    "numpy",
    "protobuf",
)
"""The libraries whose versions decide what a node computes."""


def code_revision() -> str:
    """Returns the git revision, with ``-dirty`` where the working tree differs, or ``unknown``.

    An image has no git: its build writes the revision into a file `REVISION` beside the packages.
    """
    written = ROOT / "REVISION"
    if written.is_file():
        return written.read_text(encoding="utf-8").strip()
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip()


def library_versions() -> dict[str, str]:
    """Returns the installed version of each of `LIBRARIES`."""
    return {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str:
    """Returns a library's version; TensorFlow is another distribution in an image for machines without GPUs."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return importlib.metadata.version(f"{name}-cpu")
