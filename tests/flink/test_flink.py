"""The data nodes on an Apache Flink of two workers, which this module starts: the local results, and shared work."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tfx.types import artifact_utils

from components.example_gen import source
from components.records import reading
from datagen import taxi
from evergreen.revision import ROOT
from pipeline.beam import Beam
from pipeline.flink import cluster, processes
from tests import data_nodes

pytestmark = [pytest.mark.flink, pytest.mark.slow]

ROWS = 40_000
WORKERS = 2
FAIR = 0.25
"""Of the work each of two workers does at the least."""
LOCAL = ["--runner=DirectRunner", "--direct_running_mode=in_memory", "--sdk_container_image=none"]
PIECE = re.compile(r"Piece \d+ of \d+: (\d+) rows")
READ = re.compile(r"Read (\d+) rows of \S*/examples/Split-")


@pytest.fixture(scope="module")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[cluster.Layout]:
    layout = cluster.Layout(folder=tmp_path_factory.mktemp("flink"), ports=cluster.Ports.free())
    cluster.up(layout, workers=WORKERS)
    pids = {name: processes.running(layout.folder, name) for name in processes.names(layout.folder)}
    assert len(pids) == 4
    assert all(pids.values())
    yield layout
    cluster.down(layout)
    assert not processes.names(layout.folder)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.values())


@pytest.fixture(scope="module")
def environment(flink: cluster.Layout) -> Mapping[str, Any]:
    """The committed environment, with the ports of this cluster."""
    document = yaml.safe_load((ROOT / "configs" / "environments" / "flink.yaml").read_text(encoding="utf-8"))
    document["beam"]["options"] |= cluster.options(flink.ports, workers=WORKERS)
    return document


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("nodes")
    taxi.write(root / "data", rows=ROWS)
    data_nodes.Nodes(root, LOCAL).prepare()
    return root


@pytest.fixture(scope="module")
def local(root: Path) -> data_nodes.Nodes:
    return data_nodes.Nodes(root, LOCAL)


@pytest.fixture(scope="module")
def remote(root: Path, environment: Mapping[str, Any]) -> data_nodes.Nodes:
    return data_nodes.Nodes(root, Beam.model_validate(environment["beam"]).arguments())


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of seconds is cut as one of hours would be."""
    monkeypatch.setattr(source, "BLOCK", 1 << 16)
    monkeypatch.setattr(reading, "RANGE", 1 << 18)


@pytest.fixture(scope="module")
def expected(local: data_nodes.Nodes) -> Any:
    return local.example_gen("local/examples", f"{local.root}/data/span-1/v-1/*.csv")


@pytest.fixture(scope="module")
def examples(remote: data_nodes.Nodes, flink: cluster.Layout) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "BLOCK", 1 << 16)
        before = _logs(flink)
        made = remote.example_gen("flink/examples", f"{remote.root}/data/span-1/v-1/*.csv", shards=8)
        _assert_fair(_shares(flink, PIECE, before), ROWS)
    return made


def _logs(flink: cluster.Layout) -> set[Path]:
    return set(flink.workers.glob("worker-*.log"))


def _shares(flink: cluster.Layout, line: re.Pattern[str], before: set[Path]) -> dict[str, int]:
    """Adds up the rows that each worker's log tells of."""
    shares = {log.name: sum(map(int, line.findall(log.read_text()))) for log in _logs(flink) - before}
    return {name: share for name, share in shares.items() if share}


def _assert_fair(shares: Mapping[str, int], rows: int) -> None:
    assert len(shares) == WORKERS
    assert sum(shares.values()) == rows
    assert min(shares.values()) >= FAIR * rows


# --- the same results ------------------------------------------------------------------------------------------------


def test_example_gen_deals_out_one_csv_file(examples: Any, expected: Any) -> None:
    data_nodes.same_rows(examples, expected, ROWS)


@pytest.mark.parametrize("kind", ["parquet", "tfrecord", "csv.gz"])
def test_example_gen_deals_out_one_file_of_any_kind(
    kind: str, root: Path, remote: data_nodes.Nodes, local: data_nodes.Nodes, expected: Any, flink: cluster.Layout
) -> None:
    pattern = _one_file(root, kind, expected)
    options = {"format": kind} if "." not in kind else {}
    before = _logs(flink)
    found = remote.example_gen(f"flink/{kind}", pattern, shards=8, **options)
    data_nodes.same_rows(found, expected, ROWS)
    _assert_fair(_shares(flink, PIECE, before), ROWS)


def _one_file(root: Path, kind: str, expected: Any) -> str:
    folder = root / kind
    folder.mkdir()
    if kind == "parquet":
        from pyarrow import parquet

        parquet.write_table(taxi.table(rows=ROWS), folder / "x.parquet", row_group_size=ROWS // 10)
    elif kind == "tfrecord":
        import tensorflow as tf

        with tf.io.TFRecordWriter(str(folder / "x.tfrecord")) as writer:
            for split in artifact_utils.decode_split_names(expected.split_names):
                for record in data_nodes.rows(expected, split).elements():
                    writer.write(record)
    else:
        (file,) = (root / "data" / "span-1" / "v-1").glob("*.csv")
        (folder / "x.csv.gz").write_bytes(gzip.compress(file.read_bytes(), 1))
    return f"{folder}/*"


def test_statistics_are_equal(
    local: data_nodes.Nodes, remote: data_nodes.Nodes, examples: Any, expected: Any, flink: cluster.Layout
) -> None:
    before = _logs(flink)
    found, other = remote.statistics("flink/statistics", examples), local.statistics("local/statistics", expected)
    for split in ("train", "eval", "test"):
        data_nodes.same_statistics(data_nodes.load_statistics(found, split), data_nodes.load_statistics(other, split))
    _assert_fair(_shares(flink, READ, before), ROWS)


def test_transformed_values_are_equal(
    local: data_nodes.Nodes, remote: data_nodes.Nodes, examples: Any, expected: Any
) -> None:
    found, other = remote.transform("flink/transform", examples), local.transform("local/transform", expected)
    counts = {split: data_nodes.rows(expected, split).total() for split in ("train", "eval", "test")}
    data_nodes.same_transformed(found, other, counts)


def test_metrics_are_equal(local: data_nodes.Nodes, remote: data_nodes.Nodes, examples: Any, expected: Any) -> None:
    found, other = remote.evaluation("flink/evaluation", examples), local.evaluation("local/evaluation", expected)
    data_nodes.same_metrics(found, other)


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_killed_worker_loses_and_doubles_nothing(
    remote: data_nodes.Nodes, expected: Any, flink: cluster.Layout
) -> None:
    """The rows are right whenever the worker dies; it is killed anew until its work was done again."""
    for attempt in range(5):
        before = _logs(flink)
        with _killing_one_at_work(flink, before) as killed:
            found = remote.example_gen(f"flink/killed{attempt}", f"{remote.root}/data/span-1/v-1/*.csv", shards=40)
        data_nodes.same_rows(found, expected, ROWS)
        if killed:
            assert f"(process {killed[0]}) ended with -9" in (flink.folder / "pool.log").read_text()
        # What a worker had finished for the runner before it was killed is not done again.
        if killed and sum(_shares(flink, PIECE, before).values()) > ROWS:
            return
    pytest.fail("no worker was killed with unfinished work, five times")


@contextlib.contextmanager
def _killing_one_at_work(flink: cluster.Layout, before: set[Path]) -> Iterator[list[int]]:
    """Kills (-9) the first worker that has done one piece; yields a list that its process id comes into."""
    killed: list[int] = []
    done = threading.Event()

    def kill() -> None:
        while not killed and not done.wait(0.02):
            for log in _logs(flink) - before:
                text = log.read_text()
                if len(PIECE.findall(text)) == 1:
                    killed.append(int(re.findall(r"Process (\d+) is worker", text)[0]))
                    os.kill(killed[0], signal.SIGKILL)
                    return

    watcher = threading.Thread(target=kill)
    watcher.start()
    try:
        yield killed
    finally:
        done.set()
        watcher.join()


def test_a_user_s_mistake_is_told_as_by_the_local_run(remote: data_nodes.Nodes, root: Path) -> None:
    from evergreen.errors import BadInput

    (file,) = (root / "data" / "span-1" / "v-1").glob("*.csv")
    (root / "bad").mkdir()
    lines = file.read_text().splitlines(keepends=True)
    (root / "bad" / "x.csv").write_text("".join([*lines[:5000], *("no,row\n" for _ in range(5000))]))
    with pytest.raises(BadInput) as caught:
        remote.example_gen("flink/bad", f"{root}/bad/*.csv")
    assert "5,000" in caught.value.problems[0].found
    assert not list((root / "flink" / "bad").glob("Split-*"))


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.e2e
def test_the_whole_pipeline_runs_on_flink(
    environment: Mapping[str, Any], tmp_path: Path, flink: cluster.Layout
) -> None:
    path = tmp_path / "flink.yaml"
    folders = {"workspace": str(tmp_path / "runs"), "registry": str(tmp_path / "registry")}
    path.write_text(yaml.safe_dump({**environment, **folders}))
    before = _logs(flink)
    command = [sys.executable, "local_runner.py", "--environment", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (records,) = tmp_path.glob("runs/humidity/logs/*/nodes.json")
    assert {record["state"] for record in json.loads(records.read_text())} == {"done"}
    assert sum(_shares(flink, PIECE, before).values()) == 140_000
    assert (tmp_path / "registry" / "humidity" / "1" / "saved_model.pb").is_file()
