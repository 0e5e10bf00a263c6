"""How the benchmark of tables measures: rows' parts of a metric, and when a difference is more than noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from benchmarks.tables import _OF_LOSSES, TABLES, Answers, difference, write_table


@pytest.fixture
def classes() -> Answers:
    random = np.random.default_rng(1)
    numbers = random.dirichlet([1.0, 1.0, 1.0], 300)
    return Answers(label=random.integers(0, 3, 300), numbers=numbers)


def test_metrics_are_those_of_scikit_learn(classes: Answers):
    accuracy = _OF_LOSSES["accuracy"](classes.losses("accuracy"))
    log_loss = _OF_LOSSES["log_loss"](classes.losses("log_loss"))
    assert accuracy == pytest.approx(metrics.accuracy_score(classes.label, classes.numbers.argmax(axis=1)))
    assert log_loss == pytest.approx(metrics.log_loss(classes.label, classes.numbers))
    numbers = Answers(label=np.array([1.0, 2.0]), numbers=np.array([1.0, 5.0]))
    assert _OF_LOSSES["rmse"](numbers.losses("rmse")) == pytest.approx(np.sqrt(4.5))


def test_a_real_difference_is_told_from_noise():
    random = np.random.default_rng(2)
    label = random.normal(size=400)
    good, same, bad = (Answers(label=label, numbers=label + random.normal(0, noise, 400)) for noise in (1.0, 1.0, 2.0))
    low, high = difference(good, same, "rmse")
    assert low < 0.0 < high
    low, high = difference(bad, good, "rmse")
    assert 0.0 < low < 1.0 < high


@pytest.mark.parametrize("name", TABLES)
def test_bundled_tables_are_written_with_their_label(name: str, tmp_path: Path):
    lines = write_table(name, tmp_path).read_text().splitlines()
    assert lines[0].endswith("target")
    assert len(lines) > 100
