"""Epochs, steps and executions go into one another, and limits hold."""

from __future__ import annotations

import pytest

from evergreen import settings
from trainer import train


@pytest.mark.parametrize(
    ("epochs", "steps", "limit", "expected"),
    [
        (10, 109, None, (10, 109, 109)),
        (2, 1000, None, (2, 1000, 125)),
        (3, 1, None, (3, 1, 1)),
        (10, 109, 50, (1, 50, 50)),
        (10, 100, 250, (3, 83, 83)),
        (10, 109, 10**9, (10, 109, 109)),
        (1, 131, None, (1, 130, 65)),
    ],
)
def test_plan(epochs: int, steps: int, limit: int | None, expected: tuple[int, int, int]) -> None:
    plan = train.make_plan(settings.Training(epochs=epochs, max_steps=limit), steps, None)
    assert (plan.epochs, plan.steps_per_epoch, plan.steps_per_execution) == expected
    assert plan.steps_per_epoch % plan.steps_per_execution == 0
    assert plan.steps <= min(epochs * steps, limit or 10**9)


def test_the_limit_of_tfx_holds_too() -> None:
    assert train.make_plan(settings.Training(max_steps=50), 109, 20).steps == 20
    assert train.make_plan(settings.Training(max_steps=20), 109, 50).steps == 20
