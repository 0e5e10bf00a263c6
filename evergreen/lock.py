"""One process at a time: an advisory lock that dies with its holder, and says who holds it.

with exclusive(folder / ".lock", doing="python local_runner.py"):
    ...
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from evergreen.errors import Busy, Problem


@contextlib.contextmanager
def exclusive(path: Path, *, doing: str) -> Iterator[None]:
    """Holds the lock file `path` while the block runs.

    The kernel frees the lock when the process ends, however it ends; the file itself stays and is never removed, for
    a process that waits on a removed file would hold a lock that nobody else sees.

    Args:
        path: the lock file; its folder is made where it is missing.
        doing: what a refused process is told about the holder.

    Raises:
        Busy: when another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy([_holder(path)]) from error
        file.truncate(0)
        now = datetime.datetime.now(tz=datetime.timezone.utc).isoformat(timespec="seconds")
        file.write(json.dumps({"pid": os.getpid(), "since": now, "doing": doing}))
        file.flush()
        yield


def _holder(path: Path) -> Problem:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        found = f"a run since {holder['since']} (process {holder['pid']}: {holder['doing']})"
    except (OSError, ValueError, KeyError):
        found = "a run that has just started"
    return Problem(
        where=str(path.parent),
        found=found,
        expected="no other run in this workspace",
        action="Wait for it to end, or stop that process; nothing was done here.",
    )
