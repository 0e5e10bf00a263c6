"""Libraries write to the log, C code included; the screen and what comes after are left alone."""

from __future__ import annotations

import subprocess
import sys

from evergreen.revision import ROOT

PROGRAM = """
import os, pathlib, sys
from evergreen.screen import redirected_output
print("before")
with redirected_output(pathlib.Path(sys.argv[1])) as screen:
    print("a library prints")
    os.write(1, b"C prints\\n")
    os.write(2, b"C complains\\n")
    screen.write("for the user\\n")
print("after")
"""


def test_file_descriptors_are_redirected_and_restored(tmp_path):
    log = tmp_path / "run.log"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(log)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["before", "for the user", "after"]
    assert done.stderr == ""
    assert sorted(log.read_text().splitlines()) == ["C complains", "C prints", "a library prints"]
