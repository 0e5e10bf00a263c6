"""Local files and folders: written such that they show only when complete, named such that libraries find them."""

from __future__ import annotations

import os
from pathlib import Path

PATTERN_SIGNS = "*?[]{}\\"
"""What TensorFlow, Beam and TFX take for a pattern when they list the files of a folder: they would find none."""


def write_whole(path: Path, text: str) -> None:
    """Writes a local text file such that a reader sees the old content or the new, never a part.

    Args:
        path: the file, in a folder that exists.
        text: its whole content, written as UTF-8.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
