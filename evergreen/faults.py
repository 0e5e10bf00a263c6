"""Failures of the machine in words: a full disk, a folder that may not be written, no memory left.

They reach us as OSError, as what TensorFlow, SQLite or Beam make of it, or in another library's RuntimeError: what all
of them keep is the operating system's own words.
"""

from __future__ import annotations

import re

from evergreen.errors import Problem
from evergreen.words import short

_FULL = re.compile(r"No space left on device|database or disk is full|Disk quota exceeded", re.IGNORECASE)
_FORBIDDEN = re.compile(r"Permission denied|Read-only file system|Operation not permitted|readonly database")
_NO_MEMORY = re.compile(r"Cannot allocate memory|std::bad_alloc|MemoryError|OOM when allocating")
_SHOWN = 300
_PATH = re.compile(r"/[^\s;:,'\"()\[\]]+")


def of_the_machine(failure: BaseException, *, place: str) -> Problem | None:
    """Tells what the machine refused; None where the failure is another one.

    Args:
        failure: what was raised.
        place: the folder that was worked in, where the failure names no path.
    """
    said = f"{type(failure).__name__}: {failure}"
    path = getattr(failure, "filename", None) or next(iter(_PATH.findall(said)), place)
    if _FULL.search(said):
        action = f"Make room there, in {place} and in the folder for temporary files (TMPDIR)."
        return Problem(where=str(path), found="no space left on the device", expected="room to write", action=action)
    if _FORBIDDEN.search(said):
        action = "Correct the permissions, or the path in the environment file or on the command line."
        found = "a place that this user may not write or read"
        return Problem(where=str(path), found=found, expected="one that may be", action=action)
    if _NO_MEMORY.search(said):
        action = "End other programs, take a larger machine, or make the batches and the window smaller."
        return Problem(where="this machine", found="no memory left", expected="enough for this step", action=action)
    if isinstance(failure, OSError):
        where = str(failure.filename or place)
        found = short(failure.strerror or str(failure) or type(failure).__name__, _SHOWN)
        action = "Correct the path or the machine; then give the command again."
        return Problem(where=where, found=found, expected="a place that can be read and written", action=action)
    return None
