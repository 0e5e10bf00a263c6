"""Every mistake in a search space is explained, under its own key, in words that say what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from evergreen import settings
from evergreen.errors import BadInput
from pipeline import config

BEFORE = """\
name: tips
data: {path: "*.csv"}
label: {column: tip, task: TASK}
features:
  miles: {kind: numeric}
tuning:
"""


def _said(folder: Path, tuning: str, task: str = "regression") -> list[str]:
    path = folder / "tips.yaml"
    path.write_text(BEFORE.replace("TASK", task) + tuning, encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        config.load_config(path, look_for_data=False)
    return [str(problem).removeprefix(f"{path}, ") for problem in caught.value.problems]


CASES = {
    "training.learning_rate: {kind: logg, min: 0.001, max: 0.1}": (
        "line 8, tuning.space.training.learning_rate: found kind 'logg'; "
        "expected one of the kinds int, float, log, choice. Did you mean 'log'?"
    ),
    "training.learning_rate: {min: 0.001, max: 0.1}": (
        "line 8, tuning.space.training.learning_rate: found no kind; "
        "expected one of the kinds int, float, log, choice. Give it one of these kinds."
    ),
    "training.learning_rate: {kind: log, min: 0.001, max: 0.1, stepp: 2}": (
        "line 8, tuning.space.training.learning_rate.stepp: found an unknown key; "
        "expected a key that Evergreen knows. Did you mean 'step'?"
    ),
    "training.learning_rate: {kind: log, min: low, max: 0.1}": (
        "line 8, tuning.space.training.learning_rate.min: found 'low'; expected a number. Correct the value."
    ),
    "training.learning_rate: {kind: log, min: 0.5, max: 0.1}": (
        "line 8, tuning.space.training.learning_rate: found 0.5; expected a min below the max of 0.1. "
        "Correct the value."
    ),
    "training.gradient_clip: {kind: log, min: 0, max: 0.1}": (
        "line 8, tuning.space.training.gradient_clip: found 0.0; expected a min above 0 on a logarithmic scale. "
    ),
    "model.dropout: {kind: float, min: 0, max: 1.5}": (
        "line 8, tuning.space.model.dropout: found 1.5; expected a value that model.dropout can have: "
        "input should be less than 1. Correct the value."
    ),
    "model.kind: {kind: choice, values: [linear, deeep]}": (
        "line 8, tuning.space.model.kind: found 'deeep'; expected a value that model.kind can have: "
        "input should be 'linear', 'deep', 'wide_deep' or 'cross'. Correct the value."
    ),
    "training.batch_size: {kind: log, min: 32, max: 64}": (
        "line 8, tuning.space.training.batch_size: found 'log'; "
        "expected kind int, for training.batch_size is a whole number. Correct the value."
    ),
    "training.learnin_rate: {kind: log, min: 0.001, max: 0.1}": (
        "line 8, tuning.space.training.learnin_rate: found 'training.learnin_rate'; "
        "expected the key training.learning_rate. Correct the value."
    ),
    "speed: {kind: int, min: 1, max: 2}": (
        "line 8, tuning.space.speed: found 'speed'; expected one of model.kind, model.hidden_units,"
    ),
    "training.epochs: {kind: int, min: 1, max: 20}": (
        "line 8, tuning.space.training.epochs: found 'training.epochs'; "
        "expected tuning.max_epochs instead, beside the space. Correct the value."
    ),
    "training.cache_mib: {kind: int, min: 1, max: 20}": (
        "line 8, tuning.space.training.cache_mib: found 'training.cache_mib'; "
        "expected a key that changes what a trial learns. Correct the value."
    ),
    "model.hidden_units: {kind: choice, values: [[4]], when: {model.kind: [deep]}}": (
        "line 8, tuning.space.model.hidden_units: found 'model.kind'; "
        "expected a condition on a choice of this space (it has none). Correct the value."
    ),
    "model.kind: {kind: choice, values: [linear, deep]}\n"
    "    model.hidden_units: {kind: choice, values: [[4]], when: {model.kind: [deeep]}}": (
        "line 9, tuning.space.model.hidden_units: found 'deeep'; "
        "expected in the condition, one of the values of model.kind: ['linear', 'deep']. Correct the value."
    ),
    "model.kind: {kind: choice, values: [deep], when: {training.optimizer: [adam]}}\n"
    "    training.optimizer: {kind: choice, values: [adam], when: {model.kind: [deep]}}": (
        "line 8, tuning.space.model.kind: found 'training.optimizer'; "
        "expected a condition that does not depend on itself. Correct the value."
    ),
}


@pytest.mark.parametrize("wrong", CASES)
def test_a_mistake_in_a_space_is_explained(tmp_path: Path, wrong: str) -> None:
    assert _said(tmp_path, f"  space:\n    {wrong}\n")[0].startswith(CASES[wrong])


def test_a_search_cannot_be_judged_by_what_training_does_not_measure(tmp_path: Path) -> None:
    tuning = "  objective: {metric: auc}\n  space:\n    training.batch_size: {kind: int, min: 32, max: 64}\n"
    for task, fitting in (("regression", "loss, rmse, mae"), ("multiclass", "loss, accuracy")):
        told = (
            f"line 7, tuning.objective.metric: found auc; expected a metric of {task}: {fitting}. "
            "Correct the metric, or label.task."
        )
        assert told in _said(tmp_path, tuning, task)


@pytest.mark.parametrize(
    ("metric", "direction"), [("loss", "min"), ("rmse", "min"), ("accuracy", "max"), ("auc", "max")]
)
def test_the_metric_says_which_direction_is_better(metric: str, direction: str) -> None:
    assert settings.Objective.model_validate({"metric": metric}).direction == direction
    assert settings.Objective.model_validate({"metric": metric, "direction": "min"}).direction == "min"
