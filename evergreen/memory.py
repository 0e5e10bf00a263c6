"""How much memory this process needed at the most since a moment, as the Linux kernel counts it."""

from __future__ import annotations

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
