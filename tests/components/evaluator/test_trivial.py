"""The trivial baseline: the best constant of the train split, measured on the test split."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from components.evaluator import trivial


def test_regression_takes_mean_and_median_of_the_train_split() -> None:
    train, test = pa.array([0.0, 0.0, 9.0]), pa.array([1.0, 5.0])
    found = trivial.scores(train, test, metrics=["rmse", "mae"])
    assert found["rmse"] == pytest.approx(np.sqrt((2**2 + 2**2) / 2))  # mean 3
    assert found["mae"] == pytest.approx(3.0)  # median 0


def test_classes_take_the_shares_of_the_train_split() -> None:
    train, test = pa.array(["a", "a", "a", "b"]), pa.array(["a", "b"])
    found = trivial.scores(train, test, metrics=["log_loss", "accuracy", "auc"])
    assert found["log_loss"] == pytest.approx(-(np.log(0.75) + np.log(0.25)) / 2)
    assert found["accuracy"] == 0.5
    assert found["auc"] == 0.5


def test_a_class_that_only_the_test_split_has_costs_much_but_not_infinity() -> None:
    found = trivial.scores(pa.array([1, 1]), pa.array([2]), metrics=["log_loss", "accuracy"])
    assert found["log_loss"] == pytest.approx(-np.log(1e-7))
    assert found["accuracy"] == 0.0
