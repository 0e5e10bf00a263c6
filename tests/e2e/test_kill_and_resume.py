"""kill -9 at every node: nothing half done is taken for done, finished nodes are not done again, one run at a time."""

from __future__ import annotations

import signal

import pytest

from datagen import humidity
from tests.e2e.conftest import Workspace

pytestmark = pytest.mark.e2e

NODES = ["ExampleGen", "StatisticsGen", "ImportSchemaGen", "Champion", "ExampleValidator"]
NODES += ["Transform", "Trainer", "Evaluator", "Pusher"]


@pytest.fixture(scope="module")
def small(workspace: Workspace) -> Workspace:
    humidity.generate(workspace.data, spans=2, rows=2_000)
    workspace.configure(training={"epochs": 3}, evaluation__bounds=None)
    return workspace


def kill_at(workspace: Workspace, node: str) -> dict[str, str]:
    """Kills a run when it says that `node` started; returns the states of the nodes until then."""
    states: dict[str, str] = {}
    with workspace.start() as process:
        for line in process.stdout:
            name, _, rest = line.partition(": ")
            states[name] = rest.split()[0] if rest else ""
            if line.startswith(f"{node}: running"):
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    return states


@pytest.mark.parametrize("node", NODES)
def test_a_run_killed_at_a_node_goes_on_there(small: Workspace, node: str):
    states = kill_at(small, node)
    before = NODES[: NODES.index(node)]
    # The node before this one ran for the first time just now; those before it are not done again.
    assert [states[name] for name in before[:-1]] == ["unchanged"] * len(before[:-1])
    assert states[node] == "running"
    assert small.published() == ([], None)


def test_after_all_that_the_run_ends_well_and_publishes_once(small: Workspace):
    ended = small.run()
    assert ended.code == 0, ended.out + ended.err
    states = ended.states()
    assert [states[name] for name in NODES[:-1]] == ["unchanged"] * 8
    assert states["Pusher"] == "done"
    assert small.published() == ([1], 1)


def test_a_second_run_is_refused_while_one_is_going_on(small: Workspace):
    with small.start("--no-cache", "--to", "ExampleGen") as first:
        for line in first.stdout:
            if "Loading" in line:
                second = small.run()
                break
        first.communicate()
    assert second.code == 4
    assert str(first.pid) in second.err
    assert "Wait for it to end" in second.err


def test_sigterm_stops_in_order_and_says_how_to_resume(small: Workspace):
    with small.start("--no-cache") as process:
        out = ""
        for line in process.stdout:
            out += line
            if line.startswith("ExampleGen: running"):
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 130, out
    assert "Resume with: python local_runner.py --config" in out
    assert small.published() == ([1], 1)


def test_options_do_what_they_say(small: Workspace):
    assert small.run().code == 0  # what the two tests before left unfinished
    again = small.run("--from", "Evaluator")
    assert again.code == 0, again.out + again.err
    states = again.states()
    assert [name for name, state in states.items() if state == "done"] == ["Evaluator", "Pusher"]
    unknown = small.run("--from", "Trainr")
    assert unknown.code == 2
    assert "Trainer" in unknown.err
    fresh = small.run("--fresh", "--to", "ExampleGen")
    assert fresh.states()["ExampleGen"] == "done"
    assert len(list((small.root / "artifacts").iterdir())) <= 2
