"""Tells a fault from a pipeline that was compiled with other code than the image has, which no retry removes.

The compiled step carries the digest of the code that its nodes run. Where that is not the image's, and a node ends with
an error as code makes it that does not fit together (a setting, a module, an input or output that the other side does
not know), the reason is the mismatch.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

from evergreen.errors import BadInput, Problem
from evergreen.revision import ROOT, code_revision

PACKAGES = ("components", "evergreen", "trainer", "transform")
"""What runs in the nodes."""


class OutputsMissingError(Exception):
    """The executor ended without an error and left a declared output empty."""


_UNFIT = (AttributeError, ImportError, KeyError, OutputsMissingError, TypeError)


def code_digest(root: Path = ROOT) -> str:
    """Returns the sha256 of the modules that run in the nodes, 16 hexadecimal digits of it.

    Args:
        root: the folder that the packages lie in.
    """
    digest = hashlib.sha256()
    for path in sorted(path for package in PACKAGES for path in (root / package).rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def explained(errors: Iterable[BaseException], *, compiled_with: str, task: str) -> BadInput | None:
    """Returns the mismatch that is behind an error; none where it is a fault of another kind.

    Args:
        errors: the error and those that it was raised from.
        compiled_with: the `code_digest` of the compiler; "" where it said none.
        task: the node.
    """
    unfit = next((error for error in errors if isinstance(error, (*_UNFIT, *_validation_errors()))), None)
    if unfit is None or compiled_with == (ours := code_digest()):
        return None
    return BadInput(
        [
            Problem(
                where=task,
                found=f"{type(unfit).__name__}: {' '.join(str(unfit).split())[:600]}; the pipeline was compiled with "
                f"another revision than the image's (code {compiled_with or 'unknown'}, the image's {ours} of revision "
                f"{code_revision()})",
                expected="a pipeline that was compiled with the code of its image",
                action="Build the image and compile again.",
            )
        ]
    )


def _validation_errors() -> tuple[type[BaseException], ...]:
    """Returns the error of settings that are not known; nobody can have raised it where pydantic is not loaded."""
    pydantic = sys.modules.get("pydantic_core")
    return () if pydantic is None else (pydantic.ValidationError,)
