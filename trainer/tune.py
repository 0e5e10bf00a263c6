"""`tuner_fn`, what TFX's Tuner calls: a search for hyperparameters with Keras Tuner, trials in parallel, resumable.

The search lives in a folder keyed by what decides it (data, configuration). Keras Tuner's oracle says what is tried
next, writes down every trial, and takes its own files up again after a kill. Several trials at a time are processes of
their own (`trainer.workers`), which ask the oracle in this process. Only the train split is read; a part of it judges.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras_tuner
import tensorflow as tf

from evergreen import errors, progress, settings
from trainer import checkpoints, hyperparameters, trials
from trainer import workers as workers_lib

if TYPE_CHECKING:
    from tfx.components.trainer.fn_args_utils import FnArgs
    from tfx.components.tuner.component import TunerFnResult

_MAX_RESTARTS = 3
"""Times that a worker which was killed is replaced."""
_POLL_SECONDS = 0.1


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Prepares the search.

    Args:
        fn_args: TFX's arguments; `custom_config` is `settings.TrainerConfig` as JSON, with its `tuning`. Of the files
            only `train_files` are opened.

    Returns:
        What TFX's Tuner executor searches with.

    Raises:
        BadInput: when the configuration has no `tuning`.
    """
    from tfx.components.tuner.component import TunerFnResult

    config = settings.TrainerConfig.model_validate(fn_args.custom_config)
    if config.tuning is None:
        raise errors.BadInput(
            [errors.Problem(where="tuning", found="nothing", expected="a search space", action="Add tuning.space.")]
        )
    known = reusable(config, fn_args.base_model)
    if known is not None:
        return TunerFnResult(tuner=Known(config, known), fit_kwargs={})
    setting = trials.Setting(
        config=config,
        train_files=tuple(
            _absolute(file) for pattern in sorted(fn_args.train_files) for file in sorted(tf.io.gfile.glob(pattern))
        ),
        transform_graph=_absolute(fn_args.transform_graph_path),
        folder=_folder(fn_args, config),
    )
    return TunerFnResult(tuner=Search(setting), fit_kwargs={})


def _absolute(path: str) -> str:
    """Names a file so that a worker finds it, whose working folder is another one."""
    return path if "://" in path else os.path.abspath(path)


def _folder(fn_args: FnArgs, config: settings.TrainerConfig) -> str:
    """Names the folder of the search by all that decides it; it outlives the node's own where one is configured."""
    root = config.checkpoint_folder or os.path.join(fn_args.working_dir, "search")
    files = [file for pattern in fn_args.train_files for file in tf.io.gfile.glob(pattern)]
    key = checkpoints.fingerprint(
        [config.model_copy(update={"checkpoint_folder": None}).model_dump_json()], files=sorted(files)
    )
    return _absolute(os.path.join(root, f"search-{key[:32]}"))


# --- the serving model's values --------------------------------------------------------------------------------------


def reusable(config: settings.TrainerConfig, base_model: str | None) -> dict[str, Any] | None:
    """Returns the values that the serving model was tuned to, or None when they are to be searched for.

    Args:
        config: with its `tuning`; the space and the objective have to be those of that search.
        base_model: the serving SavedModel; its bundle lies beside it.
    """
    assert config.tuning is not None
    if config.tuning.when == "always" or not base_model:
        return None
    manifest = os.path.join(os.path.dirname(base_model.rstrip("/")), "bundle", "manifest.json")
    if not tf.io.gfile.exists(manifest):
        return None
    with tf.io.gfile.GFile(manifest) as file:
        found = json.load(file).get("training", {}).get("hyperparameters") or {}
    if found.get("space") != hyperparameters.digest(config):
        return None
    values: dict[str, Any] = found["values"]
    return values


class Known:
    """A search that is over before it begins: the serving model's values, in the shape that TFX asks for."""

    tuner_id = "known"

    def __init__(self, config: settings.TrainerConfig, values: Mapping[str, Any]) -> None:
        """Takes the values by dotted key."""
        assert config.tuning is not None
        self._tuning = config.tuning
        space = hyperparameters.space(config.tuning)
        space.values = {
            **space.values, **hyperparameters.encoded(values), hyperparameters.SOURCE: hyperparameters.CHAMPION
        }  # fmt: skip
        self._best = keras_tuner.engine.trial.Trial(space, trial_id="champion", status="COMPLETED")
        self._best.score = None
        self.oracle = self

    max_trials = 1

    def get_best_trials(self, num_trials: int = 1) -> list[Any]:
        """Returns the one trial there is."""
        return [self._best][:num_trials]

    def get_best_hyperparameters(self, num_trials: int = 1) -> list[Any]:
        """Returns the one set of values there is."""
        return [self._best.hyperparameters][:num_trials]

    def search(self) -> None:
        """Has nothing to search."""
        progress.report("the serving model's hyperparameters")

    def search_space_summary(self) -> None:
        """Is called by TFX; the screen has better to show."""

    results_summary = search_space_summary

    def remove(self) -> None:
        """Has written nothing."""

    def table(self) -> dict[str, Any]:
        """Returns the report: no trials."""
        best = hyperparameters.active(self._best.hyperparameters.values, self._tuning)
        return {"source": hyperparameters.CHAMPION, "best": best, "trials": []}


# --- the search ------------------------------------------------------------------------------------------------------


class Search:
    """A search over trials in this process or in several, in the shape that TFX's Tuner executor asks for."""

    tuner_id = "chief"

    def __init__(self, setting: trials.Setting) -> None:
        """Takes what decides the search, and takes up what an earlier process left of it."""
        self._setting = setting
        self._tuning = setting.tuning
        self._workers = self._tuning.parallel_trials or workers_lib.devices()
        self._seconds = 0.0
        self._before = 0
        self.oracle = trials.oracle(setting)
        _write_atomically(self.oracle)
        if self._tuning.max_minutes is not None:
            _stop_after(self.oracle, 60.0 * self._tuning.max_minutes)

    def search(self) -> None:
        """Runs the trials to their end.

        Raises:
            BadInput: when not one trial succeeded.
        """
        started = time.monotonic()
        self._before = trials.reload(self.oracle, self._setting.folder)
        if self._before:
            progress.report(f"goes on after {self._before} trials")
        if self._workers == 1:
            trials.TrialRunner(self._setting, self.oracle).search()
        else:
            self._search_in_workers()
        self._seconds = time.monotonic() - started
        self.oracle.max_trials = len(self.oracle.trials)  # Hyperband leaves it open, and TFX asks for so many
        done = [trial for trial in self.oracle.trials.values() if trial.status == "COMPLETED"]
        if not done:
            raise errors.BadInput([self._no_trial()])
        progress.report(f"{len(done)} trials, best {self._tuning.objective.metric} {self.get_best_score():.4g}")

    def get_best_score(self) -> float:
        """Returns the objective's best value."""
        return float(self.oracle.get_best_trials(1)[0].score)

    def get_best_hyperparameters(self, num_trials: int = 1) -> list[Any]:
        """Returns Keras Tuner's hyperparameters of the best trials, the best first."""
        return [trial.hyperparameters for trial in self.oracle.get_best_trials(num_trials)]

    def search_space_summary(self) -> None:
        """Is called by TFX; the screen has better to show."""

    results_summary = search_space_summary

    def table(self) -> dict[str, Any]:
        """Returns the report: the best values, and of every trial values, score, curves, epochs and seconds."""
        best = self.oracle.get_best_trials(1)[0]
        told = [
            {
                "trial": trial.trial_id,
                "status": trial.status,
                "score": trial.score,
                "values": hyperparameters.active(trial.hyperparameters.values, self._tuning),
                **trials.told(self._setting.folder, trial.trial_id),
            }
            for trial in self.oracle.trials.values()
        ]
        return {
            "source": "search",
            "config": self._setting.config.model_dump(mode="json"),
            "algorithm": self._tuning.algorithm,
            "objective": self._tuning.objective.model_dump(),
            "best": hyperparameters.active(best.hyperparameters.values, self._tuning),
            "best_trial": best.trial_id,
            "seconds": round(self._seconds, 3),
            "parallel_trials": self._workers,
            "epochs": sum(trial.get("epochs", 0) for trial in told),
            "trials": told,
        }

    def remove(self) -> None:
        """Removes what a killed search would be taken up from."""
        if tf.io.gfile.exists(self._setting.folder):
            tf.io.gfile.rmtree(self._setting.folder)

    def _no_trial(self) -> errors.Problem:
        said = [trials.told(self._setting.folder, trial_id).get("error") for trial_id in self.oracle.trials]
        last = next((error for error in reversed(said) if error), "no word why")
        return errors.Problem(
            where="tuning",
            found=f"{len(said)} trials and not one that succeeded; the last said: {last}",
            expected="at least one trial with a finite score",
            action="Look at the limits of tuning.space, the learning rate's first.",
        )

    def _search_in_workers(self) -> None:
        """Waits for all workers; the trial of one that was killed has failed, and another process takes its place."""
        running = {f"worker{number}" for number in range(self._workers)}
        restarts, told = 0, -1
        with (
            workers_lib.serve(self.oracle) as port,
            workers_lib.Workers(self._setting, port=port, count=self._workers) as workers,
        ):
            workers.share()
            for name in sorted(running):
                workers.start(name)
            while running:
                for name, status in workers.ended(timeout=_POLL_SECONDS):
                    running.remove(name)
                    if status == 0:
                        continue
                    trials.give_up(self.oracle, name)
                    if restarts == _MAX_RESTARTS:
                        raise RuntimeError(f"{name} ended with {status}; see {workers.log(name)}")
                    restarts += 1
                    running.add(name)
                    workers.start(name)
                ended = len(self.oracle.end_order)
                if ended != told:
                    told = ended
                    progress.report(f"{ended} trials")


def _write_atomically(oracle: Any) -> None:
    """Makes the oracle replace its file as a whole: a kill in the middle of a write would lose the search."""
    fname = oracle._get_oracle_fname  # noqa: SLF001  Keras Tuner has no other way to it

    def save() -> None:
        path = fname()
        partial = f"{path}.partial"
        with tf.io.gfile.GFile(partial, "w") as file:
            file.write(json.dumps(oracle.get_state()))
        tf.io.gfile.rename(partial, path, overwrite=True)

    oracle.save = save


def _stop_after(oracle: Any, seconds: float) -> None:
    """Lets the oracle begin no trial after so many seconds."""
    begun, populate = time.monotonic(), oracle.populate_space

    def within_budget(trial_id: str) -> Any:
        if oracle.trials and time.monotonic() - begun > seconds:
            return {"status": keras_tuner.engine.trial.TrialStatus.STOPPED}
        return populate(trial_id)

    oracle.populate_space = within_budget
