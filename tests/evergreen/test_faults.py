"""Failures of the machine in words, however the libraries wrap them."""

from __future__ import annotations

import errno
import os

import pytest

from evergreen.faults import of_the_machine

BEAM = "tensorflow.python.framework.errors_impl.ResourceExhaustedError: /work/examples/1/x.tmp; No space left on device"


@pytest.mark.parametrize(
    ("failure", "where", "found"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/work/x"), "/work/x", "no space left on the device"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "/runs", "no space left on the device"),
        (RuntimeError(f"{BEAM} [while running 'Write']"), "/work/examples/1/x.tmp", "no space left on the device"),
        (RuntimeError("Error when executing query: database or disk is full"), "/runs", "no space left on the device"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "a b"), "a b", "may not write or read"),
        (RuntimeError("attempt to write a readonly database"), "/runs", "may not write or read"),
        (OSError("src /a/b does not exist"), "/runs", "src /a/b does not exist"),
        (MemoryError(), "this machine", "no memory left"),
        (NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), "/a/file/x"), "/a/file/x", "Not a directory"),
    ],
)
def test_the_machines_words_are_found(failure, where, found):
    problem = of_the_machine(failure, place="/runs")
    assert problem is not None
    assert problem.where == where
    assert found in problem.found


def test_a_bug_is_no_failure_of_the_machine():
    assert of_the_machine(KeyError("beta1"), place="/runs") is None
