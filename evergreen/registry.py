"""The model registry: a folder of versions that only grows, in which nothing half done is ever visible.

```
<root>/<name>/<version>/            a SavedModel that TensorFlow Serving can serve from here as it is
<root>/<name>/.bundles/<version>/   manifest.json and what explains the model: schema, statistics, evaluation ...
<root>/<name>/.labels.json          which version is serving ("stable") and the highest number ever given
<root>/<name>/.lock                 held by the one process that publishes
<root>/<name>/.staging-<pid>-<id>/  a publish under way, or what a killed one left
```

`Registry.publish` copies everything into a staging folder, then renames the bundle, then the model, then replaces the
labels: a version is never seen without its bundle, and never serves before it is whole. A kill at any point leaves
the registry loadable, and the same publish again makes no second version of the same model.

    registry = Registry("runs/registry", "humidity")
    version = registry.publish(model_dir=export, bundle={"schema.pbtxt": schema}, provenance=Provenance(...))
    registry.manifest(version).metrics

Limits of a root with a scheme (`gs://...`), which goes through `tf.io.gfile`: such stores rename file by file and have
no locks. There the replaced labels are the commit point: readers of this module see only versions that the labels
know; what lies above is finished or removed by the next publish. At most one process may publish to such a registry at
a time, and a TensorFlow Serving that watches it may see a version shortly before it is labelled (its `saved_model.pb`
comes last). A local root needs a file system whose `flock` reaches every process that publishes.
"""

from __future__ import annotations

import contextlib
import datetime
import enum
import fcntl
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, Protocol, TypeVar

import pydantic

from evergreen.errors import BadInput, Problem

MANIFEST = "manifest.json"
"""The bundle's file that answers where a version comes from."""

_LABELS = ".labels.json"
_BUNDLES = ".bundles"
_STAGING = ".staging-"
_LOCK = ".lock"
_SAVED_MODEL = "saved_model.pb"
_CHUNK = 1 << 20

AnyPath = str | os.PathLike[str]
_Record = TypeVar("_Record", bound=pydantic.BaseModel)


# --- records ---------------------------------------------------------------------------------------------------------


class Blessing(pydantic.BaseModel):
    """A gate's word on a version."""

    gate: str
    """Who blessed it, for example ``Evaluator``."""
    evidence: str = ""
    """What it looked at: the URI of its artifact."""
    message: str = ""


class Provenance(pydantic.BaseModel):
    """What whoever publishes a version knows of it. Unknown keys of a later release are left aside."""

    model_config = pydantic.ConfigDict(frozen=True, protected_namespaces=())

    data: dict[str, Any] = {}
    """Spans, files, rows by split, quarantined rows and the fingerprint of the files."""
    schema_digest: str = ""
    """sha256 of the bundle's ``schema.pbtxt``."""
    config: dict[str, Any] = {}
    """The whole configuration of the problem."""
    run_fingerprint: str = ""
    """What decides the candidate: data, code and configuration up to and with the Trainer."""
    run_id: str = ""
    code_revision: str = ""
    image: str = ""
    """The container image; empty where there was none."""
    libraries: dict[str, str] = {}
    """The installed version of each library that shapes the model."""
    hyperparameters: dict[str, Any] = {}
    hyperparameters_source: str = "configuration"
    """Why these: ``configuration``, or what chose them."""
    training: dict[str, Any] = {}
    """What training says of itself: steps, epochs, rows, seconds, devices (the history is in the bundle)."""
    metrics: dict[str, Any] = {}
    """On the test split: ``candidate``, ``champion`` (or null) and ``trivial``, each metric by name."""
    evaluated_rows: int | None = None
    champion_version: int | None = None
    """The version it was compared with; none at the first."""
    blessings: list[Blessing] = []
    """Who blessed it."""


class Manifest(Provenance):
    """A version's provenance with what the registry adds to it."""

    name: str
    version: int
    model_digest: str
    """`tree_digest` of the SavedModel."""
    pushed_at: str
    """UTC, ISO 8601."""


class Labels(pydantic.BaseModel):
    """Which version is which; labels of a later release survive."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True)

    stable: int | None = None
    """The version that serves."""
    canary: int | None = None
    last_version: int = 0
    """The highest version ever labelled; numbers up to it are never given again."""


class Stage(enum.Enum):
    """The points of a publish between which it may be killed, in their order."""

    STAGING = "staging"
    """Part of the files is staged."""
    STAGED = "staged"
    """All files are staged."""
    BUNDLE = "bundle"
    """The bundle lies in its place, the model does not."""
    MODEL = "model"
    """The model lies in its place too; no label names it."""
    LABELLING = "labelling"
    """The new labels are written beside the old."""
    LABELLED = "labelled"
    """The version serves; the empty staging folder is still there."""


# --- the registry ----------------------------------------------------------------------------------------------------


class Registry:
    """The versions of one model under a root; reading makes no folder and needs no lock."""

    def __init__(self, root: AnyPath, name: str) -> None:
        """Names the registry; touches nothing.

        Args:
            root: the folder of all models, local or with a scheme that TensorFlow opens.
            name: the model: letters, digits, ``_`` and ``-``.

        Raises:
            BadInput: when `name` cannot name a folder.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise _bad("name of the model", repr(name), "letters, digits, '_', '-' or '.'", "Rename it in the config.")
        self.name = name
        self._root = os.fspath(root).rstrip("/")
        self._folder = f"{self._root}/{name}"
        self._files: _Files = _Remote() if _is_remote(self._root) else _Local()

    @property
    def folder(self) -> str:
        """The folder that holds the versions, as TensorFlow Serving's `model_base_path` wants it."""
        return self._folder

    def versions(self) -> list[int]:
        """Returns the complete versions, oldest first; none where the registry does not exist."""
        bundles = set(self._numbers(f"{self._folder}/{_BUNDLES}"))
        found = [number for number in self._numbers(self._folder) if number in bundles]
        if self._files.renames_folders:
            return found
        last = self._labels().last_version
        return [number for number in found if number <= last]

    def serving(self) -> int | None:
        """Returns the version that serves, or none where nothing was published yet.

        Raises:
            BadInput: when the labels cannot be read or name a version that is not there.
        """
        stable = self._labels().stable
        if stable is None or self._has(stable):
            return stable
        raise _bad(
            f"{self._folder}/{_LABELS}",
            f"version {stable} as the one that serves",
            f"one of the versions that are there ({self._listed()})",
            f'Bring {self.model_dir(stable)} and its bundle back, or set "stable" to a version that is there.',
        )

    def model_dir(self, version: int) -> str:
        """Returns the folder of a version's SavedModel."""
        return f"{self._folder}/{version}"

    def bundle_dir(self, version: int) -> str:
        """Returns the folder of what explains a version."""
        return f"{self._folder}/{_BUNDLES}/{version}"

    def manifest(self, version: int) -> Manifest:
        """Reads where a version comes from.

        Raises:
            BadInput: when there is no such version, or its manifest cannot be read.
        """
        if not self._has(version):
            raise _bad(
                f"model {self.name!r} in {self._root}",
                f"no version {version}",
                f"one of the versions that are there ({self._listed()})",
                "Name one of these.",
            )
        path = f"{self.bundle_dir(version)}/{MANIFEST}"
        action = f'Restore the file from a backup, or let another version serve ("stable" in {self._folder}/{_LABELS}).'
        return self._read(path, Manifest, action)

    def publish(
        self,
        *,
        model_dir: AnyPath,
        bundle: Mapping[str, AnyPath],
        provenance: Provenance,
        at: Callable[[Stage], None] = lambda _: None,
    ) -> int:
        """Publishes a model with its bundle as the version that serves, all or nothing.

        The very model that serves already, and one that a killed publish left complete but unlabelled, get no second
        version. A model that an older version holds gets a new one, for servers take the highest number.

        Args:
            model_dir: the SavedModel.
            bundle: file or folder to copy into the bundle, by its name there (may contain ``/``).
            provenance: what the manifest says beside what the registry adds.
            at: called at each `Stage`; what it raises ends the publish as a kill would.

        Returns:
            The version that holds the model.

        Raises:
            BadInput: when the model or a file of the bundle is missing, or the labels cannot be read.
        """
        sources = {name: os.fspath(path) for name, path in bundle.items()}
        model = os.fspath(model_dir)
        _check_sources(model, sources)
        digest = tree_digest(model)
        self._files.make_folder(f"{self._folder}/{_BUNDLES}")
        with self._files.locked(f"{self._folder}/{_LOCK}"):
            labels = self._labels()
            self._clean(labels)
            known = self._known(digest, provenance.run_fingerprint, labels)
            if known is not None:
                self._serve(known, labels, at=at)
                return known
            manifest = Manifest(
                **provenance.model_dump(),
                name=self.name,
                version=self._next(labels),
                model_digest=digest,
                pushed_at=datetime.datetime.now(tz=datetime.timezone.utc).isoformat(timespec="seconds"),
            )
            staging = f"{self._folder}/{_STAGING}{os.getpid()}-{uuid.uuid4().hex}"
            self._stage(staging, model, sources, manifest, at=at)
            self._files.move(f"{staging}/bundle", self.bundle_dir(manifest.version))
            at(Stage.BUNDLE)
            self._files.move(f"{staging}/model", self.model_dir(manifest.version))
            at(Stage.MODEL)
            self._serve(manifest.version, labels, at=at)
            at(Stage.LABELLED)
            self._files.remove(staging)
            return manifest.version

    def _stage(
        self, staging: str, model: str, sources: Mapping[str, str], manifest: Manifest, *, at: Callable[[Stage], None]
    ) -> None:
        """Copies all that makes a version into the staging folder, down to the disk."""
        for name, source in sources.items():
            self._files.copy(source, f"{staging}/bundle/{name}")
        self._files.write(f"{staging}/bundle/{MANIFEST}", manifest.model_dump_json(indent=2) + "\n")
        at(Stage.STAGING)
        self._files.copy(model, f"{staging}/model")
        if tree_digest(f"{staging}/model") != manifest.model_digest:
            raise OSError(f"{model} changed while it was copied")
        self._files.sync(staging)
        at(Stage.STAGED)

    def _serve(self, version: int, labels: Labels, *, at: Callable[[Stage], None]) -> None:
        """Replaces the labels, so that `version` serves."""
        new = labels.model_copy(update={"stable": version, "last_version": max(version, labels.last_version)})
        if new == labels:
            return
        beside = f"{self._folder}/{_STAGING}labels-{os.getpid()}-{uuid.uuid4().hex}"
        self._files.write(beside, new.model_dump_json() + "\n")
        at(Stage.LABELLING)
        self._files.replace(beside, f"{self._folder}/{_LABELS}")

    def _clean(self, labels: Labels) -> None:
        """Removes what killed publishes left; whoever holds the lock knows that none of them lives."""
        for name in self._files.names(self._folder):
            if name.startswith(_STAGING):
                self._files.remove(f"{self._folder}/{name}")
        models = set(self._numbers(self._folder))
        for number in self._numbers(f"{self._folder}/{_BUNDLES}"):
            if number <= labels.last_version:
                continue  # Was labelled once: a bundle without a model is what somebody's clearing out left.
            if number not in models or not self._is_whole(number):
                self._files.remove(self.model_dir(number))
                self._files.remove(self.bundle_dir(number))

    def _is_whole(self, version: int) -> bool:
        """Tells whether an unlabelled version is complete; only a store that renames file by file leaves others."""
        if self._files.renames_folders:
            return True
        path = f"{self.bundle_dir(version)}/{MANIFEST}"
        if not self._files.exists(path) or not self._files.exists(f"{self.model_dir(version)}/{_SAVED_MODEL}"):
            return False
        return tree_digest(self.model_dir(version)) == self._read(path, Manifest, "Remove the file.").model_digest

    def _known(self, digest: str, run_fingerprint: str, labels: Labels) -> int | None:
        """Returns the version that holds this very model already: the serving one, or one that was never labelled."""
        for version in sorted(self._complete(), reverse=True):
            if version < (labels.stable or 0):
                return None
            if labels.last_version >= version != labels.stable:
                continue
            manifest = self.manifest(version)
            same_run = version == labels.stable or manifest.run_fingerprint == run_fingerprint
            if manifest.model_digest == digest and same_run:
                return version
        return None

    def _next(self, labels: Labels) -> int:
        """Returns a number above every one that is, or ever was, taken."""
        there = [*self._numbers(self._folder), *self._numbers(f"{self._folder}/{_BUNDLES}")]
        return 1 + max([labels.last_version, labels.stable or 0, labels.canary or 0, *there])

    def _complete(self) -> list[int]:
        return [number for number in self._numbers(self._folder) if self._has(number)]

    def _has(self, version: int) -> bool:
        # The model's folder comes last in a publish, so it is asked first: then the bundle is there too.
        return self._files.exists(self.model_dir(version)) and self._files.exists(self.bundle_dir(version))

    def _listed(self) -> str:
        return ", ".join(map(str, self._complete())) or "none"

    def _numbers(self, folder: str) -> list[int]:
        return sorted(int(name) for name in self._files.names(folder) if re.fullmatch(r"[1-9][0-9]*", name))

    def _labels(self) -> Labels:
        path = f"{self._folder}/{_LABELS}"
        if not self._files.exists(path):
            return Labels()
        example = f"the versions there are: {self._listed()}"
        return self._read(path, Labels, f'Repair it by hand: {{"stable": N, "last_version": M}} ({example}).')

    def _read(self, path: str, record: type[_Record], action: str) -> _Record:
        try:
            text = self._files.read(path)
            return record.model_validate(json.loads(text))
        except pydantic.ValidationError as error:
            found = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        except (OSError, ValueError) as error:
            found = f"a file that cannot be read ({error})"
        raise _bad(path, found, f"the registry's {record.__name__.lower()} as JSON", action)


# --- digests ---------------------------------------------------------------------------------------------------------


def tree_digest(folder: AnyPath) -> str:
    """Returns the sha256 over the sorted relative paths of a folder's files and their contents."""
    root = os.fspath(folder).rstrip("/")
    files: _Files = _Remote() if _is_remote(root) else _Local()
    digest = hashlib.sha256()
    for name in sorted(files.walk(root)):
        digest.update(name.encode() + b"\0")
        content = hashlib.sha256()
        with files.open(f"{root}/{name}") as file:
            while chunk := file.read(_CHUNK):
                content.update(chunk)
        digest.update(content.digest())
    return digest.hexdigest()


# --- file systems ----------------------------------------------------------------------------------------------------


class _Files(Protocol):
    """What the registry asks of a file system; paths are strings with ``/``."""

    renames_folders: bool
    """Whether `move` is one step that is done or not done."""

    def exists(self, path: str) -> bool: ...
    def names(self, folder: str) -> list[str]:
        """Lists a folder; empty where there is none."""

    def walk(self, folder: str) -> Iterator[str]:
        """Yields the files below a folder by their relative path."""

    def open(self, path: str) -> contextlib.AbstractContextManager[BinaryIO]: ...
    def read(self, path: str) -> str: ...
    def write(self, path: str, text: str) -> None: ...
    def make_folder(self, path: str) -> None: ...
    def copy(self, source: str, destination: str) -> None:
        """Copies a file or a whole folder, from anywhere, down to the disk."""

    def move(self, source: str, destination: str) -> None:
        """Renames a folder."""

    def replace(self, source: str, destination: str) -> None:
        """Puts a file in the place of another in one step."""

    def remove(self, path: str) -> None:
        """Removes a file or a folder, if it is there."""

    def sync(self, folder: str) -> None: ...
    def locked(self, path: str) -> contextlib.AbstractContextManager[None]: ...


class _Local:
    """A folder of this machine, or a mounted volume."""

    renames_folders = True

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def names(self, folder: str) -> list[str]:
        try:
            return os.listdir(folder)
        except FileNotFoundError:
            return []

    def walk(self, folder: str) -> Iterator[str]:
        for place, _, names in os.walk(folder, followlinks=True):
            for name in names:
                yield os.path.relpath(os.path.join(place, name), folder)

    def open(self, path: str) -> contextlib.AbstractContextManager[BinaryIO]:
        return open(path, "rb")

    def read(self, path: str) -> str:
        with open(path, encoding="utf-8") as file:
            return file.read()

    def write(self, path: str, text: str) -> None:
        self.make_folder(os.path.dirname(path))
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        _sync(os.path.dirname(path))

    def make_folder(self, path: str) -> None:
        if os.path.isdir(path):
            return
        parent = os.path.dirname(path)
        if parent:
            self.make_folder(parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
        _sync(parent or ".")

    def copy(self, source: str, destination: str) -> None:
        if _is_remote(source):
            _Remote().copy(source, destination)
            return
        self.make_folder(os.path.dirname(destination))
        if os.path.isdir(source):
            shutil.copytree(source, destination, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(source, destination)

    def move(self, source: str, destination: str) -> None:
        os.rename(source, destination)
        _sync(os.path.dirname(destination))

    def replace(self, source: str, destination: str) -> None:
        os.replace(source, destination)
        _sync(os.path.dirname(destination))

    def remove(self, path: str) -> None:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.remove(path)

    def sync(self, folder: str) -> None:
        for place, _, names in os.walk(folder, topdown=False):
            for name in names:
                _sync(os.path.join(place, name))
            _sync(place)

    @contextlib.contextmanager
    def locked(self, path: str) -> Iterator[None]:
        with open(path, "a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # Waits: a publish is short. The kernel frees it however the holder ends.
            yield


class _Remote:
    """Whatever `tf.io.gfile` opens; TensorFlow is imported by the first call, not by this module."""

    renames_folders = False

    def exists(self, path: str) -> bool:
        return bool(_gfile().exists(path))

    def names(self, folder: str) -> list[str]:
        if not _gfile().isdir(folder):
            return []
        return [name.rstrip("/") for name in _gfile().listdir(folder) if name.rstrip("/")]

    def walk(self, folder: str) -> Iterator[str]:
        for place, _, names in _gfile().walk(folder):
            below = place.rstrip("/")[len(folder) :].strip("/")
            for name in names:
                yield f"{below}/{name}" if below else name

    def open(self, path: str) -> contextlib.AbstractContextManager[BinaryIO]:
        file: contextlib.AbstractContextManager[BinaryIO] = _gfile().GFile(path, "rb")
        return file

    def read(self, path: str) -> str:
        try:
            with _gfile().GFile(path, "rb") as file:
                return bytes(file.read()).decode()
        except _tensorflow().errors.OpError as error:
            raise OSError(str(error)) from error

    def write(self, path: str, text: str) -> None:
        self.make_folder(path.rpartition("/")[0])
        with _gfile().GFile(path, "wb") as file:
            file.write(text.encode())

    def make_folder(self, path: str) -> None:
        _gfile().makedirs(path)

    def copy(self, source: str, destination: str) -> None:
        if not _gfile().isdir(source):
            self.make_folder(destination.rpartition("/")[0])
            _gfile().copy(source, destination, overwrite=True)
            return
        self.make_folder(destination)
        for name in self.walk(source.rstrip("/")):
            self.make_folder(f"{destination}/{name}".rpartition("/")[0])
            _gfile().copy(f"{source}/{name}", f"{destination}/{name}", overwrite=True)

    def move(self, source: str, destination: str) -> None:
        # A server takes a version for whole when it sees this file, so it comes last.
        for name in sorted(self.walk(source), key=lambda name: (name in {_SAVED_MODEL, MANIFEST}, name)):
            self.make_folder(f"{destination}/{name}".rpartition("/")[0])
            _gfile().rename(f"{source}/{name}", f"{destination}/{name}", overwrite=True)

    def replace(self, source: str, destination: str) -> None:
        _gfile().rename(source, destination, overwrite=True)

    def remove(self, path: str) -> None:
        if _gfile().isdir(path):
            _gfile().rmtree(path)
        elif _gfile().exists(path):
            _gfile().remove(path)

    def sync(self, folder: str) -> None:
        """Does nothing: such a store has a file when its writer is closed."""

    @contextlib.contextmanager
    def locked(self, path: str) -> Iterator[None]:  # noqa: ARG002 - the protocol has it
        yield  # There is none to be had; the module's docstring says what follows.


def _is_remote(path: str) -> bool:
    return "://" in path


def _tensorflow() -> Any:
    import tensorflow as tf

    return tf


def _gfile() -> Any:
    return _tensorflow().io.gfile


def _sync(path: str) -> None:
    """Brings a file's content, or a folder's list of names, to the disk."""
    handle = os.open(path or ".", os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_sources(model: str, sources: Mapping[str, str]) -> None:
    """Refuses a publish that would be incomplete, before anything is touched."""
    wanted = {
        "the model": f"{model}/{_SAVED_MODEL}",
        **{f"the bundle's {name}": path for name, path in sources.items()},
    }
    missing = [
        Problem(
            where=path, found="nothing", expected=f"{what} to publish", action="Run the node that makes it once more."
        )
        for what, path in wanted.items()
        if not (_Remote() if _is_remote(path) else _Local()).exists(path)
    ]
    if missing:
        raise BadInput(missing)


def _bad(where: str, found: str, expected: str, action: str) -> BadInput:
    return BadInput([Problem(where=where, found=found, expected=expected, action=action)])
