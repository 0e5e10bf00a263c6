"""What goes on beside the steps: a figure for the screen, TensorBoard, the learning rate, an end when it diverged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from evergreen import errors, progress


class Progress(keras.callbacks.Callback):
    """Reports one telling figure of every epoch: "epoch 3/10, rmse 1.421, eval 1.433"."""

    def __init__(self, epochs: int) -> None:
        """Takes how many epochs the whole training has at the most."""
        super().__init__()
        self._epochs = epochs

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Reports the metric of the task on the train split and on the eval split; where there is none, the loss."""
        values = logs or {}
        name = next(name for name in ("rmse", "accuracy", "loss") if name in values)
        told = f"epoch {epoch + 1}/{self._epochs}, {name} {values[name]:.4g}"
        progress.report(f"{told}, eval {values[f'val_{name}']:.4g}")


class StopWhenDiverged(keras.callbacks.Callback):
    """Ends the run with a reason as soon as the loss is no finite number."""

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Looks at the mean loss of the epoch so far; one step that diverged makes all of it NaN or infinite."""
        self._check((logs or {}).get("loss", 0.0), "the train split", f"about step {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Looks at the eval split's loss."""
        self._check((logs or {}).get("val_loss", 0.0), "the eval split", f"the end of epoch {epoch + 1}")

    def _check(self, loss: float, split: str, when: str) -> None:
        if math.isfinite(loss):
            return
        raise errors.BadInput(
            [
                errors.Problem(
                    where="training",
                    found=f"a loss of {loss} on {split} at {when}",
                    expected="a finite number",
                    action="Lower training.learning_rate, or look for extreme values in the features and the label.",
                )
            ]
        )


def publish(local: str, target: str) -> None:
    """Copies a local file so that `target` is complete as soon as it is there."""
    partial = f"{target}.partial"
    tf.io.gfile.copy(local, partial, overwrite=True)
    tf.io.gfile.rename(partial, target, overwrite=True)


def tensorboard(folder: str, *, histograms: bool = False) -> Any:
    """Writes losses, metrics, learning rate and, on request, histograms of the weights of every epoch."""
    return keras.callbacks.TensorBoard(
        folder, write_graph=False, update_freq="epoch", histogram_freq=1 if histograms else 0
    )
