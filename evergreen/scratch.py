"""A folder for the temporary files of one run, gone when the run ends, and at the next run where it was killed.

TensorFlow, Beam and TFX leave files in the folder for temporary files when their process dies, some when it does not.

    with scratch_folder(remembered_in=root / "scratch.txt"):
        ...                       # tempfile and child processes use a folder of this run alone
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from evergreen.files import write_whole

_PREFIX = "evergreen-"


@contextlib.contextmanager
def scratch_folder(*, remembered_in: Path) -> Iterator[Path]:
    """Gives `tempfile` and the processes that are started a folder of their own while the block runs.

    Args:
        remembered_in: a file that says where the folder is, so that the next run finds that of a killed one. Only one
            process at a time may use it.

    Yields:
        The folder, in the folder for temporary files that the user chose (TMPDIR).
    """
    _remove_what_is_left(remembered_in)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    before = os.environ.get("TMPDIR"), tempfile.tempdir
    try:
        write_whole(remembered_in, str(folder))
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        yield folder
    finally:
        _restore(*before)
        shutil.rmtree(folder, ignore_errors=True)
        remembered_in.unlink(missing_ok=True)


def _restore(variable: str | None, tempdir: str | None) -> None:
    tempfile.tempdir = tempdir
    if variable is None:
        os.environ.pop("TMPDIR", None)
    else:
        os.environ["TMPDIR"] = variable


def _remove_what_is_left(remembered_in: Path) -> None:
    """Removes the folder of a killed run: only a real folder of this user's with the name that this module gives."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        folder = Path(remembered_in.read_text(encoding="utf-8"))
        ours = folder.name.startswith(_PREFIX) and folder.lstat().st_uid == os.getuid()
        if ours and folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder, ignore_errors=True)
