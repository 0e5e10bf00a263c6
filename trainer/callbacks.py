"""What happens at the end of an epoch: a figure for the screen, a checkpoint, and an end to a run that diverged."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from evergreen import errors, progress


class Progress(keras.callbacks.Callback):
    """Reports one telling figure of every epoch: "epoch 3/10, rmse 1.421, eval 1.433"."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Reports the metric of the task, on the train split and on the eval split."""
        values = logs or {}
        name = "rmse" if "rmse" in values else "accuracy"
        told = f"epoch {epoch + 1}/{self.params['epochs']}, {name} {values[name]:.4g}"
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


class Checkpoint(keras.callbacks.Callback):
    """Keeps the weights and the optimizer of the latest epoch: `latest.weights.h5`, with `latest.json` beside it.

    Both are written under another name first: what has the name is complete.
    """

    def __init__(self, folder: str) -> None:
        """Takes the folder, on any filesystem that TensorFlow can open."""
        super().__init__()
        self._folder = folder

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Writes the checkpoint of this epoch in the place of the last one."""
        tf.io.gfile.makedirs(self._folder)
        with tempfile.TemporaryDirectory() as scratch:
            local = os.path.join(scratch, "latest.weights.h5")
            self.model.save_weights(local)
            publish(local, os.path.join(self._folder, "latest.weights.h5"))
            state = os.path.join(scratch, "latest.json")
            with open(state, "w", encoding="utf-8") as file:
                json.dump({"epoch": epoch + 1, "logs": {k: float(v) for k, v in (logs or {}).items()}}, file)
            publish(state, os.path.join(self._folder, "latest.json"))


def publish(local: str, target: str) -> None:
    """Copies a local file so that `target` is complete as soon as it is there."""
    partial = f"{target}.partial"
    tf.io.gfile.copy(local, partial, overwrite=True)
    tf.io.gfile.rename(partial, target, overwrite=True)


def tensorboard(folder: str) -> Any:
    """Writes losses, metrics and the learning rate of every epoch for TensorBoard."""
    return keras.callbacks.TensorBoard(folder, write_graph=False, update_freq="epoch")
