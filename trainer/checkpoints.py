"""Checkpoints of a training: written whole, the last few kept, found again by the run after a kill.

    checkpoints = Checkpoints(os.path.join(folder, fingerprint), keep=2)
    state = checkpoints.latest()        # None at the first start
    checkpoints.save(state)             # step-00000450.npz, there only once it is complete
    checkpoints.remove()                # when nothing is left to resume

A state is every number that the rest of the training depends on: weights, optimiser, random seeds, the metrics'
sums of the epoch under way, the best weights so far, and the step, which is the position in the input too. The folder
is keyed by what decides the training (configuration, data, serving model), so that a state never meets another's run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

Arrays = list[npt.NDArray[Any]]

_FORMAT = 1
_META = "meta"
_NAME = re.compile(r"step-(\d{8,})\.npz")
_EDGE = 1 << 16
"""Bytes of a file's beginning and end that stand for its contents, beside its size."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    """A training between two steps."""

    step: int
    """Steps that are done."""
    variables: Arrays
    """Model, optimiser and metrics, in the order that `of_model` gives."""
    best: Arrays = dataclasses.field(default_factory=list)
    """Weights of the best epoch so far; empty before the first epoch's end."""
    told: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What else is needed, as JSON: the history, the best loss, whether training has stopped early."""


def of_model(model: Any) -> list[Any]:
    """Lists the variables of a compiled and built Keras model on which the steps to come depend."""
    return [*model.variables, *model.optimizer.variables, *model.metrics_variables]


class Checkpoints:
    """The checkpoints of one training in a folder of their own, on any filesystem that TensorFlow can open."""

    def __init__(self, folder: str, *, keep: int) -> None:
        """Takes the folder and how many of the latest checkpoints stay in it; touches nothing."""
        self._folder = folder
        self._keep = keep

    def save(self, state: State) -> None:
        """Writes a state; a kill at any moment leaves the earlier ones as they were."""
        buffer = io.BytesIO()
        told = {"format": _FORMAT, "step": state.step, "variables": len(state.variables), "told": state.told}
        arrays = {f"{place:06d}": value for place, value in enumerate([*state.variables, *state.best])}
        np.savez(buffer, **{_META: np.frombuffer(json.dumps(told).encode(), np.uint8)}, **arrays)
        tf.io.gfile.makedirs(self._folder)
        path = os.path.join(self._folder, f"step-{state.step:08d}.npz")
        _write_whole(path, buffer.getvalue())
        for old in self._paths()[self._keep :]:
            tf.io.gfile.remove(old)

    def latest(self) -> State | None:
        """Reads the newest checkpoint that can be read; None where there is none."""
        for path in self._paths():
            try:
                return _read(path)
            except Exception:  # noqa: BLE001, S112  a file cut short by a full disk or a crash: the one before will do
                continue
        return None

    def remove(self) -> None:
        """Removes the folder."""
        if tf.io.gfile.exists(self._folder):
            tf.io.gfile.rmtree(self._folder)

    def _paths(self) -> Sequence[str]:
        """Lists the complete checkpoints, the newest first."""
        if not tf.io.gfile.isdir(self._folder):
            return []
        found = [name for name in tf.io.gfile.listdir(self._folder) if _NAME.fullmatch(name)]
        found.sort(key=lambda name: int(name.removeprefix("step-").removesuffix(".npz")), reverse=True)
        return [os.path.join(self._folder, name) for name in found]


def fingerprint(parts: Iterable[str], *, files: Iterable[str] = ()) -> str:
    """Returns a sha256 of texts and of files.

    Args:
        parts: texts, in their order.
        files: paths; a file counts by its name, its size and its first and last 64 KiB, so that a large split costs
            nothing and a copy of it elsewhere is the same.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part.encode()).digest())
    for path in files:
        size = tf.io.gfile.stat(path).length
        digest.update(f"{os.path.basename(path)}\0{size}\0".encode())
        with tf.io.gfile.GFile(path, "rb") as file:
            digest.update(file.read(_EDGE))
            file.seek(max(0, size - _EDGE))
            digest.update(file.read(_EDGE))
    return digest.hexdigest()


def _read(path: str) -> State:
    with tf.io.gfile.GFile(path, "rb") as file:
        archive = np.load(io.BytesIO(file.read()), allow_pickle=False)
    told = json.loads(bytes(archive[_META]).decode())
    if told["format"] != _FORMAT:
        raise ValueError(f"{path} is of format {told['format']}, not {_FORMAT}")
    arrays = [archive[name] for name in sorted(archive.files) if name != _META]
    return State(
        step=told["step"], variables=arrays[: told["variables"]], best=arrays[told["variables"] :], told=told["told"]
    )


def _write_whole(path: str, content: bytes) -> None:
    partial = f"{path}.partial"
    with tf.io.gfile.GFile(partial, "wb") as file:
        file.write(content)
        file.flush()
    if "://" not in partial:
        with open(partial, "rb") as written:
            os.fsync(written.fileno())
    tf.io.gfile.rename(partial, path, overwrite=True)
