"""The verdict as a pure function: each reason alone, all together, and what is blessed where little is configured."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from components.evaluator import verdict
from evergreen import settings

RMSE = settings.Evaluation(metrics=["rmse"], tolerated_loss=0.1)
ACCURACY = settings.Evaluation(metrics=["accuracy"], tolerated_loss=0.1)
GOOD = verdict.Measured(
    candidate={"rmse": 1.0}, champion=None, trivial={"rmse": 5.0}, failures=[], rows=10, champion_version=None
)


def _with(**changes: object) -> verdict.Measured:
    return dataclasses.replace(GOOD, **changes)


def test_without_bounds_and_champion_a_candidate_that_beats_the_trivial_baseline_is_blessed() -> None:
    assert verdict.judge(GOOD, RMSE).blessed


def test_not_better_than_trivial_is_refused_only_where_it_is_asked_for() -> None:
    equal = _with(candidate={"rmse": 5.0})
    judged = verdict.judge(equal, RMSE)
    assert not judged.blessed
    assert "best constant answer" in judged.reasons[0].found
    assert verdict.judge(equal, RMSE.model_copy(update={"beat_trivial": False})).blessed


@pytest.mark.parametrize(
    ("evaluation", "candidate", "champion", "blessed"),
    [
        (RMSE, 1.09, 1.0, True),
        (RMSE, 1.11, 1.0, False),
        (RMSE, 0.5, 1.0, True),
        (RMSE, 0.0, 0.0, True),  # TFMA divides by the champion's metric and refuses this one
        (RMSE, 0.1, 0.0, False),
        (ACCURACY, 0.82, 0.9, True),
        (ACCURACY, 0.80, 0.9, False),
        (ACCURACY, 0.95, 0.9, True),
        (ACCURACY, 0.6, 0.0, True),
    ],
)
def test_champion(evaluation: settings.Evaluation, candidate: float, champion: float, blessed: bool) -> None:
    metric = evaluation.metrics[0]
    measured = _with(
        candidate={metric: candidate},
        champion={metric: champion},
        champion_version=4,
        trivial={metric: 5.0 if metric == "rmse" else 0.5},
    )
    judged = verdict.judge(measured, evaluation)
    assert judged.blessed is blessed
    if not blessed:
        assert "worse than the champion" in judged.reasons[0].found
        assert "(version 4)" in judged.reasons[0].found
        assert "10.0% worse (evaluation.tolerated_loss)" in judged.reasons[0].expected


def test_a_bound_says_metric_value_limit_and_slice() -> None:
    failures = [
        verdict.Failure(metric="rmse", slice="", value=1.5, lower=None, upper=1.2, message=""),
        verdict.Failure(metric="rmse", slice="weekday = 3", value=2.5, lower=None, upper=1.2, message=""),
    ]
    bounded = settings.Evaluation(metrics=["rmse"], bounds={"rmse": {"max": 1.2}})
    whole, sliced = verdict.judge(_with(candidate={"rmse": 1.5}, failures=failures), bounded).reasons
    assert whole.where == "rmse on the test split"
    assert whole.found == "1.5"
    assert whole.expected == "at most 1.2 (evaluation.bounds.rmse)"
    assert sliced.where == "rmse in the slice weekday = 3 of the test split"


def test_no_number_is_refused_whatever_is_configured_and_said_once() -> None:
    failures = [verdict.Failure(metric="rmse", slice="", value=math.nan, lower=None, upper=1.2, message="")]
    measured = _with(candidate={"rmse": math.nan}, champion={"rmse": 1.0}, failures=failures)
    judged = verdict.judge(measured, RMSE.model_copy(update={"beat_trivial": False}))
    assert [reason.found for reason in judged.reasons] == ["no number"]
    assert judged.as_json()["metrics"]["candidate"] == {"rmse": None}


def test_all_reasons_are_told_together_and_written_whole(tmp_path: Path) -> None:
    failures = [verdict.Failure(metric="rmse", slice="", value=9.0, lower=None, upper=1.2, message="")]
    judged = verdict.judge(_with(candidate={"rmse": 9.0}, champion={"rmse": 1.0}, failures=failures), RMSE)
    judged.write(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["verdict.json"]
    written = json.loads((tmp_path / "verdict.json").read_text())
    assert written["blessed"] is False
    assert len(written["reasons"]) == 3
    assert set(written["reasons"][0]) == {"where", "found", "expected", "action"}
