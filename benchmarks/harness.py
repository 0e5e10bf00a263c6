"""Measuring a process from outside, and writing down ours beside stock: one table, one JSON file.

    process = run_measured([sys.executable, "local_runner.py"], cwd=root, log=log)
    figures = [Figure(case="pipeline", metric="seconds", unit="s", ours=process.seconds, stock=120.0)]
    print(table(figures))
    write(figures, path)

A ratio above 1 says that ours is better, whatever the direction of the metric.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

MEBIBYTE = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """One metric of one case, ours beside stock; None where a side does not have it."""

    case: str
    metric: str
    unit: str
    ours: float | None
    stock: float | None
    lower_is_better: bool = True

    @property
    def ratio(self) -> float | None:
        """How many times better ours is (above 1: better), or None where one side is missing or zero."""
        if not self.ours or not self.stock:
            return None
        return self.stock / self.ours if self.lower_is_better else self.ours / self.stock

    def as_json(self) -> dict[str, str | float | None]:
        """Returns the record of the benchmark file."""
        rounded = {
            name: None if value is None else round(value, 4)
            for name, value in (("ours", self.ours), ("stock", self.stock), ("ratio", self.ratio))
        }
        return {"case": self.case, "metric": self.metric, "unit": self.unit, **rounded}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Process:
    """What a process and all that it started took."""

    seconds: float
    peak_memory_mb: float
    """Largest sum of the resident memory of the process and its descendants, in MiB, sampled 20 times a second. Pages
    that several processes share count in each."""


class Failed(RuntimeError):
    """A measured command did not do what it should; the message ends with its output."""


def run_measured(
    command: Sequence[str], *, cwd: Path, log: Path, environment: Mapping[str, str] | None = None
) -> Process:
    """Runs a command to its end and measures time and memory, its descendants' included.

    Args:
        command: program and arguments.
        cwd: the folder it runs in.
        log: file that gets its output.
        environment: variables added to this process's own.

    Raises:
        Failed: when it exits with anything but 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        started = time.monotonic()
        child = subprocess.Popen(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
        sampler = _Sampler(child.pid)
        sampler.start()
        try:
            status = child.wait()
        finally:
            seconds = time.monotonic() - started
            sampler.stop()
            child.kill()
    if status != 0:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:])
        raise Failed(f"{' '.join(map(str, command))} ended with {status}; {log} ends with:\n{tail}")
    return Process(seconds=seconds, peak_memory_mb=sampler.peak / MEBIBYTE)


class _Sampler(threading.Thread):
    """Keeps the largest resident memory of a process tree that it has seen."""

    def __init__(self, pid: int, *, interval: float = 0.05) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._pid = pid
        self._interval = interval
        self._stopped = threading.Event()

    def run(self) -> None:
        before: set[int] = set()
        while not self._stopped.wait(self._interval):
            pids = set(_tree(self._pid))
            # A process between fork and exec shows its parent's memory as its own: it counts once it has lived a while.
            self.peak = max(self.peak, sum(_resident(pid) for pid in pids & before))
            before = pids

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def _tree(pid: int) -> list[int]:
    """Lists a process and its descendants, as /proc shows them now."""
    pids, found = [pid], 0
    while found < len(pids):
        # A process or a thread may end while it is looked at.
        with contextlib.suppress(OSError):
            for children in Path(f"/proc/{pids[found]}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    pids.extend(map(int, children.read_text(encoding="ascii").split()))
        found += 1
    return pids


def _resident(pid: int) -> int:
    """Returns the resident memory of one process in bytes, 0 when it has gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def median(values: Iterable[float | None]) -> float | None:
    """Returns the median of the values that are there, or None when none is."""
    present = [value for value in values if value is not None]
    return statistics.median(present) if present else None


def table(figures: Sequence[Figure]) -> str:
    """Renders figures as a table for people, one row each."""
    head = ("case", "metric", "ours", "stock", "ratio")
    rows = [
        (
            figure.case,
            figure.metric,
            _cell(figure.ours, figure.unit),
            _cell(figure.stock, figure.unit),
            "" if figure.ratio is None else f"{figure.ratio:.2f}x",
        )
        for figure in figures
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    # Names to the left, numbers to the right.
    return "\n".join(
        "  ".join(cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in [head, *rows])
    )


def _cell(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.4g} {unit}".rstrip()


def write(figures: Sequence[Figure], path: Path) -> None:
    """Writes the figures as the JSON list that later runs are compared with; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps([figure.as_json() for figure in figures], indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def machine() -> str:
    """Says in one line on what it was measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"
