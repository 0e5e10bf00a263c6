"""Processes that outlive the command that starts them, and are ended by their own ids and no other way.

A process has a file with its id and the moment of its start. The kernel gives ids away again: only who has both is
ours, and a file that is left of a machine that went down names nobody.

    processes.start(folder, "jobmanager", ["java", ...])     # folder/jobmanager.pid, folder/jobmanager.log
    processes.stop(folder, "jobmanager")
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from evergreen.files import write_whole

_PATIENCE = 10.0
"""Seconds that a process has to end by itself before it is killed."""


def start(folder: Path, name: str, command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> int:
    """Starts a process in a session of its own.

    Args:
        folder: gets `<name>.pid` and `<name>.log`; it exists.
        name: of the process.
        command: program and arguments.
        environment: variables added to this process's own.

    Returns:
        Its id.
    """
    with open(folder / f"{name}.log", "wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
    identity = {"pid": process.pid, "started": _started(process.pid)}
    write_whole(folder / f"{name}.pid", json.dumps(identity))
    return process.pid


def running(folder: Path, name: str) -> int | None:
    """Returns the id of the process `name` if it lives, and if it is still the one that was started."""
    try:
        identity = json.loads((folder / f"{name}.pid").read_text(encoding="utf-8"))
        pid = int(identity["pid"])
    except (OSError, ValueError, KeyError):
        return None
    started = _started(pid)
    return pid if started is not None and started == identity.get("started") else None


def stop(folder: Path, name: str) -> bool:
    """Ends the process `name` and waits until it is gone; kills it where it does not end by itself.

    Returns:
        Whether there was one.
    """
    pid = running(folder, name)
    if pid is not None:
        _end(pid)
    (folder / f"{name}.pid").unlink(missing_ok=True)
    return pid is not None


def names(folder: Path) -> list[str]:
    """Lists the processes that have a file, in the order of their starts."""
    files = sorted(folder.glob("*.pid"), key=lambda path: path.stat().st_mtime_ns)
    return [path.stem for path in files]


def _end(pid: int) -> None:
    try:
        # From here on the id cannot come to mean another process.
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for number, patience in ((signal.SIGTERM, _PATIENCE), (signal.SIGKILL, None)):
            signal.pidfd_send_signal(descriptor, number)
            if select.select([descriptor], [], [], patience)[0]:
                break
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)
    # Where it was started by this very process, nobody else takes note of its end.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _started(pid: int) -> str | None:
    """Returns when a process started, in ticks since the machine did; None when it is gone or waits to be noted."""
    try:
        # The program's name in parentheses may hold anything: the fields are counted from its end.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]
