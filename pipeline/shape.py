"""A document held against its types: every field that does not fit, in words, with file, line and key.

config, problems = validate(Config, yaml_file.read(path))
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import pydantic

from evergreen.errors import Problem
from evergreen.words import short
from pipeline.yaml_file import Document, Place

Model = TypeVar("Model", bound=pydantic.BaseModel)

_EXPECTED = {
    "string_type": "a text",
    "string_unicode": "a text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number of 64 bits",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list, such as [a, b]",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
    "invalid_key": "keys that are texts",
}
"""What to call what pydantic's errors ask for."""
_LIMITS = {
    "string_too_short": ("a text of {} or more characters", "min_length"),
    "string_too_long": ("a text of {} or fewer characters", "max_length"),
    "string_pattern_mismatch": ("a text that fits {}", "pattern"),
    "too_short": ("{} or more of them", "min_length"),
    "too_long": ("{} or fewer of them", "max_length"),
    "greater_than": ("more than {}", "gt"),
    "greater_than_equal": ("{} or more", "ge"),
    "less_than": ("less than {}", "lt"),
    "less_than_equal": ("{} or less", "le"),
}
_SHOWN = 80


def validate(model: type[Model], document: Document) -> tuple[Model | None, list[Problem]]:
    """Returns the model; None and every problem where the document does not fit it."""
    misread = list(_misread([model], document.content, ()))
    problems = [
        Problem(where=document.where(*at), found=_shown(value), expected=expected, action="Correct the value.")
        for at, value, expected in misread
    ]
    try:
        valid = model.model_validate(document.content)
    except pydantic.ValidationError as error:
        told = {at for at, _, _ in misread}
        problems += [_problem(model, dict(one), document) for one in error.errors() if tuple(one["loc"]) not in told]
        return None, problems
    return (None if problems else valid), problems


def sound(annotation: Any, value: Any) -> Any:
    """Returns a value as its type; None where it does not fit."""
    try:
        return pydantic.TypeAdapter(annotation).validate_python(value)
    except pydantic.ValidationError:
        return None


def sections(annotation: Any) -> Iterator[type[pydantic.BaseModel]]:
    """Yields the section types inside an annotation such as ``dict[str, A | B]``."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from sections(inner)


# --- what pydantic lets pass -----------------------------------------------------------------------------------------


def _misread(annotations: Sequence[Any], value: object, at: Place) -> Iterator[tuple[Place, object, str]]:
    """Yields place, value and what is expected, of `true` where a number belongs and of numbers past 64 bits.

    Args:
        annotations: the types that the value may have.
        value: what stands in the document.
        at: where it stands.
    """
    if isinstance(value, bool):
        if annotations and all(map(_is_number, annotations)):
            yield at, value, "a number"
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            yield at, value, "a whole number of 64 bits"
    elif isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            below = [found for annotation in annotations for found in _below(annotation, key)]
            yield from _misread(below, inner, (*at, key))


def _below(annotation: Any, key: Any) -> Iterator[Any]:
    """Yields the types that a value's part under `key` may have."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield from (field.annotation for name, field in annotation.model_fields.items() if key in (name, field.alias))
    elif typing.get_origin(annotation) in (dict, list):
        yield typing.get_args(annotation)[-1]
    elif typing.get_origin(annotation) is typing.Annotated:
        yield from _below(typing.get_args(annotation)[0], key)
    else:
        for inner in typing.get_args(annotation):
            yield from _below(inner, key)


def _is_number(annotation: Any) -> bool:
    """Tells whether a value is a number, or nothing."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _is_number(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return all(_is_number(inner) or inner is type(None) for inner in typing.get_args(annotation))
    return annotation in (int, float)


# --- pydantic's errors in words --------------------------------------------------------------------------------------


def _problem(model: type[pydantic.BaseModel], detail: dict[str, Any], document: Document) -> Problem:
    kind, value = detail["type"], detail.get("input")
    location = _without_tags(tuple(detail["loc"]), document, missing=kind == "missing")
    where = document.where(*location)
    if kind == "extra_forbidden":
        known = _keys(model, location[:-1])
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        action = f"Did you mean {close[0]!r}?" if close else f"Remove it, or use one of: {', '.join(known)}."
        return Problem(where=where, found="an unknown key", expected="a key that Evergreen knows", action=action)
    if kind == "missing":
        return Problem(where=where, found="nothing", expected="a value", action="Add the key.")
    if kind.startswith("union_tag"):
        return _kind_problem(where, value, _kinds(model, location))
    return Problem(where=where, found=_shown(value), expected=_expected(detail), action=_action(kind, value))


def _kind_problem(where: str, value: Any, kinds: Sequence[str]) -> Problem:
    given = value.get("kind") if isinstance(value, dict) else None
    close = difflib.get_close_matches(str(given), kinds, n=1)
    return Problem(
        where=where,
        found="no kind" if given is None else f"kind {given!r}",
        expected=f"one of the kinds {', '.join(kinds)}",
        action=f"Did you mean {close[0]!r}?" if close else "Give it one of these kinds.",
    )


def _expected(detail: dict[str, Any]) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind in _LIMITS:
        words, name = _LIMITS[kind]
        return words.format(context[name])
    message: str = detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return message[:1].lower() + message[1:]


def _action(kind: str, value: object) -> str:
    if kind in ("string_type", "literal_error", "enum") and value is not None and not isinstance(value, (dict, list)):
        return "Correct the value; YAML takes a word for a text where it stands in quotes."
    return "Correct the value."


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    try:
        text = str(value).lower() if isinstance(value, bool) else repr(value)
    except ValueError:  # Python does not write out numbers of thousands of digits
        return "a number of thousands of digits"
    return short(text, _SHOWN)


def _without_tags(location: Place, document: Document, *, missing: bool) -> Place:
    """Returns the keys of a location that are in the file: the kind of a discriminated union is named in it, too."""
    kept: Place = ()
    for position, part in enumerate(location):
        is_missing = missing and position == len(location) - 1
        if (*kept, part) in document.lines or is_missing:
            kept = (*kept, part)
    return kept


def _keys(model: type[pydantic.BaseModel], location: Place) -> list[str]:
    """Returns the keys that the section at `location` knows, as far as the types tell."""
    reached = _reached(model, location)
    return sorted({field.alias or name for section in reached for name, field in section.model_fields.items()})


def _kinds(model: type[pydantic.BaseModel], location: Place) -> list[str]:
    """Returns the kinds of section that may stand at `location`."""
    tags = [section.model_fields["kind"] for section in _reached(model, location) if "kind" in section.model_fields]
    return [kind for tag in tags for kind in typing.get_args(tag.annotation)]


def _reached(model: type[pydantic.BaseModel], location: Place) -> list[type[pydantic.BaseModel]]:
    reached: list[type[pydantic.BaseModel]] = [model]
    for part in location:
        fields = [field for section in reached if (field := section.model_fields.get(str(part)))]
        reached = [section for field in fields for section in sections(field.annotation)] or reached
    return reached
