"""Processes that are ended by their own ids: whatever else lives under an id is left alone."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from evergreen.errors import BadInput
from pipeline.flink import cluster, install, processes

PATIENT = "import sys, time; print('ready', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + PATIENT


def _start(folder: Path, program: str) -> int:
    pid = processes.start(folder, "x", [sys.executable, "-c", program])
    log = folder / "x.log"
    while "ready" not in log.read_text():
        os.sched_yield()
    return pid


def test_a_process_is_found_and_ended(tmp_path: Path) -> None:
    pid = _start(tmp_path, PATIENT)
    assert processes.running(tmp_path, "x") == pid
    assert processes.names(tmp_path) == ["x"]
    assert os.getsid(pid) == pid
    assert processes.stop(tmp_path, "x")
    assert not Path(f"/proc/{pid}").exists()
    assert processes.names(tmp_path) == []
    assert not processes.stop(tmp_path, "x")


def test_one_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_PATIENCE", 0.2)
    pid = _start(tmp_path, STUBBORN)
    assert processes.stop(tmp_path, "x")
    assert not Path(f"/proc/{pid}").exists()


def test_another_process_under_the_same_id_is_left_alone(tmp_path: Path) -> None:
    pid = _start(tmp_path, PATIENT)
    file = tmp_path / "x.pid"
    ours = file.read_text()
    file.write_text(json.dumps({"pid": pid, "started": "1"}))
    assert processes.running(tmp_path, "x") is None
    assert not processes.stop(tmp_path, "x")
    assert Path(f"/proc/{pid}").exists()
    file.write_text(ours)
    assert processes.stop(tmp_path, "x")


def test_one_that_has_ended_is_not_running(tmp_path: Path) -> None:
    pid = _start(tmp_path, PATIENT)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert processes.running(tmp_path, "x") is None
    assert not processes.stop(tmp_path, "x")
    assert processes.names(tmp_path) == []


def test_a_taken_port_is_told_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(install, "jars", lambda **_: ([], []))
    with socket.socket() as listener:
        listener.bind((cluster.HOST, 0))
        listener.listen()
        ports = cluster.Ports(pool=listener.getsockname()[1])
        with pytest.raises(BadInput) as caught:
            cluster.up(cluster.Layout(folder=tmp_path, ports=ports), workers=1)
    assert "--pool-port" in "".join(problem.action for problem in caught.value.problems)
    assert processes.names(tmp_path) == []


def test_a_file_that_is_not_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(command: list[str], _: str) -> None:
        (folder,) = (word.split("=", 1)[1] for word in command if word.startswith("-DoutputDirectory="))
        (Path(folder) / "beam-model-pipeline-2.62.0.jar").write_bytes(b"something else")

    monkeypatch.setattr(install, "_run", fetched)
    monkeypatch.setattr(install, "_need", lambda *_: None)
    monkeypatch.setattr(install, "_fetch_flink", lambda folder: None)
    with pytest.raises(BadInput) as caught:
        install.jars(cache=tmp_path, say=lambda _: None)
    assert len(caught.value.problems) == len((install._HERE / "jars.sha256").read_text().splitlines())
    assert any(problem.where == "beam-model-pipeline-2.62.0.jar" for problem in caught.value.problems)
    assert not list(tmp_path.glob("gradle/wrapper/flink-job-server*"))
