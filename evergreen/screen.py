"""Keeps the screen for the user: whatever libraries write to standard output and error goes to a log file.

TensorFlow's C++ code writes to the file descriptors, so it is those that are redirected; the screen is a duplicate of
the original standard output.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

Screen = TextIO


@contextlib.contextmanager
def redirected_output(log: Path) -> Iterator[Screen]:
    """Sends file descriptors 1 and 2 to `log` while the block runs.

    Args:
        log: the file; what is in it already stays.

    Yields:
        The screen: a text stream on what standard output was before.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        with os.fdopen(os.dup(saved[0]), "w", encoding="utf-8", buffering=1) as screen:
            os.dup2(target, 1)
            os.dup2(target, 2)
            try:
                yield screen
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os.dup2(saved[0], 1)
                os.dup2(saved[1], 2)
    finally:
        for descriptor in (*saved, target):
            os.close(descriptor)
