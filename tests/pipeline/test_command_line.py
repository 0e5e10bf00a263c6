"""What every verb of the command line does with failures that are not the verb's own."""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from evergreen.revision import ROOT
from pipeline import command_line

RUNNER = [sys.executable, str(ROOT / "local_runner.py")]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x.csv"), "/data/x.csv\n    found:    no space left"),
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES), "x.yaml"),
            "x.yaml\n    found:    a place that this user may not write",
        ),
        (OSError("lost"), f"{ROOT}\n    found:    lost"),
    ],
)
def test_a_failure_of_the_machine_is_told_in_words(error, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def fail(options: argparse.Namespace) -> int:
        raise error

    assert command_line.carry_out(argparse.Namespace(), fail, root=ROOT) == 1
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told


def test_a_project_in_a_folder_that_is_a_pattern_is_refused(capsys, monkeypatch, tmp_path):
    root = tmp_path / "my [new] project"
    root.mkdir()
    monkeypatch.chdir(tmp_path)
    assert command_line.carry_out(argparse.Namespace(), lambda options: 0, root=root) == 2
    assert f"found:    {root}\n    expected: a folder without * ? [ ]" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_fault():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(
            [*RUNNER, "schema", "show"], stdout=closed, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False
        )
    assert done.returncode == 141
    assert done.stderr == ""


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path):
    table = tmp_path / "table.csv"
    table.write_text("a,y\n" + "".join(f"{row}.5,{row % 2}\n" for row in range(200)))
    (tmp_path / "file").write_text("where a folder is needed")
    done = subprocess.run(
        [*RUNNER, "new", "--data", str(table), "--label", "y", "--config", str(tmp_path / "file" / "x.yaml"),
         "--schema", str(tmp_path / "x.pbtxt")],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert str(tmp_path / "file") in done.stderr
    assert "Traceback" not in done.stderr


def told(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([*RUNNER, *arguments], capture_output=True, text=True, cwd=ROOT, check=False)
    return done.returncode, done.stdout + done.stderr


def test_options_of_all_verbs_may_stand_before_the_verb():
    code, said = told("--config", "configs/prices.yaml", "schema", "show")
    assert (code, said.splitlines()[0]) == (0, "schemas/prices/schema.pbtxt: 7 columns")


def test_every_wrong_option_of_a_new_span_is_told_and_nothing_is_written(tmp_path: Path):
    text = (ROOT / "configs" / "humidity.yaml").read_text().replace("path: data", f"path: {tmp_path}/data")
    (tmp_path / "own.yaml").write_text(text)
    wrong = ["--rows", "0", "--seed", "-1", "--drift", "nan", "--fault", "help"]
    code, said = told("new-span", "--config", str(tmp_path / "own.yaml"), *wrong)
    assert code == 2
    assert [line.split()[-1] for line in said.splitlines() if "new-span --" in line] == wrong[::2]
    assert "expected: one of binary, duplicate_column, empty," in said
    assert not (tmp_path / "data").exists()
