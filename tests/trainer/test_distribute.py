"""Two logical devices at the same global batch train the same model as one."""

from __future__ import annotations

import pickle
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

_IN_ANOTHER_PROCESS = """
import pathlib, pickle, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.trainer.conftest import train_on
transformed, root, training = pickle.load(open(sys.argv[1], "rb"))
train_on(transformed, root, training=training)
"""


@pytest.mark.slow
def test_two_devices_train_what_one_does(humidity: tables.Transformed, tmp_path: Path) -> None:
    training: dict[str, Any] = {"max_steps": 20, "distribution": "none"}
    one = train_on(humidity, tmp_path / "one", training=training)
    arguments = tmp_path / "arguments"
    arguments.write_bytes(pickle.dumps((humidity, tmp_path / "two", training | {"distribution": "mirrored"})))
    subprocess.run([sys.executable, "-c", _IN_ANOTHER_PROCESS, str(arguments)], check=True)
    two = Run(tmp_path / "two" / "model" / "Format-Serving", tmp_path / "two" / "run")
    assert (two.report["strategy"], two.report["replicas"]) == ("MirroredStrategy", 2)
    assert one.report["replicas"] == 1
    assert two.model.exists()
    weights = [
        keras.models.load_model(run.folder / train.MODEL_FILE, compile=False).get_weights() for run in (one, two)
    ]
    # Adam divides by the gradient's own size: the order of a sum of float32 moves a step by far less than 1 % of
    # learning rate x steps = 0.06.
    for alone, together in zip(*weights, strict=True):
        np.testing.assert_allclose(alone, together, atol=6e-4)
    assert two.report["history"]["val_rmse"][-1] == pytest.approx(one.report["history"]["val_rmse"][-1], rel=1e-3)
