"""The harness measures what it says: whole process trees, ratios in one direction, failures with their output."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import harness


def test_memory_counts_the_descendants(tmp_path: Path) -> None:
    # A child holds 200 MiB while its parent waits for it.
    child = "import hashlib; held = bytearray(b'x') * (200 * 2**20); hashlib.sha256(held)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"

    process = harness.run_measured([sys.executable, "-c", parent], cwd=tmp_path, log=tmp_path / "log")

    assert process.peak_memory_mb > 200


def test_a_failure_shows_what_the_command_said(tmp_path: Path) -> None:
    program = "import sys; print('no such span'); sys.exit(3)"
    with pytest.raises(harness.Failed, match=r"(?s)ended with 3.*no such span"):
        harness.run_measured([sys.executable, "-c", program], cwd=tmp_path, log=tmp_path / "log")


@pytest.mark.parametrize(
    ("ours", "stock", "lower", "ratio"),
    [
        (2.0, 8.0, True, 4.0),
        (8.0, 2.0, False, 4.0),
        (8.0, 2.0, True, 0.25),
        (None, 2.0, True, None),
        (1, None, True, None),
    ],
)
def test_a_ratio_above_one_says_that_ours_is_better(
    ours: float | None, stock: float | None, lower: bool, ratio: float | None
) -> None:
    figure = harness.Figure(case="c", metric="m", unit="s", ours=ours, stock=stock, lower_is_better=lower)
    assert figure.ratio == ratio


def test_the_file_and_the_table_say_the_same(tmp_path: Path) -> None:
    figures = [
        harness.Figure(case="ExampleGen", metric="seconds", unit="s", ours=2.5, stock=10.0),
        harness.Figure(case="Champion", metric="seconds", unit="s", ours=0.1, stock=None),
    ]

    harness.write(figures, tmp_path / "out" / "pipeline.json")

    records = json.loads((tmp_path / "out" / "pipeline.json").read_text(encoding="utf-8"))
    assert records == [
        {"case": "ExampleGen", "metric": "seconds", "unit": "s", "ours": 2.5, "stock": 10.0, "ratio": 4.0},
        {"case": "Champion", "metric": "seconds", "unit": "s", "ours": 0.1, "stock": None, "ratio": None},
    ]
    head, first, second = harness.table(figures).splitlines()
    assert head.split() == ["case", "metric", "ours", "stock", "ratio"]
    assert first.split() == ["ExampleGen", "seconds", "2.5", "s", "10", "s", "4.00x"]
    assert second.split() == ["Champion", "seconds", "0.1", "s", "-"]
