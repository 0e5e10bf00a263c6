"""kill -9 in the middle of a node's writing: the next run takes nothing of what is left for data."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from datagen import humidity
from evergreen.revision import ROOT
from tests.e2e.conftest import Workspace

pytestmark = pytest.mark.e2e

ROWS = 4_000
# The same command line, that kills itself when a function is called for the n-th time with a word among its arguments.
DRIVER = """
import functools, importlib, os, signal, sys

module, path, word, count, *arguments = sys.argv[1:]
*parents, name = path.split(".")
owner = functools.reduce(getattr, parents, importlib.import_module(module))
function, calls = getattr(owner, name), []

@functools.wraps(function)
def killing(*positional, **named):
    calls.extend([1] if word in repr(positional) else [])
    if len(calls) == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*positional, **named)

setattr(owner, name, killing)
import local_runner
sys.exit(local_runner.main(arguments))
"""


@pytest.fixture(scope="module")
def small(workspace: Workspace) -> Workspace:
    humidity.generate(workspace.data, spans=2, rows=ROWS // 2)
    workspace.configure(training={"epochs": 3}, evaluation__bounds=None)
    return workspace


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _rows(folder: Path) -> int:
    files = [str(path) for path in folder.glob("Split-*/*")]
    return sum(1 for _ in tf.data.TFRecordDataset(files).as_numpy_iterator())


@pytest.mark.parametrize(
    ("node", "key", "module", "path", "word", "count", "left"),
    [
        # Some shards have their names, the others do not.
        ("ExampleGen", "examples", "tensorflow", "io.gfile.rename", "Split-", 3, "Split-"),
        # A shard is being written.
        ("ExampleGen", "examples", "components.example_gen.pieces", "_Shards.write", "", 4, ".tmp"),
        # One split has its statistics, another has none.
        ("StatisticsGen", "statistics", "components.statistics_gen.executor", "_write", "", 2, "FeatureStats.pb"),
        ("Transform", "transformed_examples", "tensorflow", "io.gfile.rename", "Split-", 3, "Split-"),
        # All metrics are there, the verdict and the blessing are not.
        ("Evaluator", "evaluation", "components.evaluator.verdict", "Verdict.write", "", 1, "metrics"),
    ],
)
def test_what_a_killed_node_leaves_is_never_taken_for_data(
    small: Workspace, node: str, key: str, module: str, path: str, word: str, count: int, left: str
) -> None:
    # What an earlier test has finished is done again.
    arguments = ("--from", node, "--to", node)
    command = small.command(*arguments)
    driver = [sys.executable, "-c", DRIVER, module, path, word, str(count), *command[2:]]
    killed = subprocess.run(driver, cwd=ROOT, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    remains = small.latest(node, key)
    assert any(name.startswith(left) or name.endswith(left) for name in _files(remains)), _files(remains)

    ended = small.run(*arguments)
    assert ended.code == 0, ended.out + ended.err
    assert ended.states()[node] == "done"
    assert not remains.exists()
    made = small.latest(node, key)
    assert not any("/." in f"/{name}" or name.endswith(".tmp") for name in _files(made)), _files(made)
    if node in ("ExampleGen", "Transform"):
        assert _rows(made) == ROWS
    if node == "StatisticsGen":
        assert {name.split("/")[0] for name in _files(made)} == {"Split-train", "Split-eval", "Split-test"}
    if node == "Evaluator":
        assert small.verdict()["blessed"] is True
