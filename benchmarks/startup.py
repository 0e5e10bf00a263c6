"""What every run pays before its first node is at work, and what the imports of the libraries alone take.

    python -m benchmarks.startup

Wall time and processor time of fresh processes with a warm page cache, the medians of several.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from benchmarks import harness
from benchmarks.pipeline import OUT, ROOT

IMPORTS = ("tensorflow", "tfx.v1", "pipeline.pipeline")
"""The last one is what a run imports."""


def main(arguments: Sequence[str]) -> int:
    """Measures, prints the table and writes `benchmarks/out/startup.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description="The start of a run.")
    parser.add_argument("--repeat", type=int, default=3, help="processes of each kind; medians are told (default: 3)")
    options = parser.parse_args(arguments)
    turns = range(options.repeat)
    figures = []
    for name in IMPORTS:
        taken = [_timed([sys.executable, "-c", f"import {name}"], "") for _ in turns]
        figures += _both(f"import {name}", taken)
    with tempfile.TemporaryDirectory(prefix="evergreen-startup-") as folder:
        command = _command(Path(folder))
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        figures += _both("the runner to its first line", [_timed(command, "Run ") for _ in turns])
        figures += _both(
            "the runner to its first node at work", [_timed(command, "ExampleGen: running") for _ in turns]
        )
    print(harness.machine())
    print(harness.table(figures))
    harness.write(figures, OUT / "startup.json")
    return 0


def _command(folder: Path) -> list[str]:
    environment = folder / "environment.yaml"
    environment.write_text(yaml.safe_dump({"workspace": str(folder / "runs"), "registry": str(folder / "registry")}))
    command = [sys.executable, "local_runner.py", "--environment", str(environment)]
    return [*command, "--to", "ExampleGen", "--no-cache"]


def _timed(command: Sequence[str], line: str) -> tuple[float, float]:
    """Runs a process until it prints a line that begins with `line`, or to its end where that is empty.

    Returns:
        Seconds until then, and processor seconds of the whole process.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    seconds = 0.0
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for printed in process.stdout:
            if line and not seconds and printed.startswith(line):
                seconds = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode or bool(line) != bool(seconds):
        raise harness.Failed(f"{' '.join(command)} ended with {process.returncode}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds or time.monotonic() - began, spent


def _both(case: str, taken: Sequence[tuple[float, float]]) -> list[harness.Figure]:
    wall, processor = (harness.median(values) for values in zip(*taken, strict=True))
    return [
        harness.Figure(case=case, metric="seconds", unit="s", ours=wall, stock=None),
        harness.Figure(case=case, metric="processor time of the whole process", unit="s", ours=processor, stock=None),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
