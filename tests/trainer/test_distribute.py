"""Several devices or workers at the same global batch train the same model as one; only the chief exports."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from evergreen import errors, settings
from tests import tables
from tests.trainer.conftest import Run, train_on
from trainer import distribute, train

TRAINING: dict[str, Any] = {"max_steps": 20, "batch_size": 512, "distribution": "none"}

_IN_ANOTHER_PROCESS = """
import pickle, sys
import tensorflow as tf
devices = int(sys.argv[2])
if devices > 1:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
from tests.trainer.conftest import train_on
if sys.argv[3:] == ["gpu"]:  # the second device stands for a GPU: another one than that which the input is made on
    listed = tf.config.list_logical_devices
    tf.config.list_logical_devices = lambda kind=None: listed("CPU")[1:] if kind == "GPU" else listed(kind)
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


def test_a_device_that_input_is_brought_to_trains_the_same(
    small: tables.Transformed, alone: Run, tmp_path: Path
) -> None:
    arguments = tmp_path / "arguments"
    arguments.write_bytes(pickle.dumps((small, tmp_path, TRAINING | {"distribution": "auto"})))
    subprocess.run([sys.executable, "-c", _IN_ANOTHER_PROCESS, str(arguments), "2", "gpu"], check=True)
    there = Run(tmp_path / "model" / "Format-Serving", tmp_path / "run")
    assert (there.report["strategy"], there.report["replicas"]) == ("OneDeviceStrategy", 1)
    _assert_same(alone, there)


def test_two_workers_train_what_one_does_and_only_the_chief_exports(
    small: tables.Transformed, alone: Run, tmp_path: Path
) -> None:
    addresses = _free_addresses(2)
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


def _free_addresses(count: int) -> list[str]:
    free = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in free]
    for sock in free:
        sock.close()
    return addresses


_WORKER_DIES = """
import os, signal
from trainer import parameter_server
class Dying(parameter_server.Fit):
    def _execute(self, steps):
        losses = super()._execute(steps)
        if steps and not getattr(self, "killed", False):
            self.killed = True
            os.kill(int(os.environ["VICTIM"]), signal.SIGKILL)
        return losses
parameter_server.Fit = Dying
"""


@pytest.mark.parametrize("cache", [1024, 0])
def test_parameter_servers_train_and_outlive_a_worker(small: tables.Transformed, tmp_path: Path, cache: int) -> None:
    chief, server, *workers = _free_addresses(4)
    cluster = {"chief": [chief], "ps": [server], "worker": workers}
    training = {
        "epochs": 4, "batch_size": 128, "distribution": "parameter_server", "learning_rate": 0.02, "cache_mib": cache,
        "checkpoint_steps": 31, "early_stopping_patience": None,
    }  # fmt: skip
    arguments = tmp_path / "arguments"
    arguments.write_bytes(pickle.dumps((small, tmp_path, training)))
    children: list[subprocess.Popen[bytes]] = []
    try:
        for kind, index in (("ps", 0), ("worker", 0), ("worker", 1), ("chief", 0)):
            task = {"cluster": cluster, "task": {"type": kind, "index": index}}
            victim = {"VICTIM": str(children[2].pid)} if kind == "chief" else {}
            children.append(
                subprocess.Popen(
                    [sys.executable, "-c", _WORKER_DIES + _IN_ANOTHER_PROCESS, str(arguments), "1"],
                    env={**os.environ, **victim, "TF_CONFIG": json.dumps(task)},
                    stderr=subprocess.PIPE if kind == "chief" else subprocess.DEVNULL,
                )
            )
        told = children[-1].communicate(timeout=180)[1].decode()
        assert children[-1].returncode == 0, told[-3000:]
        assert children[2].poll() == -signal.SIGKILL
    finally:
        for child in children:
            child.kill()
            child.wait()
    run = Run(tmp_path / "model" / "Format-Serving", tmp_path / "run")
    report = run.report
    assert report["strategy"] == "ParameterServerStrategy"
    assert report["steps"] == 4 * 31
    assert report["history"]["val_rmse"][-1] < report["history"]["val_rmse"][0]
    # Far from the noise floor of 1.416 after so few steps, and far better than the mean, which is 6.6.
    assert report["history"]["val_rmse"][-1] < 3.0
    assert (run.model / "saved_model.pb").exists()


def test_parameter_servers_need_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    training = settings.Training(distribution="parameter_server")
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(errors.BadInput, match="no TF_CONFIG"):
        distribute.strategy(training)
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["127.0.0.1:1"], "chief": ["127.0.0.1:2"]}}))
    with pytest.raises(errors.BadInput, match="a TF_CONFIG without ps"):
        distribute.strategy(training)
