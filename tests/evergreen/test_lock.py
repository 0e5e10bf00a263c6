"""One run at a time: refused while held, free again however the holder ends."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from evergreen.errors import Busy
from evergreen.lock import exclusive
from evergreen.revision import ROOT

HOLD = (
    "import sys, pathlib\n"
    "from evergreen.lock import exclusive\n"
    "with exclusive(pathlib.Path(sys.argv[1]), doing='the holder'):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


def test_a_second_holder_is_refused_and_told_who_holds_it(tmp_path):
    path = tmp_path / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Busy) as caught, exclusive(path, doing="me"):
            pytest.fail("the lock was given twice")
        assert "the holder" in str(caught.value)
        assert str(holder.pid) in str(caught.value)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with exclusive(path, doing="me"):
            assert "me" in path.read_text()


def test_the_lock_can_be_taken_again(tmp_path):
    for _ in range(2):
        with exclusive(tmp_path / "deep" / ".lock", doing="me"):
            pass
