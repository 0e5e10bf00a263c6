"""Searches for real on a small table: killed and resumed, in workers that die, under a budget, by every algorithm."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import pytest
from tfx.components.trainer.fn_args_utils import FnArgs

from evergreen import errors, settings
from tests import tables
from trainer import trials, tune

SPACE = {"training.learning_rate": {"kind": "log", "min": 0.001, "max": 0.3}}

_KILLED = """
import os, signal, sys
from trainer import trials, tune
setting = trials.Setting.from_json(open(sys.argv[1]).read())
search, ended = tune.Search(setting), []
end_trial = search.oracle.end_trial
def dying(trial):
    end_trial(trial)
    ended.append(trial)
    if len(ended) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
search.oracle.end_trial = dying
search.search()
"""

pytestmark = pytest.mark.slow


def _setting(transformed: tables.Transformed, folder: Path, *, model: Any = None, **tuning: Any) -> trials.Setting:
    config = settings.TrainerConfig.model_validate(
        {
            "preprocessing": transformed.config.model_dump(mode="json"),
            "model": model or {"kind": "linear"},
            "training": {"epochs": 2, "batch_size": 256},
            "tuning": {"algorithm": "random", "max_trials": 3, "parallel_trials": 1, "space": SPACE, **tuning},
        }
    )
    files = sorted(str(file) for file in (transformed.examples / "Split-train").iterdir())
    return trials.Setting(
        config=config, train_files=tuple(files), transform_graph=str(transformed.graph), folder=str(folder)
    )


def _search(setting: trials.Setting) -> dict[str, Any]:
    search = tune.Search(setting)
    search.search()
    return search.table()


def _tried(table: dict[str, Any]) -> list[tuple[Any, Any]]:
    return sorted((str(trial["values"]), pytest.approx(trial["score"], rel=1e-4)) for trial in table["trials"])


def _end_of_all_that_write_into(folder: Path) -> None:
    """Waits for the processes that hold a file of the folder open; a minute of it is a failure."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(link).startswith(str(folder)):
                assert select.select([os.pidfd_open(int(link.parts[2]))], [], [], 60)[0]


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_killed_search_goes_on_with_the_trials_that_it_has(
    small: tables.Transformed, tmp_path: Path, parallel: int
) -> None:
    setting = _setting(small, tmp_path / "killed", max_trials=5, parallel_trials=parallel)
    (tmp_path / "setting").write_text(setting.as_json())
    child = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path / "setting")], check=False, capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    _end_of_all_that_write_into(tmp_path / "killed")  # no worker outlives the search
    told = [path.stat().st_mtime_ns for path in sorted((tmp_path / "killed").rglob("told.json"))]
    assert len(told) >= 3
    table = _search(setting)
    assert [trial["status"] for trial in table["trials"]] == ["COMPLETED"] * 5
    kept = [path.stat().st_mtime_ns for path in sorted((tmp_path / "killed").rglob("told.json"))]
    assert len(set(told) & set(kept)) >= 3  # none of the three that had ended was run again
    assert _tried(table) == _tried(_search(_setting(small, tmp_path / "whole", max_trials=5)))


def test_trials_side_by_side_are_those_of_one_after_the_other(small: tables.Transformed, tmp_path: Path) -> None:
    together = _search(_setting(small, tmp_path / "together", max_trials=4, parallel_trials=2))
    alone = _search(_setting(small, tmp_path / "alone", max_trials=4))
    assert {trial["worker"] for trial in alone["trials"]} == {"tuner0"}
    assert {trial["worker"] for trial in together["trials"]} <= {"worker0", "worker1"}
    assert _tried(together) == _tried(alone)
    assert together["best"] == alone["best"]


def linear_or_dead(inputs: Any, _: Any, __: Any) -> Any:
    """Kills the worker that asks for the first model of a search."""
    marker = Path(os.environ["TEST_MARKER"])
    if not marker.exists():
        marker.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    columns = [keras.layers.Reshape((1,))(keras.ops.cast(column, "float32")) for column in inputs.values()]
    return keras.layers.Dense(1)(keras.layers.Concatenate()(columns))


def test_another_worker_takes_the_place_of_one_that_was_killed(
    small: tables.Transformed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_MARKER", str(tmp_path / "marker"))
    model = {"function": "tests.trainer.test_tune.linear_or_dead"}
    table = _search(_setting(small, tmp_path / "search", model=model, parallel_trials=2))
    assert (tmp_path / "marker").exists()
    states = [trial["status"] for trial in table["trials"]]
    # Keras Tuner tries the values of the killed one once more.
    assert (states.count("COMPLETED"), len(states)) == (3, 3)
    assert all("score" in trial and trial["epochs"] == 2 for trial in table["trials"])


def test_after_its_time_a_search_begins_no_trial(small: tables.Transformed, tmp_path: Path) -> None:
    table = _search(_setting(small, tmp_path, max_minutes=1e-9))
    assert [trial["status"] for trial in table["trials"]] == ["COMPLETED"]


def test_several_trainings_a_trial_count_by_their_mean(small: tables.Transformed, tmp_path: Path) -> None:
    table = _search(_setting(small, tmp_path, max_trials=1, executions_per_trial=2, model={"kind": "deep"}))
    (trial,) = table["trials"]
    bests = [min(curve["val_loss"]) for curve in trial["curves"]]
    assert bests[0] != bests[1]  # their seeds differ
    assert trial["score"] == pytest.approx(sum(bests) / 2)
    assert trial["epochs"] == 4


@pytest.mark.parametrize(("direction", "best"), [("min", min), ("max", max)])
def test_the_objective_decides_in_its_direction(
    small: tables.Transformed, tmp_path: Path, direction: str, best: Any
) -> None:
    table = _search(_setting(small, tmp_path, objective={"metric": "rmse", "direction": direction}))
    for trial in table["trials"]:
        assert trial["score"] == pytest.approx(best(trial["curves"][0]["val_rmse"]))
    winner = best(table["trials"], key=lambda trial: trial["score"])
    assert table["best"] == winner["values"]


def test_hyperband_goes_on_with_the_best_of_a_round(small: tables.Transformed, tmp_path: Path) -> None:
    table = _search(_setting(small, tmp_path, algorithm="hyperband", max_epochs=4, hyperband_factor=2))
    first = [trial for trial in table["trials"] if trial["epochs"] == 1]
    later = [trial for trial in table["trials"] if trial["values"] in [one["values"] for one in first]]
    gone_on = [trial for trial in later if len(trial["curves"][0]["val_loss"]) > trial["epochs"]]
    assert gone_on
    for trial in gone_on:  # the curve of the earlier round is the beginning of the later one
        curves = [one["curves"][0]["val_loss"] for one in later if one["values"] == trial["values"]]
        shortest = min(curves, key=len)
        assert trial["curves"][0]["val_loss"][: len(shortest)] == pytest.approx(shortest, rel=1e-5)
    assert table["epochs"] == sum(trial["epochs"] for trial in table["trials"])


def test_bayesian_search_uses_what_it_has_seen(small: tables.Transformed, tmp_path: Path) -> None:
    table = _search(_setting(small, tmp_path, algorithm="bayesian", max_trials=5))
    assert len({str(trial["values"]) for trial in table["trials"]}) == 5


def test_a_trial_that_does_not_get_better_ends_early(small: tables.Transformed, tmp_path: Path) -> None:
    flat = {"training.learning_rate": {"kind": "choice", "values": [1e-9]}}
    table = _search(_setting(small, tmp_path, space=flat, max_trials=1, max_epochs=20, early_stopping_patience=1))
    assert table["trials"][0]["epochs"] < 20


def test_trials_that_diverge_are_told_when_none_is_left(small: tables.Transformed, tmp_path: Path) -> None:
    wild = {"training.learning_rate": {"kind": "choice", "values": [1e30]}}
    with pytest.raises(errors.BadInput, match=r"not one that succeeded; the last said: .*a loss of"):
        _search(_setting(small, tmp_path, space=wild, max_trials=1))


def test_only_the_train_split_is_opened(small: tables.Transformed, tmp_path: Path) -> None:
    config = _setting(small, tmp_path).config
    arguments = FnArgs(
        train_files=small.files("train"),
        eval_files=[str(tmp_path / "there" / "is" / "nothing-*")],
        transform_graph_path=str(small.graph),
        working_dir=str(tmp_path),
        custom_config=config.model_dump(mode="json"),
    )
    search: Any = tune.tuner_fn(arguments).tuner
    search.search()
    train = {str(file) for file in (small.examples / "Split-train").iterdir()}
    assert set(search._setting.train_files) == train
    held_out = search.table()["trials"][0]
    assert held_out["score"] == min(held_out["curves"][0]["val_loss"])
