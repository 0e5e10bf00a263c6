"""Loads of TFX only what one executor needs: a step of a cluster is a process of its own, and most of it is importing.

TFX's packages import every component, every client and TensorFlow wherever one name of theirs is asked for. Here those
packages are entered without running them: their modules are found as before, and a package itself runs when something
is asked of it that is no module. What an executor uses is the same in the end; what it does not use is never loaded.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import sys
import types
from collections.abc import Iterator, Sequence
from typing import Any

LATE = (
    "IPython",
    "keras",
    "kfp",
    "tensorflow_data_validation",
    "tensorflow_model_analysis",
    "tfx.components",
    "tfx.components.evaluator",
    "tfx.components.transform",
    "tfx.dsl.component.experimental",
)
"""Packages that load much more than what is asked of them."""

WHOLE = ("keras",)
"""Late packages whose modules can be loaded in no other order than theirs."""

UNUSED = (
    "apache_beam.io.aws.s3filesystem",
    "apache_beam.io.azure.blobstoragefilesystem",
    "apache_beam.io.gcp.gcsfilesystem",
    "apache_beam.io.hadoopfilesystem",
    "bson",
    "google.cloud.bigquery",
    "google.cloud.bigquery_storage_v1",
    "google.cloud.pubsub",
    "pymongo",
)
"""What Beam loads where it finds it, and does without where it does not; the data are this machine's files."""


def prepare(*, without_tensorflow: bool) -> None:
    """Makes this process load TFX's packages late.

    Args:
        without_tensorflow: whether TFX may open files by itself, which it does where TensorFlow is not installed. Right
            where every place is a local path; `gs://` and the like need TensorFlow.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(LATE))
    if without_tensorflow:
        for name in UNUSED:
            # What the import system takes for "not installed".
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]
        # It warns of what is hidden from it here.
        logging.getLogger("apache_beam.io.mongodbio").setLevel(logging.ERROR)
    if without_tensorflow and "tensorflow" not in sys.modules:
        with _hidden("tensorflow"):
            importlib.import_module("tfx.utils.doc_controls")
            importlib.import_module("tfx.dsl.io.fileio")


@contextlib.contextmanager
def without_collecting() -> Iterator[None]:
    """Lets modules be loaded without a look for garbage among them: they are thousands, and they stay."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Lets a module look as if it were not installed."""
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


class _Package(types.ModuleType):
    """A package that runs when something other than a module of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        # Others of these names are what the import system looks for; a version is what people do.
        if name.startswith("__") and name != "__version__":
            raise AttributeError(name)
        module = f"{self.__name__}.{name}"
        try:
            if self.__name__ not in WHOLE:
                return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
        self.__class__ = types.ModuleType  # type: ignore[assignment] # from here on it is an ordinary one
        spec = self.__spec__
        assert spec is not None
        assert isinstance(spec.loader, _Loader)
        spec.loader.run(self)
        return getattr(self, name)


class _Loader(importlib.abc.Loader):
    """Makes the module without running it."""

    def __init__(self, real: importlib.abc.Loader) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        # Readers of package data ask the loader for more than an import does.
        return getattr(self._real, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Package(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Does nothing yet."""

    def run(self, module: types.ModuleType) -> None:
        self._real.exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the late packages, and leaves all else to those after it."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == "keras.src" and _is_loading("tensorflow"):
            # It wants Keras' optimizers known, and does without; who trains asks for Keras.
            raise ModuleNotFoundError(f"{fullname} is not loaded with TensorFlow", name=fullname)
        if fullname not in self._names:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        spec.loader = _Loader(spec.loader)
        return spec


def _is_loading(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))
