"""Memory of this process: its peak since a moment, as the Linux kernel counts it, and giving free parts back."""

from __future__ import annotations

import contextlib
import ctypes
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


def give_back() -> None:
    """Hands memory that is free inside the process back to the system.

    glibc keeps what many threads freed in pieces, hundreds of megabytes after a node, and the next node would pay for
    them (`man 3 malloc_trim`). Other C libraries do without.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
