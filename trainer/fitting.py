"""Keras' `fit` that a kill does not set back: the same steps, weights and history, whether it was interrupted or not.

    fitting = Fitting(model, plan, train, evaluation, patience=3, checkpoints=checkpoints, every_steps=500)
    fitting.resume()          # the step that it goes on from, 0 at a first start
    history = fitting.run(callbacks=[...])    # the model has the weights of its best epoch

A checkpoint lies between two executions of Keras' train function. One in the middle of an epoch is resumed by a `fit`
over the rest of that epoch, with the metrics' sums put back, and one over the epochs that are left.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import keras

from evergreen import progress
from trainer import checkpoints as checkpoints_lib
from trainer import data

History = dict[str, list[float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How many steps training takes, in numbers that go into one another."""

    epochs: int
    steps_per_epoch: int
    steps_per_execution: int

    @property
    def steps(self) -> int:
        """Steps when nothing stops it early."""
        return self.epochs * self.steps_per_epoch


class Best(keras.callbacks.Callback):
    """Keeps the weights of the epoch with the lowest loss on the eval split and stops when it lies too far back."""

    def __init__(self, *, patience: int | None) -> None:
        """Takes how many epochs without a better one end the training; None never ends it."""
        super().__init__()
        self.patience = patience
        self.loss = math.inf
        self.waited = 0
        self.stopped = False
        self.weights: checkpoints_lib.Arrays = []

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002  as Keras
        """Compares the epoch's loss with the best one."""
        loss = float((logs or {})["val_loss"])
        if loss < self.loss:
            self.loss, self.waited = loss, 0
            self.weights = self.model.get_weights()
            return
        self.waited += 1
        if self.patience is not None and self.waited >= self.patience:
            self.stopped = self.model.stop_training = True


class Fitting:
    """One training: runs it, and goes on with it after a kill."""

    def __init__(
        self,
        model: keras.Model,
        plan: Plan,
        train: data.Split,
        evaluation: data.Split,
        *,
        patience: int | None,
        keep: Literal["best", "last"] = "best",
        checkpoints: checkpoints_lib.Checkpoints | None = None,
        every_steps: int | None = None,
        every_minutes: float | None = None,
        writes: bool = True,
        fit: Callable[..., Any] | None = None,
    ) -> None:
        """Takes what `fit` needs; changes nothing.

        Args:
            model: built and compiled.
            plan: epochs and steps.
            train: endless batches that can be opened from any step.
            evaluation: one pass of the eval split.
            patience: epochs without a better loss that end the training.
            keep: whether the model ends with the weights of its best epoch or of its last.
            checkpoints: where they go; None writes and resumes nothing.
            every_steps: steps between two checkpoints.
            every_minutes: minutes between two checkpoints.
            writes: whether this process is the one of its workers that writes them; all of them read.
            fit: `parameter_server.Fit` in the place of Keras' `fit`.
        """
        self._model = model
        self._plan = plan
        self._train = train
        self._evaluation = evaluation
        self._checkpoints = checkpoints
        self._every_steps = every_steps
        self._every_seconds = None if every_minutes is None else 60.0 * every_minutes
        self._writes = writes and checkpoints is not None
        self._best = Best(patience=patience)
        self._keep = keep
        self._history: History = {}
        self._step = 0
        self._saved = 0
        self._saved_at = time.monotonic()
        self._metrics: checkpoints_lib.Arrays = []
        self._fit = fit or self._keras_fit

    def resume(self, of: checkpoints_lib.Checkpoints | None = None) -> int:
        """Takes up the latest checkpoint, if there is one, and returns the number of steps that are done.

        Args:
            of: another training's checkpoints to go on from, with the same model and batches.
        """
        checkpoints = of or self._checkpoints
        state = checkpoints.latest() if checkpoints else None
        if state is None or not self._fits(state):
            return 0
        self._model.optimizer.build(self._model.trainable_variables)
        fixed = len(self._model.variables) + len(self._model.optimizer.variables)
        variables = checkpoints_lib.of_model(self._model)
        for variable, value in zip(variables[:fixed], state.variables, strict=False):
            variable.assign(value)
        if state.step % self._plan.steps_per_epoch:
            # Keras makes the metrics' sums when it first sees a batch.
            self._model.evaluate(self._evaluation.dataset.take(1), verbose=0)
            self._metrics = state.variables[fixed:]
        self._best.weights = state.best
        self._best.loss, self._best.waited = state.told["best_loss"] or math.inf, state.told["waited"]
        self._best.stopped = state.told["stopped"]
        self._history = state.told["history"]
        self._step = self._saved = state.step
        return state.step

    def run(
        self, callbacks: Sequence[keras.callbacks.Callback] = (), *, save_last: bool = False, **fit: Any
    ) -> History:
        """Trains to the end and leaves the weights of the best epoch, or of the last, in the model.

        Args:
            callbacks: what is called beside; they see epochs by their numbers in the whole training.
            save_last: whether the state after the last step is written, for a training that goes on from there.
            fit: further arguments of Keras' `fit`.

        Returns:
            Losses and metrics of every epoch.
        """
        while self._step < self._plan.steps and not self._best.stopped:
            epoch, done = divmod(self._step, self._plan.steps_per_epoch)
            last = epoch + 1 if done else self._plan.epochs
            self._fit(
                self._step,
                initial_epoch=epoch,
                epochs=last,
                steps_per_epoch=self._plan.steps_per_epoch - done,
                steps_per_execution=self._plan.steps_per_execution,
                validation_data=self._evaluation.dataset,
                callbacks=[self._best, _Follow(self), *callbacks],
                **fit,
            )
        if save_last:
            self._save()
        if self._best.weights and self._keep == "best":
            self._model.set_weights(self._best.weights)
        return self._history

    def _keras_fit(self, step: int, *, steps_per_execution: int, **fit: Any) -> None:  # noqa: ARG002  compiled in
        self._model.fit(self._train.start(step), verbose=0, **fit)

    def _fits(self, state: checkpoints_lib.State) -> bool:
        """Tells whether a state is one of this model; one of an earlier release is not, and training starts anew."""
        self._model.optimizer.build(self._model.trainable_variables)
        ours = [tuple(v.shape) for v in [*self._model.variables, *self._model.optimizer.variables]]
        fits = ours == [value.shape for value in state.variables[: len(ours)]]
        if not fits:
            progress.report("the checkpoint is of another model; training starts anew")
        return fits

    def begin_epoch(self) -> None:
        """Puts the metrics' sums of a checkpoint back, after Keras has reset them."""
        for variable, value in zip(self._model.metrics_variables, self._metrics, strict=False):
            variable.assign(value)
        self._metrics = []

    def advance(self, steps: int, *, whole_epoch: bool) -> None:
        """Counts steps; between two executions in an epoch, writes a checkpoint when one is due."""
        self._step += steps
        # The end of an epoch is not over before its evaluation, which `end_epoch` sees.
        if not whole_epoch:
            self._save_when_due()

    def end_epoch(self, logs: Mapping[str, float]) -> None:
        """Notes an epoch's figures; writes a checkpoint when one is due."""
        for name, value in logs.items():
            self._history.setdefault(name, []).append(float(value))
        self._save_when_due()

    def _save_when_due(self) -> None:
        steps_due = self._every_steps is not None and self._step - self._saved >= self._every_steps
        late = self._every_seconds is not None and time.monotonic() - self._saved_at >= self._every_seconds
        if self._writes and (steps_due or late):
            self._save()

    def _save(self) -> None:
        assert self._checkpoints is not None
        self._checkpoints.save(
            checkpoints_lib.State(
                step=self._step,
                variables=[variable.numpy() for variable in checkpoints_lib.of_model(self._model)],
                best=self._best.weights,
                told={
                    "best_loss": None if math.isinf(self._best.loss) else self._best.loss,
                    "waited": self._best.waited,
                    "stopped": self._best.stopped,
                    "history": self._history,
                },
            )
        )
        self._saved, self._saved_at = self._step, time.monotonic()


class _Follow(keras.callbacks.Callback):
    """Tells a `Fitting` what Keras is doing."""

    def __init__(self, fitting: Fitting) -> None:
        super().__init__()
        self._fitting = fitting
        self._last = -1

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002  Keras names it
        self._last = -1  # Keras counts from 0, in the rest of an epoch too
        self._fitting.begin_epoch()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002  Keras names it
        self._fitting.advance(batch - self._last, whole_epoch=batch + 1 == self.params["steps"])
        self._last = batch

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002  as Keras
        self._fitting.end_epoch(logs or {})
