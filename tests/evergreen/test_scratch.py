"""Temporary files of a run: gone when it ends, and at the next one where it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from evergreen.revision import ROOT
from evergreen.scratch import scratch_folder


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files that the user chose."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def test_temporary_files_of_this_process_and_its_children_are_gone_afterwards(tmp_path: Path, temporary: Path):
    leaves_one = "import tempfile; tempfile.mkdtemp()"
    with scratch_folder(remembered_in=tmp_path / "scratch.txt") as folder:
        Path(tempfile.mkdtemp(), "x").write_text("left behind")
        subprocess.run([sys.executable, "-c", leaves_one], check=True)
        assert len(list(folder.iterdir())) == 2
        assert list(temporary.iterdir()) == [folder]
    assert not list(temporary.iterdir())
    assert os.environ["TMPDIR"] == tempfile.gettempdir() == str(temporary)


def test_the_next_run_removes_what_a_killed_one_left(tmp_path: Path, temporary: Path):
    remembered_in = tmp_path / "scratch.txt"
    program = (
        "import os, pathlib, signal, sys, tempfile\n"
        "from evergreen.scratch import scratch_folder\n"
        "with scratch_folder(remembered_in=pathlib.Path(sys.argv[1])):\n"
        "    tempfile.mkdtemp()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(remembered_in)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(temporary.iterdir())) == 1
    with scratch_folder(remembered_in=remembered_in) as folder:
        assert list(temporary.iterdir()) == [folder]


@pytest.mark.parametrize("content", ["", "/", "{tmp_path}/own", "{tmp_path}/evergreen-link", "\0", "evergreen-gone"])
def test_nothing_else_is_removed(tmp_path: Path, temporary: Path, content: str):
    own = tmp_path / "own"
    own.mkdir()
    (tmp_path / "evergreen-link").symlink_to(own)
    remembered_in = tmp_path / "scratch.txt"
    remembered_in.write_text(content.format(tmp_path=tmp_path))
    with scratch_folder(remembered_in=remembered_in):
        assert own.is_dir()
        assert (tmp_path / "evergreen-link").is_symlink()
