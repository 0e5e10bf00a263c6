"""A training that is killed with SIGKILL goes on from its last checkpoint and ends as if nothing had happened."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests import tables
from tests.trainer.conftest import Run, train_on
from trainer import checkpoints, train

_KILLED = """
import os, pickle, signal, sys
from trainer import checkpoints
from tests.trainer.conftest import train_on
transformed, root, sections, nth, moment = pickle.load(open(sys.argv[1], "rb"))
rename, renames = checkpoints.tf.io.gfile.rename, []
def dying(source, target, **options):
    renames.append(target)
    last = len(renames) == nth
    if last and moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target, **options)
    if last:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoints.tf.io.gfile.rename = dying
train_on(transformed, root, **sections)
"""


def _weights(run: Run) -> list[Any]:
    return keras.models.load_model(run.folder / train.MODEL_FILE, compile=False).get_weights()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("nth", "moment", "cache", "disk", "resumed"),
    # 25 steps an epoch in 5 executions: checkpoint 7 lies in the middle of the second epoch, 5 at the end of the first.
    [(7, "before", 1024, 0, 30), (7, "before", 0, 1, 30), (5, "after", 0, 0, 25)],
)
def test_a_killed_training_ends_with_the_weights_of_one_that_was_not(
    small: tables.Transformed, tmp_path: Path, nth: int, moment: str, cache: int, disk: int, resumed: int
) -> None:
    def sections(folder: str) -> dict[str, Any]:
        training = {
            "epochs": 3, "batch_size": 160, "checkpoint_steps": 5, "cache_mib": cache, "disk_cache_gib": disk,
        }  # fmt: skip
        return {
            "model": {"dropout": 0.2, "hidden_units": [8]},
            "training": training,
            "checkpoint_folder": str(tmp_path / folder),
        }

    arguments = tmp_path / "arguments"
    arguments.write_bytes(pickle.dumps((small, tmp_path / "killed", sections("kept"), nth, moment)))
    child = subprocess.run([sys.executable, "-c", _KILLED, str(arguments)], check=False, capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    assert not (tmp_path / "killed" / "model").exists()
    left = sorted(path.name for path in (tmp_path / "kept").glob("*/step-*.npz"))
    assert left[-2:] == [f"step-{step:08d}.npz" for step in (resumed - 5, resumed)]
    # TFX gives the next execution another folder, and what the killed one wrote is gone.
    again = train_on(small, tmp_path / "again", **sections("kept"))
    whole = train_on(small, tmp_path / "whole", **sections("other"))
    assert (again.report["resumed_from_step"], whole.report["resumed_from_step"]) == (resumed, 0)
    assert again.report["steps"] == whole.report["steps"] == 75
    for one, two in zip(_weights(again), _weights(whole), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    for name, values in whole.report["history"].items():
        np.testing.assert_allclose(again.report["history"][name], values, rtol=1e-5)
    assert list((tmp_path / "kept").iterdir()) == []


def _state(step: int) -> checkpoints.State:
    return checkpoints.State(
        step=step,
        variables=[np.float32([step, 2]), np.int64(7)],
        best=[np.zeros((2, 3), np.float32)],
        told={"history": {"loss": [1.5]}},
    )


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    kept = checkpoints.Checkpoints(str(tmp_path / "new"), keep=2)
    assert kept.latest() is None
    for step in (5, 10, 15):
        kept.save(_state(step))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["step-00000010.npz", "step-00000015.npz"]
    latest = kept.latest()
    assert latest is not None
    assert (latest.step, latest.told) == (15, {"history": {"loss": [1.5]}})
    for values, expected in zip([*latest.variables, *latest.best], [[15, 2], 7, np.zeros((2, 3))], strict=True):
        np.testing.assert_array_equal(values, expected)
    kept.remove()
    assert kept.latest() is None


def test_a_checkpoint_that_was_cut_short_gives_way_to_the_one_before(tmp_path: Path) -> None:
    kept = checkpoints.Checkpoints(str(tmp_path), keep=2)
    kept.save(_state(5))
    kept.save(_state(10))
    newest = tmp_path / "step-00000010.npz"
    newest.write_bytes(newest.read_bytes()[:100])
    latest = kept.latest()
    assert latest is not None
    assert latest.step == 5


def test_a_fingerprint_sees_a_changed_file_and_not_its_folder(tmp_path: Path) -> None:
    def of(folder: str, content: bytes) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "data").write_bytes(content)
        return checkpoints.fingerprint(["config"], files=[str(tmp_path / folder / "data")])

    content = bytes(range(256)) * 1000
    assert of("a", content) == of("b", content)
    assert of("a", content) != of("b", content[:-1] + b"x")
    assert of("a", content) != of("b", b"x" + content[1:])
