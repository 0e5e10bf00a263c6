"""Which share of the training steps waits for input, by TensorFlow's profiler over the second epoch.

It says whether faster reading would make training faster: close to 0 the device is the limit.
"""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Mapping

import keras
import tensorflow as tf

_EPOCH = 1
"""The epoch that is looked at, counted from 0: the first one still traces and fills buffers."""
_STEPS = 1024
"""Steps of it that are looked at, at the least where it has them: what the profiler writes grows with them."""


class InputShare(keras.callbacks.Callback):
    """Profiles the second epoch, or its first steps, and writes `input_share` for TensorBoard, beside the losses."""

    def __init__(self, folder: str) -> None:
        """Takes the folder of the TensorBoard logs."""
        super().__init__()
        self._folder = folder
        self._epoch = 0
        self._traces: tempfile.TemporaryDirectory[str] | None = None
        self.share: float | None = None
        """The share, from 0 to 1; None before it is known, or where another profiler was on."""

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002  as Keras
        """Notes the epoch."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002  as Keras
        """Starts the profiler."""
        if self._epoch != _EPOCH or batch or self.share is not None:
            return
        self._traces = tempfile.TemporaryDirectory()
        try:
            tf.profiler.experimental.start(self._traces.name)
        except tf.errors.AlreadyExistsError:
            self._forget()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002  as Keras
        """Stops it after the last step of the epoch, before the evaluation, and reads what it saw."""
        last = min(_STEPS, self.params.get("steps") or _STEPS)
        if self._traces is None or batch + self.model.steps_per_execution < last:
            return
        tf.profiler.experimental.stop()
        traces = glob.glob(os.path.join(self._traces.name, "**", "*.xplane.pb"), recursive=True)
        self.share = waiting_share(traces[0]) if traces else None
        self._forget()
        if self.share is not None:
            with tf.summary.create_file_writer(os.path.join(self._folder, "train")).as_default():
                tf.summary.scalar("input_share", self.share, step=_EPOCH)

    def _forget(self) -> None:
        assert self._traces is not None
        self._traces.cleanup()
        self._traces = None


def waiting_share(trace: str | os.PathLike[str]) -> float | None:
    """Returns which share of the executions of Keras' train function was spent inside of `IteratorGetNext...`.

    Args:
        trace: what the profiler wrote, an `XSpace`.

    Returns:
        From 0 to 1; None where the trace holds no such execution.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with open(trace, "rb") as file:
        space = xplane_pb2.XSpace.FromString(file.read())
    waited = worked = 0
    for plane in space.planes:
        names = {key: metadata.name for key, metadata in plane.event_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                name = names[event.metadata_id]
                if name.startswith("IteratorGetNext") and name.endswith("::DoCompute"):
                    waited += event.duration_ps
                elif name in ("multi_step_on_iterator", "one_step_on_iterator"):
                    worked += event.duration_ps
    return waited / worked if worked else None
