"""What refers to itself is freed when memory is given back, and its pages leave the process."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import numpy as np
import pytest

from evergreen import memory

MIB = 2**20


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's counters")
def test_memory_that_circles_hold_goes_back() -> None:
    class Model:
        """Refers to itself, as a Keras model and its layers do."""

        def __init__(self) -> None:
            self.layer = self
            # Small pieces, which the C library keeps when they are freed.
            self.rows = [np.ones(8192, np.uint8) for _ in range(25_600)]

    memory.give_back()
    gc.disable()
    try:
        before = _resident()
        Model()
        assert _resident() - before > 150 * MIB
        memory.give_back()
        assert _resident() - before < 50 * MIB
    finally:
        gc.enable()


def test_the_peak_is_that_since_the_construction() -> None:
    counter = memory.PeakMemory()
    first = counter.megabytes()
    if first is None:
        pytest.skip("the kernel does not let the peak be counted anew")
    held = np.ones(200 * MIB, np.uint8)
    assert counter.megabytes() - first > 150
    del held
    assert memory.PeakMemory().megabytes() < first + 100
