"""The reference of all configuration keys, written from the types that check them: `docs/configuration.md`."""

from __future__ import annotations

import enum
import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any

import pydantic
from pydantic_core import PydanticUndefined

from pipeline.config import Config, Environment
from pipeline.shape import sections

HEADER = """\
# Configuration

Written by `make docs` from the types in `evergreen/settings/` and `pipeline/config.py`; do not edit.
A problem is one YAML file (`configs/humidity.yaml` is the built-in one), where it runs is another
(`configs/environments/local.yaml`). Unknown keys are refused, and every mistake is told at once, with file,
line and key.
Relative paths are relative to the project's folder.
"""


def render() -> str:
    """Returns the whole page in Markdown."""
    parts = [HEADER]
    for title, root in (("A problem", Config), ("An environment", Environment)):
        parts.append(f"\n## {title}\n\n{_about(root)}\n")
        parts.extend(_table(section, is_root=section is root) for section in _reachable(root))
    return "".join(parts)


def _reachable(root: type[pydantic.BaseModel]) -> list[type[pydantic.BaseModel]]:
    """Returns the section and those inside it, each once, in the order in which they are named."""
    found: list[type[pydantic.BaseModel]] = []

    def visit(section: type[pydantic.BaseModel]) -> None:
        if section in found:
            return
        found.append(section)
        for field in section.model_fields.values():
            for inner in sections(field.annotation):
                visit(inner)

    visit(root)
    return found


def _table(section: type[pydantic.BaseModel], *, is_root: bool) -> str:
    heading = "" if is_root else f"\n### {section.__name__}\n\n{_about(section)}\n"
    rows = "".join(f"| {' | '.join(row)} |\n" for row in _rows(section))
    return f"{heading}\n| key | value | default | meaning |\n|---|---|---|---|\n{rows}"


def _rows(section: type[pydantic.BaseModel]) -> Iterator[tuple[str, str, str, str]]:
    for name, field in section.model_fields.items():
        inner = next(sections(field.annotation), None)
        meaning = " ".join((field.description or (inner and inner.__doc__) or "").split())
        yield f"`{field.alias or name}`", _type(field.annotation) + _limits(field), _default(field), meaning


def _about(section: type[pydantic.BaseModel]) -> str:
    return inspect.cleandoc(section.__doc__ or "")


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is PydanticUndefined or isinstance(value, pydantic.BaseModel):
        return "see below"
    if isinstance(value, enum.Enum):
        value = value.value
    return "none" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _limits(field: Any) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [
        f"{sign} {getattr(constraint, name)}"
        for constraint in field.metadata
        for name, sign in signs.items()
        if getattr(constraint, name, None) is not None
    ]
    return f" {', '.join(found)}" if found else ""


def _type(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(argument) for argument in arguments if argument is not type(None))
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"{_type(arguments[0])}: {_type(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return " or ".join(f"`{member.value}`" for member in annotation)
    return {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}.get(
        getattr(annotation, "__name__", ""), str(annotation)
    )


if __name__ == "__main__":
    print(render(), end="")
