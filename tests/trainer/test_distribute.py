"""Several devices or workers at the same global batch train the same model as one; only the chief exports."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests import tables
from tests.trainer.conftest import Run, train_on
from trainer import train

TRAINING: dict[str, Any] = {"max_steps": 20, "batch_size": 512, "distribution": "none"}

_IN_ANOTHER_PROCESS = """
import pickle, sys
import tensorflow as tf
devices = int(sys.argv[2])
if devices > 1:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
from tests.trainer.conftest import train_on
transformed, root, training = pickle.load(open(sys.argv[1], "rb"))
train_on(transformed, root, training=training)
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone(small: tables.Transformed, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train_on(small, tmp_path_factory.mktemp("alone"), training=TRAINING)


def _assert_same(one: Run, other: Run) -> None:
    weights = [
        keras.models.load_model(run.folder / train.MODEL_FILE, compile=False).get_weights() for run in (one, other)
    ]
    # Adam divides by the gradient's own size: the order of a sum of float32 moves a step by far less than 1 % of
    # learning rate x steps = 0.06.
    for single, together in zip(*weights, strict=True):
        np.testing.assert_allclose(single, together, atol=6e-4)
    # The loss of an epoch is a mean of means: float32 sums of 20 x 512 terms agree to about 1e-5.
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(one.report["history"][name], other.report["history"][name], rtol=1e-4)


@pytest.mark.parametrize("devices", [2, 4])
def test_several_devices_train_what_one_does(
    small: tables.Transformed, alone: Run, tmp_path: Path, devices: int
) -> None:
    arguments = tmp_path / "arguments"
    arguments.write_bytes(pickle.dumps((small, tmp_path, TRAINING | {"distribution": "mirrored"})))
    command = [sys.executable, "-c", _IN_ANOTHER_PROCESS, str(arguments), str(devices)]
    subprocess.run(command, check=True)
    together = Run(tmp_path / "model" / "Format-Serving", tmp_path / "run")
    assert (together.report["strategy"], together.report["replicas"]) == ("MirroredStrategy", devices)
    assert alone.report["replicas"] == 1
    assert together.model.exists()
    _assert_same(alone, together)


def test_two_workers_train_what_one_does_and_only_the_chief_exports(
    small: tables.Transformed, alone: Run, tmp_path: Path
) -> None:
    free = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in free]
    for sock in free:
        sock.close()
    children = []
    for task in range(2):
        root = tmp_path / f"worker{task}"
        root.mkdir()
        (root / "arguments").write_bytes(pickle.dumps((small, root, TRAINING | {"distribution": "auto"})))
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": task}}
        children.append(
            subprocess.Popen(
                [sys.executable, "-c", _IN_ANOTHER_PROCESS, str(root / "arguments"), "1"],
                env={**os.environ, "TF_CONFIG": json.dumps(cluster)},
                stderr=subprocess.PIPE,
            )
        )
    try:
        told = [child.communicate(timeout=120)[1].decode() for child in children]
    finally:
        for child in children:
            child.kill()
    assert [child.returncode for child in children] == [0, 0], "\n".join(text[-3000:] for text in told)
    chief = Run(tmp_path / "worker0" / "model" / "Format-Serving", tmp_path / "worker0" / "run")
    assert chief.report["strategy"] == "MultiWorkerMirroredStrategy"
    assert chief.report["replicas"] == 2
    assert (chief.model / "saved_model.pb").exists()
    assert sorted(path.name for path in (tmp_path / "worker1").iterdir()) == ["arguments"]
    _assert_same(alone, chief)
