"""`new`: from a table that nobody has described to a configuration and a schema that run as they are.

Guarantee: what is written loads without a problem, holds the reason of every choice as a comment, and shows only when
it is complete; nothing that exists is overwritten unless asked for.

    made = create(Request(data="table.csv", label="price"), called_from=Path.cwd(), root=ROOT)
    print(made.told())
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pydantic
import yaml

from components.example_gen import inspection
from evergreen import settings
from evergreen.errors import BadInput, Problem
from evergreen.files import write_whole
from evergreen.words import aligned, on_one_line, short
from pipeline import config
from pipeline.drafting import choices, new_schema, profile, table_source

_MIN_ROWS = 20
_FEATURE: pydantic.TypeAdapter[settings.Feature] = pydantic.TypeAdapter(settings.Feature)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line asked for."""

    data: str
    label: str
    name: str | None = None
    """Of the pipeline and the model; the file's or folder's name where it is left out."""
    task: settings.Task | None = None
    """What the model predicts, where the label alone would be taken for something else."""
    config: str | None = None
    """Where the configuration goes; `configs/NAME.yaml` where it is left out."""
    schema: str | None = None
    """Where the schema goes; `schemas/NAME/schema.pbtxt` where it is left out."""
    force: bool = False
    """Whether existing files are replaced; the old ones are kept beside as `*.bak`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """What was written, and what a person should know of it."""

    name: str
    config: Path
    schema: Path
    profile: profile.Profile
    choices: choices.Choices
    label: str
    command: str

    def told(self) -> str:
        """Returns the summary for the screen: a line a column, the warnings, the next command."""
        size = f"{self.profile.rows:,} rows, {len(self.profile.columns):,} columns"
        task = f"{self.choices.task.value} ({self.choices.task_reason})"
        lines = [f"{size}; {self.label} is predicted: {task}.", "", *_table(self), ""]
        lines += [f"Warning: {warning}{'' if warning.endswith('?') else '.'}" for warning in self.choices.warnings]
        lines += [""] if self.choices.warnings else []
        lines += [
            f"Wrote {_shown(self.config)} and {_shown(self.schema)}: look them over, the comments say why.",
            f"Next: {self.command}",
        ]
        return "\n".join(lines)


def create(request: Request, *, called_from: Path, root: Path) -> Made:
    """Looks at the table and writes configuration and schema.

    Args:
        request: what was asked for.
        called_from: the folder that relative paths of the request are relative to.
        root: the project; relative paths in the configuration are relative to it.

    Raises:
        BadInput: with every reason why this table or request cannot be used.
    """
    found = table_source.find(request.data, called_from=called_from, root=root)
    name = request.name or _name(request.data, called_from)
    problems = list(_name_problems(name, request.name))
    config_path = _target(request.config, called_from, root / "configs" / f"{name}.yaml")
    schema_path = _target(request.schema, called_from, root / "schemas" / name / "schema.pbtxt")
    problems += _existing((config_path, schema_path), force=request.force)
    found, looked = _look(found)
    problems += _table_problems(looked, request, found.data.path)
    if problems:
        raise BadInput(problems)
    chosen = choices.choose(looked, label=request.label, task=request.task)
    if not chosen.features:
        raise BadInput([_no_feature(chosen, found.data.path)])
    shown_schema = table_source.as_named(schema_path, root)
    text = render(name, found, looked, chosen, label=request.label, schema=shown_schema)
    schema = new_schema.render(
        looked,
        label=request.label,
        classes=chosen.task is not settings.Task.REGRESSION,
        features={feature.column: feature.body for feature in chosen.features},
        smallest_split=chosen.smallest_split,
    )
    _publish({config_path: text, schema_path: schema}, force=request.force)
    config.load_config(config_path)  # a check of ourselves: what we write has to be right
    return Made(
        name=name,
        config=config_path,
        schema=schema_path,
        profile=looked,
        choices=chosen,
        label=request.label,
        command=f"python local_runner.py --config {table_source.as_named(config_path, root)}",
    )


def _look(found: table_source.Found) -> tuple[table_source.Found, profile.Profile]:
    """Looks at the table; where numbers have words such as `n/a` among them, once more with these as missing values."""
    looked = profile.look(found)
    words = sorted({word for column in looked.columns.values() for word in column.placeholders})
    if not words or found.format != "csv":
        return found, looked
    csv_format = found.data.csv.model_copy(update={"missing": words})
    found = dataclasses.replace(found, data=found.data.model_copy(update={"csv": csv_format}))
    return found, profile.look(found)


# --- refusals --------------------------------------------------------------------------------------------------------


def _name(data: str, called_from: Path) -> str:
    """Makes a legal name of the last part of the path that is fixed."""
    fixed = [part for part in (called_from / data).as_posix().split("/") if not set(part) & set("*?[{")]
    stem = fixed[-1].split(".")[0] if fixed else "table"
    name = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
    return (name if name[:1].isalpha() else f"table-{name}")[:63].strip("-")


def _name_problems(name: str, given: str | None) -> Iterator[Problem]:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,62}", name):
        yield Problem(
            where="--name",
            found=repr(given or name),
            expected="lower-case letters, digits and hyphens, a letter first",
            action="Choose a name with --name.",
        )


def _target(given: str | None, called_from: Path, default: Path) -> Path:
    return (called_from / given).resolve() if given else default


def _existing(paths: Iterable[Path], *, force: bool) -> Iterator[Problem]:
    for path in paths:
        if path.exists() and not force:
            yield Problem(
                where=_shown(path),
                found="a file that is there already",
                expected="no file of that name",
                action="Choose another --name, or replace it with --force (the old one is kept as .bak).",
            )


def _table_problems(looked: profile.Profile, request: Request, pattern: str) -> Iterator[Problem]:
    if looked.rows < _MIN_ROWS:
        yield Problem(
            where=pattern,
            found=f"{looked.rows} row{'' if looked.rows == 1 else 's'}",
            expected=f"at least {_MIN_ROWS} rows to learn from and to measure on",
            action="Give a table with more rows.",
        )
    for name, column in looked.columns.items():
        if column.not_text > settings.Data.model_fields["max_malformed_share"].default * looked.rows:
            yield Problem(
                where=f"{pattern}, column {name!r}",
                found=f"{column.not_text:,} of {column.present:,} values that are bytes and no text",
                expected="numbers, text in UTF-8, moments",
                action="Write the table without this column, or its bytes as text (hexadecimal, base64).",
            )
    label = looked.columns.get(request.label)
    if label is None:
        lowered = {name.lower(): name for name in looked.columns}
        close = [lowered[name] for name in difflib.get_close_matches(request.label.lower(), lowered, n=1)]
        names = ", ".join(list(looked.columns)[:12]) + (", ..." if len(looked.columns) > 12 else "")
        yield Problem(
            where=f"--label {request.label}",
            found="no such column",
            expected=f"one of {names}",
            action=f"Did you mean {close[0]!r}?" if close else _what_else(looked),
        )
        return
    yield from _label_problems(label, request)


def _what_else(looked: profile.Profile) -> str:
    if len(looked.columns) > 1:
        return "Name a column of the table."
    known = ", ".join(repr(delimiter) for delimiter in inspection.DELIMITERS)
    return f"It is the only column: are the fields separated by something else than {known}? Write the file with these."


def _label_problems(label: profile.Column, request: Request) -> Iterator[Problem]:
    where = f"--label {request.label}"
    if label.distinct <= 1:
        value = next(iter(label.counts), None)
        yield Problem(
            where=where,
            found="no value in any row" if value is None else f"the same value in every row: {value[:40]!r}",
            expected="at least two different values",
            action="Name another column; a constant needs no model.",
        )
        return
    if request.task is settings.Task.REGRESSION and not label.numeric:
        yield Problem(
            where="--task regression",
            found=f"a label of text: {next(iter(label.counts), '')[:40]!r}",
            expected="a label of numbers",
            action="Leave --task out, or name another label.",
        )
    elif request.task is settings.Task.BINARY and label.distinct != 2:
        yield Problem(
            where="--task binary",
            found=f"{label.distinct_in_words()} different labels",
            expected="two",
            action="Leave --task out, or name another label.",
        )
    if request.task is None and not label.numeric and (example := choices.other_number(label)):
        yield Problem(
            where=where,
            found=f"text that looks like numbers, such as {example}",
            expected="classes, or numbers as CSV has them: a point, and no other sign or unit",
            action="Write the numbers so; if they are classes, say --task multiclass.",
        )
        return
    classes = request.task or choices.task_of(label)[0]
    if classes is not settings.Task.REGRESSION and not label.distinct_exact:
        yield Problem(
            where=where,
            found=f"{label.distinct_in_words()} different values",
            expected="classes, or a number",
            action="Name another label: this one is text or an identifier.",
        )


def _no_feature(chosen: choices.Choices, pattern: str) -> Problem:
    reasons = "; ".join(f"{left.column}: {left.reason}" for left in chosen.left_out[:6])
    return Problem(
        where=pattern,
        found=f"no column to predict from ({reasons})" if reasons else "no column beside the label",
        expected="at least one column that is a feature",
        action="Give a table with columns that are known when the model is asked.",
    )


# --- writing ---------------------------------------------------------------------------------------------------------


def render(
    name: str,
    found: table_source.Found,
    looked: profile.Profile,
    chosen: choices.Choices,
    *,
    label: str,
    schema: str,
) -> str:
    """Returns the configuration as YAML with the reasons as comments."""
    rows = f"{looked.rows:,} rows" if looked.complete else f"the first {looked.rows:,} rows"
    lines = [
        f"# Written by `new` from a look at {rows} of {on_one_line(found.data.path)}.",
        "# Every choice is yours to change; the comments say why it was made. docs/configuration.md lists every key.",
        f"name: {name}",
        "",
        "data:",
        f"  path: {scalar(found.data.path)}",
        *([] if found.format == "csv" else [f"  format: {found.format}"]),
        *_csv(found),
        *_settings(chosen.data),
        "",
        f"schema: {scalar(schema)}",
        "",
        f"label: {{column: {scalar(label)}, task: {chosen.task.value}}}  # {on_one_line(chosen.task_reason)}",
        "",
        "features:",
        *_features(chosen.features, label),
        *_left_out(chosen.left_out),
    ]
    for section in ("model", "training", "validation", "evaluation"):
        entries: Sequence[choices.Setting] = getattr(chosen, section)
        if entries:
            lines += ["", f"{section}:", *_settings(entries)]
    return "\n".join(lines) + "\n"


def _csv(found: table_source.Found) -> list[str]:
    changed = found.data.csv.model_dump(exclude_defaults=True)
    if found.format != "csv" or not changed:
        return []
    why = "as the first file is written"
    if found.data.csv.decimal == ",":
        why += ", with decimal commas"
    if found.data.csv.missing:
        why += "; what is missing stands among numbers, and counts as missing in every column"
    return [f"  csv: {scalar(changed)}  # {why}"]


def _settings(entries: Sequence[choices.Setting]) -> list[str]:
    return _aligned([(f"  {entry.key}: {scalar(entry.value)}", entry.reason) for entry in entries])


def _features(features: Sequence[choices.Feature], label: str) -> list[str]:
    rendered = []
    taken = {label}
    for feature in features:
        name, body = _named(feature, taken)
        rendered.append((f"  {scalar(name)}: {scalar(body)}", feature.reason))
    return _aligned(rendered)


def _left_out(left_out: Sequence[choices.LeftOut]) -> list[str]:
    return ["  # Left out:"] * bool(left_out) + [
        f"  # {on_one_line(left.column)}: {on_one_line(left.reason)}" for left in left_out
    ]


def _named(feature: choices.Feature, taken: set[str]) -> tuple[str, dict[str, Any]]:
    """Names a feature as its column, in letters, digits and underscores, apart from all that Transform writes.

    Args:
        feature: the feature.
        taken: columns that Transform writes for others; those of this one are added.

    Returns:
        The name and the section of the configuration.
    """
    base = re.sub(r"[^A-Za-z0-9_]+", "_", feature.column).strip("_") or "column"
    for number in itertools.count(1):
        name = base if number == 1 else f"{base}_{number}"
        body = dict(feature.body)
        if name != feature.column:
            body = {"kind": body.pop("kind"), "column": feature.column, **body}
        written = settings.output_columns(name, _FEATURE.validate_python(body))
        if not taken & {name, *written}:
            break
    taken.update((name, *written))
    return name, body


def _aligned(entries: Sequence[tuple[str, str]]) -> list[str]:
    """Puts the comments of neighbouring lines under each other, unless a line is very long."""
    width = max((len(text) for text, _ in entries if len(text) <= 60), default=0)
    return [f"{text.ljust(width)}  # {on_one_line(reason)}" for text, reason in entries]


def scalar(value: Any) -> str:
    """Writes a value as YAML on one line, so that it is read back as the same value."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(key)}: {scalar(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(scalar, value)) + "]"
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z_./][A-Za-z0-9_./-]*", value) and yaml.safe_load(value) == value
        return value if plain else json.dumps(value, ensure_ascii=not value.isprintable())
    return json.dumps(value)


def _publish(files: dict[Path, str], *, force: bool) -> None:
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        if force and path.exists():
            shutil.copyfile(path, path.with_name(f"{path.name}.bak"))
    # The configuration names the schema: it comes last, so that it is never there alone.
    for path, text in reversed(files.items()):
        write_whole(path, text)


# --- the screen ------------------------------------------------------------------------------------------------------


def _table(made: Made) -> list[str]:
    kinds = {feature.column: feature for feature in made.choices.features}
    out = {left.column: left for left in made.choices.left_out}
    rows = [("column", "type", "different", "missing", "becomes", "because")]
    for name, column in made.profile.columns.items():
        if name == made.label:
            becomes, because = "the label", ""
        elif name in kinds:
            becomes, because = str(kinds[name].body["kind"]), kinds[name].reason
        else:
            becomes, because = "-", out[name].reason
        missing = f"{column.missing_share:.1%}" if column.missing else ""
        type_ = {"BYTES": "text", "INT": "whole number", "FLOAT": "number"}[column.type.value]
        rows.append((_cut(name, 32), type_, column.distinct_in_words(), missing, becomes, _cut(because, 90)))
    return aligned(rows)


def _cut(text: str, length: int) -> str:
    return short(on_one_line(text), length)


def _shown(path: Path) -> str:
    here = Path.cwd()
    return os.path.relpath(path, here) if path.is_relative_to(here) else str(path)
