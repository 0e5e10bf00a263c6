"""What an attempt of a node leaves for those after it, on the one place that outlives its pod: beside the registry.

Kubeflow Pipelines retries a step whatever its exit code, and its launcher ends with 1 for every code of ours. So an
attempt that stopped for a reason which a retry does not remove leaves a note, and the next attempt of the same node in
the same run reads it and stops at once, with the same words. The exit step reads it too: nobody else tells it why.

A person who retries a failed run does want the work done again. Then the first attempt has the name of a pod that
noted itself before (the names go by the number of the attempt), and the old note is dropped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import posixpath
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evergreen.errors import ExitCode
from evergreen.files import write_whole

FINAL = (ExitCode.BAD_INPUT, ExitCode.REFUSED)
"""The outcomes that a retry does not change."""
LARGEST_KEPT = 32 << 20
"""Bytes of a refused node's outputs that are kept at the most: reports are small, examples are not wanted."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Note:
    """What happened to a node so far."""

    task: str
    attempts: Sequence[str] = ()
    """The pods that worked on it."""
    exit_code: int | None = None
    """How the last attempt ended; none while it works, or when it was killed."""
    problems: Sequence[dict[str, str]] = ()
    """Why: where, found, expected, action."""
    fault: str = ""
    """The headline of a fault."""
    kept: str = ""
    """The folder with what the attempt wrote into its outputs: the launcher uploads nothing of a node that failed."""

    def is_final(self) -> bool:
        """Says whether another attempt would end the same way."""
        return self.exit_code is not None and self.exit_code in FINAL


class Notes:
    """The notes of one run; a folder on a volume, or under a `gs://` path."""

    def __init__(self, root: str, run: str) -> None:
        """Opens the notes of `run` under `root`; nothing is made until something is written."""
        self._folder = posixpath.join(root, run)

    def begin(self, task: str, *, pod: str) -> Note:
        """Notes that `pod` works on `task`, and returns what was there before.

        Returns:
            The note of the attempts before. A final one counts only for an automatic retry; when a person started the
            work again it is dropped.
        """
        before = self.read(task) or Note(task=task)
        if pod in before.attempts:
            before = Note(task=task)
        if not before.is_final():
            self._write(dataclasses.replace(before, attempts=[*before.attempts, pod], exit_code=None))
        return before

    def end(
        self,
        task: str,
        *,
        exit_code: ExitCode,
        problems: Sequence[dict[str, str]] = (),
        fault: str = "",
        kept: str = "",
    ) -> None:
        """Notes how the attempt ended; a node that is done needs no note."""
        if exit_code is ExitCode.OK:
            self._remove(task)
            self._remove_folder()
            return
        before = self.read(task) or Note(task=task)
        self._write(dataclasses.replace(before, exit_code=int(exit_code), problems=problems, fault=fault, kept=kept))

    def keep(self, task: str, outputs: Mapping[str, Path]) -> str:
        """Copies what a refused node wrote, its report above all, to where it outlives the pod.

        Args:
            task: the node.
            outputs: the folder of each output.

        Returns:
            The folder; "" where nothing was written, it is more than `LARGEST_KEPT`, or the notes are on no volume.
        """
        files = [(key, path, file) for key, path in outputs.items() for file in path.rglob("*") if file.is_file()]
        if not files or self._is_remote() or sum(file.stat().st_size for _, _, file in files) > LARGEST_KEPT:
            return ""
        folder = Path(self._folder, task)
        for key, path, file in files:
            target = folder / key / file.relative_to(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        return str(folder)

    def read(self, task: str) -> Note | None:
        """Returns the note on `task`; none where there is none or it cannot be read."""
        text = self._text(self._path(task))
        return _parsed(text) if text is not None else None

    def all(self) -> list[Note]:
        """Returns every note of the run, by task."""
        return [note for name in self._names() if (note := self.read(name.removesuffix(".json")))]

    def clear(self) -> None:
        """Removes the run's notes."""
        for name in self._names():
            self._remove(name.removesuffix(".json"))
        self._remove_folder()

    # The places of a cluster are volumes and `gs://`; TensorFlow opens the latter, and is loaded for it only.

    def _is_remote(self) -> bool:
        return "://" in self._folder

    def _path(self, task: str) -> str:
        return posixpath.join(self._folder, f"{task}.json")

    def _text(self, path: str) -> str | None:
        if self._is_remote():
            gfile = _gfile()
            return str(gfile.GFile(path).read()) if gfile.exists(path) else None
        try:
            return Path(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def _names(self) -> list[str]:
        if self._is_remote():
            gfile = _gfile()
            names = gfile.listdir(self._folder) if gfile.isdir(self._folder) else []
        else:
            names = os.listdir(self._folder) if os.path.isdir(self._folder) else []
        return sorted(name for name in names if name.endswith(".json") and not name.startswith("."))

    def _write(self, note: Note) -> None:
        text = json.dumps(dataclasses.asdict(note), indent=1)
        if self._is_remote():
            with _gfile().GFile(self._path(note.task), "w") as file:
                file.write(text)
            return
        os.makedirs(self._folder, exist_ok=True)
        write_whole(Path(self._path(note.task)), text)

    def _remove(self, task: str) -> None:
        path = self._path(task)
        if not self._is_remote():
            Path(path).unlink(missing_ok=True)
        elif _gfile().exists(path):
            _gfile().remove(path)

    def _remove_folder(self) -> None:
        """Removes the run's folder; where other nodes have notes in it, it stays."""
        if not self._is_remote():
            with contextlib.suppress(OSError):
                os.rmdir(self._folder)


def _gfile() -> Any:
    import tensorflow as tf

    return tf.io.gfile


def _parsed(text: str) -> Note | None:
    try:
        return Note(**json.loads(text))
    except (ValueError, TypeError):
        return None
