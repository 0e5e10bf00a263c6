"""Memory of this process: its peak since a moment, as the Linux kernel counts it, and giving back what is free."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """Counts from its construction. Where the kernel offers no counter (macOS), there is nothing to tell."""

    def __init__(self) -> None:
        """Sets the kernel's high-water mark back to what is used now (`man 5 proc`, clear_refs, value 5)."""
        try:
            _CLEAR.write_text("5", encoding="ascii")
            self._counts = True
        except OSError:
            self._counts = False

    def megabytes(self) -> float | None:
        """Returns the peak resident memory in MiB, or None where it is not known."""
        if not self._counts:
            return None
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        return None


def keep() -> None:
    """Leaves all objects that there are now out of every later collection of garbage.

    What the imports of TensorFlow and TFX make lives as long as the process: 600,000 objects, and a third of a second
    whenever Python looks through all of them for garbage.
    """
    gc.freeze()


def give_back() -> None:
    """Hands memory that this process does not need any more back to the system.

    What a training leaves (model, data, optimizer) refers to itself in circles, and lives until garbage is collected.
    And glibc keeps what many threads freed in pieces, hundreds of megabytes after a node, for which the next node would
    pay (`man 3 malloc_trim`); other C libraries do without.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
