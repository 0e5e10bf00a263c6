"""A YAML file that a person wrote: its content, the line of every key, and what is wrong with it as YAML.

    document = read(Path("configs/humidity.yaml"))
    document.content["data"]["window"]                # 7
    document.where("data", "window")                  # configs/humidity.yaml, line 7, data.window

Guarantee: whatever the file holds, it is read or refused in bounded time and memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from evergreen.errors import BadInput, Problem

Place = tuple[str | int, ...]
"""The way from the root of a YAML document to a value."""
_MAX_BYTES = 4 << 20
_MAX_VALUES = 100_000
"""Values that aliases may unfold a file to: nine lines of aliases of aliases can stand for billions."""
# libyaml's parser, in every wheel of PyYAML, is eight times as fast: it shows with thousands of columns.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Document:
    """What stands in a file, and where."""

    path: Path
    content: Mapping[str, Any]
    lines: Mapping[Place, int]
    """The line of every value, from 1."""

    def where(self, *location: str | int) -> str:
        """Names file, line and key; a key that is missing has the line of what it is missing from."""
        dotted = _dotted(location)
        for length in range(len(location), 0, -1):
            line = self.lines.get(location[:length])
            if line is not None:
                return f"{self.path}, line {line}, {dotted}"
        return f"{self.path}, {dotted}" if location else str(self.path)


def read(path: Path) -> Document:
    """Reads a file.

    Raises:
        BadInput: when the file cannot be read, is no YAML, no mapping, or has a key twice.
    """
    node, document = _parsed(path, _text(path))
    if not isinstance(document, dict):
        found = "an empty file" if document is None else f"a {type(document).__name__}"
        raise _bad(str(path), found, "keys and values", "See configs/humidity.yaml.")
    lines: dict[Place, int] = {}
    if twice := list(_index(node, (), lines, str(path))):
        raise BadInput(twice)
    return Document(path=path, content=document, lines=lines)


def _dotted(at: Place) -> str:
    return ".".join(str(part) for part in at)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        beside = ", ".join(sorted(str(p) for p in path.parent.glob("*.yaml")))
        action = f"There is: {beside}." if beside else "Correct the path; there is no YAML file beside it."
        raise _bad(str(path), "no such file", "a YAML file", action) from error
    except OSError as error:
        raise _bad(
            str(path), error.strerror or str(error), "a readable file", "Give the path of a YAML file."
        ) from error
    if len(content) > _MAX_BYTES:
        found = f"a file of more than {_MAX_BYTES >> 20} MiB"
        raise _bad(str(path), found, "a YAML file", "Give the path of the configuration; is this the table?")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{content[error.start]:02x}, which is not UTF-8"
        raise _bad(f"{path}, line {line}", found, "a text file in UTF-8", "Save the file as UTF-8.") from error


def _parsed(path: Path, text: str) -> tuple[yaml.Node | None, Any]:
    """Returns the document as nodes, which know their lines, and as values.

    Raises:
        BadInput: when it is no YAML, or holds more than a configuration can.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            _bound(node, path)
            return node, None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
        found = " ".join(str(getattr(error, "problem", None) or error).removeprefix("found ").split())
        raise _bad(where, found, "valid YAML", "Correct this line or the one before.") from error
    except ValueError as error:
        # What looks like a date or a number and is none: 2024-13-41, or five thousand digits.
        action = "Put the value into quotes if it is a text; else correct it."
        raise _bad(
            str(path), f"a value that YAML cannot read ({error})", "dates and numbers that exist", action
        ) from error
    except RecursionError as error:
        raise _bad(str(path), "brackets within brackets, too many", "valid YAML", "Close the brackets.") from error


def _bound(root: yaml.Node | None, path: Path) -> None:
    """Counts the values with all aliases unfolded, before anything unfolds them.

    Raises:
        BadInput: when there are too many, or an alias stands for what it stands in.
    """
    sizes: dict[int, int] = {}
    open_: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in open_:
            where = f"{path}, line {node.start_mark.line + 1}"
            raise _bad(where, "an alias of what it stands in", "a document that ends", "Write the value out.")
        if id(node) not in sizes:
            open_.add(id(node))
            sizes[id(node)] = 1 + sum(map(size, _children(node)))
            open_.remove(id(node))
        return sizes[id(node)]

    if root is not None and size(root) > _MAX_VALUES:
        found = f"more than {_MAX_VALUES:,} values, its aliases unfolded"
        raise _bad(str(path), found, "a configuration", "Write out what is meant.")


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _index(node: yaml.Node | None, at: Place, lines: dict[Place, int], file: str) -> Iterator[Problem]:
    """Fills `lines` with the line of every value; yields a problem for every key that stands twice."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*at, str(key.value))
            line = key.start_mark.line + 1
            if below in lines:
                yield Problem(
                    where=f"{file}, line {line}, {_dotted(below)}",
                    found=f"a key that stands in line {lines[below]} already",
                    expected="every key once",
                    action="Remove one of them.",
                )
            lines[below] = line
            yield from _index(value, below, lines, file)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            below = (*at, position)
            lines[below] = value.start_mark.line + 1
            yield from _index(value, below, lines, file)


def _bad(where: str, found: str, expected: str, action: str) -> BadInput:
    return BadInput([Problem(where=where, found=found, expected=expected, action=action)])
