"""`run_fn` for real on the built-in problem: it reaches the noise floor, says what it did, and starts warm or not."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from evergreen import errors, progress
from tests import tables
from tests.trainer.conftest import Run, train_on
from trainer import train

NOISE_FLOOR = 1.416
SHORT = {"max_steps": 20, "early_stopping_patience": None}

pytestmark = pytest.mark.slow


def test_humidity_comes_within_two_percent_of_the_noise(humidity_run: Run) -> None:
    assert _rmse(humidity_run) < NOISE_FLOOR * 1.02


def _rmse(run: Run) -> float:
    """Asks the exported model about rows that it has not seen."""
    table = tables.humidity_table(14_000, 3)
    raw = {name: tf.constant(values) for name, values in table.items() if name != "humidity"}
    prediction = tf.saved_model.load(str(run.model)).signatures["raw"](**raw)["prediction"].numpy()
    return float(np.sqrt(np.mean((prediction - table["humidity"]) ** 2)))


def test_the_report_says_what_was_done(humidity_run: Run) -> None:
    report = humidity_run.report
    assert report["rows"] == {"train": 112_000, "eval": 14_000}
    assert report["rows_without_label"] == {"train": 0, "eval": 0}
    assert report["input"] == {"train": "memory", "eval": "memory"}
    assert report["steps"] == report["epochs"] * report["steps_per_epoch"]
    assert report["steps_per_epoch"] == 112_000 // 1024
    assert {len(values) for values in report["history"].values()} == {report["epochs"]}
    assert min(report["history"]["val_rmse"]) == report["history"]["val_rmse"][report["best_epoch"] - 1]
    assert report["parameters"] == (170 + 1) + (170 * 64 + 64) + (64 * 32 + 32) + (32 + 1)
    assert report["replicas"] == 1
    assert report["warm_start"]["reason"] == "no model is serving yet"
    assert report["config"]["training"]["batch_size"] == 1024


def test_logs_and_model_are_left_complete(humidity_run: Run) -> None:
    assert {path.parent.name for path in humidity_run.folder.rglob("events.out.tfevents.*")} == {"train", "validation"}
    assert not list(humidity_run.folder.rglob("*.partial"))
    assert not list(humidity_run.folder.rglob("step-*.npz"))
    model = keras.models.load_model(humidity_run.folder / train.MODEL_FILE, compile=False)
    assert model.count_params() == humidity_run.report["parameters"]


def test_the_same_seed_gives_the_same_model(humidity: tables.Transformed, tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> list[Any]:
        run = train_on(humidity, tmp_path / name, training={**SHORT, "seed": seed})
        return keras.models.load_model(run.folder / train.MODEL_FILE, compile=False).get_weights()

    first, again, other = weights("first", 1), weights("again", 1), weights("other", 2)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-7)
    assert any(not np.allclose(one, two) for one, two in zip(first, other, strict=True))


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_best_epochs_weights_are_kept_or_the_last_ones(
    humidity: tables.Transformed, humidity_run: Run, tmp_path: Path, keep: str
) -> None:
    # From a good model on, with steps that grow until they spoil it.
    training = {
        "epochs": 3, "keep": keep, "learning_rate": 3.0, "learning_rate_schedule": "constant", "warmup_share": 0.9,
        "optimizer": "adam", "early_stopping_patience": None,
    }  # fmt: skip
    run = train_on(humidity, tmp_path, base_model=humidity_run.model, training=training)
    errors_of_epochs = run.report["history"]["val_rmse"]
    assert errors_of_epochs[-1] > 1.5 * min(errors_of_epochs), "the last epoch was to be a bad one"
    expected = min(errors_of_epochs) if keep == "best" else errors_of_epochs[-1]
    assert _rmse(run) == pytest.approx(expected, rel=0.1)


def test_progress_is_told_by_the_epoch(
    humidity: tables.Transformed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger=progress.LOGGER):
        run = train_on(humidity, tmp_path, training={"epochs": 2, "batch_size": 8192})
    history = run.report["history"]
    # Other loggers may speak too, once a test before this one has turned them up.
    told = [record.getMessage() for record in caplog.records if record.name == progress.LOGGER]
    assert told[-2:] == [
        f"epoch {n + 1}/2, rmse {history['rmse'][n]:.4g}, eval {history['val_rmse'][n]:.4g}" for n in (0, 1)
    ]


@pytest.mark.parametrize(("optimizer", "tier"), [("adam", "files"), ("sgd", "files"), ("adam", "disk")])
def test_a_split_that_memory_does_not_hold_trains_as_well(
    humidity: tables.Transformed, tmp_path: Path, optimizer: str, tier: str
) -> None:
    training = {
        "epochs": 2, "cache_mib": 0, "disk_cache_gib": 1 if tier == "disk" else 0, "optimizer": optimizer,
        "learning_rate": 0.01,
    }  # fmt: skip
    report = train_on(humidity, tmp_path, model={"kind": "linear"}, training=training).report
    assert report["input"] == {"train": tier, "eval": tier}
    assert report["rows"] == {"train": 112_000, "eval": 14_000}
    assert report["history"]["val_rmse"][-1] < report["history"]["val_rmse"][0] < 3.5


def test_training_that_diverges_stops_with_a_reason(humidity: tables.Transformed, tmp_path: Path) -> None:
    with pytest.raises(errors.BadInput, match="learning_rate") as caught:
        train_on(humidity, tmp_path, training={"optimizer": "sgd", "learning_rate": 1e20, "epochs": 2})
    assert "a loss of" in caught.value.problems[0].found
    assert not (tmp_path / "model").exists()


def test_a_warm_start_goes_on_from_the_serving_model(
    humidity: tables.Transformed, humidity_run: Run, tmp_path: Path
) -> None:
    gentle = {"max_steps": 1, "learning_rate": 1e-6}
    report = train_on(humidity, tmp_path, base_model=humidity_run.model, training=gentle).report
    assert report["warm_start"]["started"]
    assert report["warm_start"]["initialized"] == []
    assert len(report["warm_start"]["carried"]) == 8
    assert report["history"]["val_rmse"][0] == pytest.approx(min(humidity_run.report["history"]["val_rmse"]), rel=1e-3)


def test_a_changed_configuration_starts_cold(humidity: tables.Transformed, humidity_run: Run, tmp_path: Path) -> None:
    changed = {"hidden_units": [64, 31]}
    report = train_on(humidity, tmp_path, base_model=humidity_run.model, model=changed, training=SHORT).report
    assert report["warm_start"]["carried"] == []
    assert report["warm_start"]["reason"] == "changed since the serving model: model"


def test_a_serving_model_that_cannot_be_read_does_not_fail_the_run(
    humidity: tables.Transformed, humidity_run: Run, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    (broken / "assets.extra").mkdir(parents=True)
    meaning = "assets.extra/meaning.json"
    (broken / meaning).write_bytes((humidity_run.model / meaning).read_bytes())
    report = train_on(humidity, tmp_path, base_model=broken, training=SHORT).report
    assert not report["warm_start"]["started"]
    assert report["warm_start"]["reason"].startswith("the serving model cannot be read: ")
