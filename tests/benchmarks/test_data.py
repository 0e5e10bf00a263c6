"""What the figures of the data nodes are made of."""

from __future__ import annotations

import pytest

from benchmarks import data


def _side(*, seconds: float, trainer: float) -> data.Side:
    nodes = {name: {"seconds": seconds, "peak_memory_mb": 900.0} for name in data.NODES}
    nodes["Trainer"] = {"seconds": 5.0, "peak_memory_mb": trainer}
    return data.Side(nodes=nodes, seconds=50.0, run_seconds=55.0, cpu_seconds=60.0, peak_memory_mb=trainer)


def test_the_cost_is_the_line_through_both_runs() -> None:
    fixed, a_row = data.cost("Transform", 3.0, 30.0, rows=3_000_000)
    assert fixed.ours == pytest.approx(0.0, abs=1e-9)
    assert a_row.ours == pytest.approx(10.0)


def test_memory_is_told_without_training_and_with_it() -> None:
    small, large = _side(seconds=3.0, trainer=1000.0), _side(seconds=30.0, trainer=2000.0)
    found = {figure.case: figure.ours for figure in data.growth(small, large, rows=3_000_000) if figure.unit == "x"}
    assert found["DAG without training, 3,000,000"] == pytest.approx(1.0)
    assert found["whole run with training, 3,000,000"] == pytest.approx(2.0)
