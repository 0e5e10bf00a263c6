"""What a node depends on beside its inputs: its code, with all that the code imports, and the files that it names.

TFX's cache key holds a node's inputs and properties, but not the code under a dotted path nor the contents of a file.
`code` and `files` say those in one hash, which the local runner adds to the key.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from evergreen.revision import ROOT, library_versions


def code(modules: Iterable[str], *, root: Path = ROOT) -> str:
    """Returns the sha256 of the modules, of every module of the project that they import, and of the libraries.

    Args:
        modules: dotted names of modules (or of things in them) under `root`; others count by the libraries' versions.
        root: the folder that the project's packages lie in.
    """
    digest = hashlib.sha256()
    for name in sorted(_closure(modules, root)):
        digest.update(f"{name}\0".encode())
        digest.update(hashlib.sha256(_file(name, root).read_bytes()).digest())
    for library, version in library_versions().items():
        digest.update(f"{library}=={version}\0".encode())
    return digest.hexdigest()


def files(paths: Iterable[Path]) -> str:
    """Returns the sha256 of the contents of the files, in the order of their paths."""
    digest = hashlib.sha256()
    for path in sorted(set(paths)):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def combine(*parts: str) -> str:
    """Returns one sha256 for several texts in their order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()


def is_ours(name: str, *, root: Path = ROOT) -> bool:
    """Tells whether the dotted `name` is a module of the project, or something inside one."""
    return _module_of(name, root) is not None


def _closure(names: Iterable[str], root: Path) -> set[str]:
    """Returns the modules of the project that can be reached by import from `names`."""
    waiting = [module for name in names if (module := _module_of(name, root))]
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        waiting.extend(found for name in _imports(module, root) if (found := _module_of(name, root)))
        parent = module.rpartition(".")[0]
        if parent:
            waiting.append(parent)
    return seen


def _imports(module: str, root: Path) -> Iterator[str]:
    """Yields the dotted names that a module imports, inside functions too."""
    tree = ast.parse(_file(module, root).read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # The name after `import` may be a module or something in one; `_module_of` finds out.
            yield from (f"{_origin(module, node, root)}.{alias.name}" for alias in node.names)


def _origin(module: str, node: ast.ImportFrom, root: Path) -> str:
    if node.level == 0:
        return node.module or ""
    package = module if _file(module, root).name == "__init__.py" else module.rpartition(".")[0]
    base = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def _module_of(name: str, root: Path) -> str | None:
    """Returns the longest leading part of a dotted name that is a module of the project."""
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    for length in range(len(parts), 0, -1):
        candidate = ".".join(parts[:length])
        if _file(candidate, root).is_file():
            return candidate
    return None


def _file(module: str, root: Path) -> Path:
    path = root.joinpath(*module.split("."))
    package = path / "__init__.py"
    return package if package.is_file() else path.with_suffix(".py")
