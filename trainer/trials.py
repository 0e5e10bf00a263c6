"""The trials of a search: Keras Tuner's oracle for a configuration, and what one trial does.

A trial trains on its part of the train split and is judged by the other part, exactly as training does it. What a trial
says (curves, epochs, seconds) lies beside Keras Tuner's own file of it. A round of Hyperband that goes on with a trial
takes up its weights, its optimiser and its place in the input.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import time
from typing import Any

import keras
import keras_tuner
import tensorflow as tf
import tensorflow_transform as tft

from evergreen import errors, progress, settings
from trainer import callbacks, checkpoints, data, fitting, hyperparameters, train
from trainer import features as features_lib

PROJECT = "trials"
"""Keras Tuner's name for the folder of a search below ours."""
_TOLD = "told.json"
_PAUSE_SECONDS = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """All that decides a search."""

    config: settings.TrainerConfig
    train_files: tuple[str, ...]
    transform_graph: str
    folder: str
    """Where the search writes; an earlier one that was killed there is taken up."""

    @property
    def tuning(self) -> settings.Tuning:
        """The part of the configuration about the search."""
        assert self.config.tuning is not None
        return self.config.tuning

    @property
    def max_epochs(self) -> int:
        """Epochs of a trial at the most."""
        return self.tuning.max_epochs or self.config.training.epochs

    def as_json(self) -> str:
        """Returns it as JSON, for a worker."""
        return json.dumps({**dataclasses.asdict(self), "config": self.config.model_dump(mode="json")})

    @classmethod
    def from_json(cls, text: str) -> Setting:
        """Reads what `as_json` wrote."""
        fields = json.loads(text)
        fields["config"] = settings.TrainerConfig.model_validate(fields["config"])
        fields["train_files"] = tuple(fields["train_files"])
        return cls(**fields)


def oracle(setting: Setting) -> keras_tuner.Oracle:
    """Returns the oracle that the configuration asks for, over an empty search."""
    tuning = setting.tuning
    common: dict[str, Any] = {
        "objective": keras_tuner.Objective(f"val_{tuning.objective.metric}", tuning.objective.direction),
        "hyperparameters": hyperparameters.space(tuning),
        "allow_new_entries": False,
        "tune_new_entries": False,
        "seed": tuning.seed + 1,  # Keras Tuner takes 0 for none
        "max_retries_per_trial": 1,
        # A trial may diverge: that is an answer, and not a reason to end the search.
        "max_consecutive_failed_trials": 1_000_000,
    }
    if tuning.algorithm == "hyperband":
        found = keras_tuner.oracles.HyperbandOracle(
            max_epochs=setting.max_epochs,
            factor=tuning.hyperband_factor,
            hyperband_iterations=tuning.hyperband_iterations,
            **common,
        )
    else:
        kinds = {
            "random": keras_tuner.oracles.RandomSearchOracle,
            "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
        }
        found = kinds[tuning.algorithm](max_trials=tuning.max_trials, **common)
    found.verbose = 0
    found._set_project_dir(setting.folder, PROJECT)  # noqa: SLF001  as Keras Tuner's own tuners do
    return found


def reload(of: keras_tuner.Oracle, folder: str) -> int:
    """Takes up what an earlier process left of a search; returns how many of its trials had ended."""
    if not tf.io.gfile.exists(os.path.join(folder, PROJECT, "oracle.json")):
        return 0
    of.reload()
    # A trial whose file was written just before the oracle's own was not yet tried, as far as that knows.
    for trial_id in set(of.trials) - set(of.start_order):
        del of.trials[trial_id]
    # Keras Tuner notes the end of a trial before it takes it off those under way: what has ended is not tried again.
    waiting = [trial_id for trial_id in dict.fromkeys(of._retry_queue) if trial_id not in of.end_order]  # noqa: SLF001
    of._retry_queue = waiting  # noqa: SLF001
    return len(of.end_order)


def give_up(of: keras_tuner.Oracle, worker: str) -> None:
    """Ends the trial of a worker that is no more."""
    trial = of.ongoing_trials.get(worker)
    if trial is None:
        return
    trial.status, trial.message = keras_tuner.engine.trial.TrialStatus.INVALID, f"{worker} was killed"
    of.end_trial(trial)


def told(folder: str, trial_id: str) -> dict[str, Any]:
    """Returns what a trial said, or nothing of one that did not end."""
    path = os.path.join(folder, PROJECT, f"trial_{trial_id}", _TOLD)
    if not tf.io.gfile.exists(path):
        return {}
    with tf.io.gfile.GFile(path) as file:
        said: dict[str, Any] = json.load(file)
    return said


def share(setting: Setting, files: tuple[int, int]) -> None:
    """Reads the train split once for all workers.

    Args:
        setting: the search.
        files: descriptors of two empty files that the workers inherit.

    Raises:
        BadInput: when the split has too few rows with a label.
    """
    data.share_held_out(files, setting.train_files, _features(setting), **_parting(setting))


def _features(setting: Setting) -> features_lib.Features:
    return features_lib.read(tft.TFTransformOutput(setting.transform_graph), setting.config.preprocessing)


def _parting(setting: Setting) -> dict[str, Any]:
    return {
        "share": setting.tuning.holdout,
        "seed": setting.tuning.seed,
        "cache_bytes": setting.config.training.cache_mib << 20,
    }


class TrialRunner(keras_tuner.engine.base_tuner.BaseTuner):
    """Runs the trials that an oracle hands out, in this process; in a worker the oracle is asked over the network."""

    def __init__(self, setting: Setting, of: keras_tuner.Oracle, *, shared: tuple[int, int] | None = None) -> None:
        """Takes the search.

        Args:
            setting: the search.
            of: the oracle.
            shared: files that `share` has written the rows to; without them they are read for the first trial.
        """
        super().__init__(oracle=of, directory=setting.folder, project_name=PROJECT, overwrite=False)
        self._setting = setting
        self._shared = shared
        self._read: tuple[features_lib.Features, data.HeldOut] | None = None
        self._idle = False

    def pre_create_trial(self) -> None:
        """Waits a moment where the oracle just had nothing to try yet; Keras Tuner would ask without a pause."""
        if self._idle:
            time.sleep(_PAUSE_SECONDS)
        self._idle = True

    def on_trial_begin(self, trial: Any) -> None:
        """Has something to do."""
        super().on_trial_begin(trial)
        self._idle = False

    def on_trial_end(self, trial: Any) -> None:
        """Tells the oracle."""
        super().on_trial_end(trial)
        self._idle = False

    def save(self) -> None:
        """Has nothing to save: the oracle writes itself."""

    def reload(self) -> None:
        """Has nothing to take up: the oracle did."""

    def run_trial(self, trial: Any) -> dict[str, float]:
        """Trains and judges one set of values.

        Args:
            trial: Keras Tuner's.

        Returns:
            The objective, the mean over the trial's trainings.
        """
        try:
            score, said = self._run(trial)
        except Exception as error:
            self._tell(trial, {"error": str(error)})  # Keras Tuner keeps it to the worker
            raise
        self._tell(trial, said)
        metric = f"val_{self._setting.tuning.objective.metric}"
        progress.report(f"trial {trial.trial_id}, {metric} {score:.4g}")
        return {metric: score}

    def _run(self, trial: Any) -> tuple[float, dict[str, Any]]:
        """Runs a trial's trainings; returns their mean score, and what is told of them."""
        started = time.monotonic()
        values = trial.hyperparameters.values
        config = hyperparameters.with_values(self._setting.config, hyperparameters.active(values, self._setting.tuning))
        metric = f"val_{self._setting.tuning.objective.metric}"
        best: Any = min if self._setting.tuning.objective.direction == "min" else max
        scores, curves, epochs = [], [], 0
        for execution in range(self._setting.tuning.executions_per_trial):
            history, ran = self._train(config, trial, execution)
            scores.append(best(history[metric]))
            curves.append(history)
            epochs += ran
        return statistics.fmean(scores), {
            "epochs": epochs,
            "seconds": round(time.monotonic() - started, 3),
            "worker": self.tuner_id,
            "curves": curves,
        }

    def _tell(self, trial: Any, said: dict[str, Any]) -> None:
        with tf.io.gfile.GFile(os.path.join(self.get_trial_dir(trial.trial_id), _TOLD), "w") as file:
            file.write(json.dumps(said))

    def _train(self, config: settings.TrainerConfig, trial: Any, execution: int) -> tuple[fitting.History, int]:
        """Runs one training of a trial; returns its curves, and its epochs without those that it went on from."""
        keras.utils.clear_session(free_memory=False)
        values = trial.hyperparameters.values
        config = hyperparameters.with_values(config, {"training.seed": (config.training.seed + execution) % 2**31})
        training, (features, rows) = config.training, self._rows()
        parts = rows.open(batch_size=training.batch_size, seed=training.seed, class_weights=training.class_weights)
        whole = train.make_plan(training.model_copy(update={"epochs": self._setting.max_epochs}), parts[0].steps, None)
        model = train.compiled(config, features, parts[0], whole)
        epochs = min(values.get("tuner/epochs") or whole.epochs, whole.epochs)
        run = fitting.Fitting(
            model,
            dataclasses.replace(whole, epochs=epochs),
            *parts,
            patience=self._setting.tuning.early_stopping_patience,
            checkpoints=self._states(trial.trial_id, execution),
        )
        parent = values.get("tuner/trial_id")
        before = run.resume(self._states(parent, execution)) // whole.steps_per_epoch if parent else 0
        try:
            history = run.run([callbacks.StopWhenDiverged()], save_last=self._setting.tuning.algorithm == "hyperband")
        except errors.BadInput as error:
            raise keras_tuner.errors.FailedTrialError(str(error)) from error
        return history, len(history["loss"]) - before

    def _rows(self) -> tuple[features_lib.Features, data.HeldOut]:
        if self._read is None:
            features = _features(self._setting)
            rows = (
                data.hold_out(self._setting.train_files, features, **_parting(self._setting))
                if self._shared is None
                else data.shared(self._shared, features)
            )
            self._read = features, rows
        return self._read

    def _states(self, trial_id: str, execution: int) -> checkpoints.Checkpoints:
        return checkpoints.Checkpoints(os.path.join(self.get_trial_dir(trial_id), f"state-{execution}"), keep=1)
