"""Reviewing the schema: what it says in words, what the newest data would change in it, and accepting that.

Guarantee: `diff` only reads. `accept` changes the features that differ and leaves every other byte of the file,
comments included; the file is replaced whole, and the old one stays beside it as `schema.pbtxt.bak`.

    print(show(config))
    changes = diff(config)            # looks at the newest span
    print(changes.told())
    print(accept(config, changes))
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from evergreen import settings, spans
from evergreen.errors import BadInput, Problem
from evergreen.files import write_whole
from evergreen.words import aligned, on_one_line, short
from pipeline.config import Config
from pipeline.drafting import new_schema, profile, table_source

_SHOWN = 5
_NAME_SHOWN = 40
_USE_SHOWN = 60
_VALUE_SHOWN = 30
_TYPES = {"INT": "whole number", "FLOAT": "number", "BYTES": "text"}
_WIDER = {("INT", "FLOAT"), ("INT", "BYTES"), ("FLOAT", "BYTES")}
"""Types of the schema and of the data that do not go together; the others hold the data as they are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """What the newest data would change in one column of the schema."""

    column: str
    words: str
    replacement: str | None
    """The feature's new text; None where it is taken out."""
    refusal: str | None = None
    """Why it cannot be accepted as things are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Changes:
    """What the newest data would change."""

    changes: Sequence[Change]
    looked_at: str
    """Which rows, in words."""
    schema_path: str
    accept: str
    """The command that takes the changes over."""

    def told(self) -> str:
        """Returns the changes in words, one a line, and what to do."""
        if not self.changes:
            return f"{self.schema_path} holds for {self.looked_at}: nothing would change."
        count = len(self.changes)
        lines = [f"{self.looked_at} would change {count} thing{'s' * (count > 1)} in {self.schema_path}:"]
        lines += [f"  {change.column}: {change.words}" for change in self.changes]
        lines.append(f"If that is how the data shall be: {self.accept}  (one column: --column NAME)")
        return "\n".join(lines)


def show(config: Config) -> str:
    """Returns the columns of the schema in words, as a table.

    Raises:
        BadInput: when the configuration names no schema.
    """
    schema = _parse(_text(config), config)
    uses = _uses(config)
    rows = [("column", "type", "must be there", "values", "used as")]
    rows += [
        (
            short(on_one_line(feature.name), _NAME_SHOWN),
            _TYPES[_type(feature)],
            _presence_in_words(feature),
            on_one_line(_domain_in_words(feature, schema)),
            short(on_one_line(uses.get(feature.name, "-")), _USE_SHOWN),
        )
        for feature in schema.feature
    ]
    return "\n".join([f"{config.schema_path}: {len(schema.feature)} columns", "", *aligned(rows)])


def diff(config: Config, *, spans_: str | None = None, command: str = "local_runner.py schema accept") -> Changes:
    """Looks at the newest span and tells what it would change in the schema.

    Args:
        config: the problem.
        spans_: the spans to look at ("3", "2-5") in the place of the newest one.
        command: the command line that accepts, for the words.

    Raises:
        BadInput: when the data cannot be read.
    """
    selection = spans.resolve(config.data, spans=spans_)
    if spans_ is None:
        selection = dataclasses.replace(selection, spans=(selection.newest,))
    names = [feature.name for feature in _parse(_text(config), config).feature] if config.schema_path else None
    looked = profile.look(table_source.Found(data=config.data, selection=selection, names=names))
    numbers = [span.number for span in selection.spans]
    where = f"span {numbers[0]}" if len(numbers) == 1 else f"spans {numbers[0]} to {numbers[-1]}"
    parts = config.data.splits.values()
    smallest = max(1, looked.rows * min(parts) // sum(parts))
    if config.schema_path is None:
        changes: list[Change] = []
        path = f"schemas/{config.name}/schema.pbtxt"
        changes.append(
            Change(
                column="all columns", words="there is no schema yet", replacement=_inferred(config, looked, smallest)
            )
        )
    else:
        path = config.schema_path
        schema = _parse(_text(config), config)
        changes = list(_changes(config, schema, looked, smallest))
    of = "" if looked.complete else "the first "
    return Changes(changes=changes, looked_at=f"{of}{looked.rows:,} rows of {where}", schema_path=path, accept=command)


def accept(config: Config, changes: Changes, *, columns: Collection[str] | None = None) -> str:
    """Takes changes over into the schema file.

    Args:
        config: the problem.
        changes: what `diff` found.
        columns: only these; all where it is left out.

    Returns:
        What was done, in words.

    Raises:
        BadInput: when a column is named that has no change, or a change cannot be accepted.
    """
    chosen = [change for change in changes.changes if columns is None or change.column in columns]
    problems = [_no_change(name, changes) for name in columns or () if name not in {c.column for c in changes.changes}]
    problems += [
        Problem(
            where=f"{changes.schema_path}, column {change.column!r}",
            found=change.words,
            expected="a schema in which every column is that the configuration reads",
            action=change.refusal,
        )
        for change in chosen
        if change.refusal
    ]
    if problems:
        raise BadInput(problems)
    if not chosen:
        return f"{changes.schema_path} holds for {changes.looked_at}: nothing to accept."
    path = Path(changes.schema_path)
    if config.schema_path is None:
        return _accept_first(path, chosen[0], config)
    text = _text(config)
    for change in chosen:
        text = _replaced(text, change)
    _parse(text, config)  # a check of ourselves, before anything is written
    backup = path.with_name(f"{path.name}.bak")
    shutil.copyfile(path, backup)
    write_whole(path, text)
    told = "\n".join(f"  {change.column}: {change.words}" for change in chosen)
    return f"Accepted into {path} (the old one is {backup}; `git diff {path}` shows the change):\n{told}"


def _accept_first(path: Path, change: Change, config: Config) -> str:
    if path.exists():
        raise BadInput(
            [
                Problem(
                    where=str(path),
                    found="a schema that the configuration does not name",
                    expected="no file there yet",
                    action=f"Add `schema: {path}` to the configuration of {config.name}, then ask again.",
                )
            ]
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, change.replacement or "")
    return f"Wrote {path}. Add `schema: {path}` to the configuration of {config.name}: from then on it is imported."


# --- finding changes -------------------------------------------------------------------------------------------------


def _changes(config: Config, schema: Any, looked: profile.Profile, smallest: int) -> Iterator[Change]:
    known = {feature.name: feature for feature in schema.feature}
    uses = _uses(config)
    generated = {config.data.span_column} if getattr(config.data, "span_column", None) else set()
    for name, feature in known.items():
        column = looked.columns.get(name)
        if name in generated:
            continue
        if column is not None and name == config.label.column:
            # Rows without a label never reach the gate: `data.max_unlabelled_share` says how many there may be.
            column = dataclasses.replace(column, missing=0 if column.present else column.missing)
        if column is None:
            use = uses.get(name)
            refusal = f"The configuration reads it ({use}): change that first." if use else None
            yield Change(column=name, words="no longer among the data's columns", replacement=None, refusal=refusal)
            continue
        words = list(_differences(feature, column, schema))
        if words:
            yield Change(column=name, words="; ".join(words), replacement=_changed(feature, column, schema, smallest))
    for name, column in looked.columns.items():
        if name not in known:
            lines = new_schema.feature(column, is_label=False, smallest_split=smallest)
            words_ = f"a new column of {_TYPES[column.type.value]}s, {column.distinct_in_words()} different values"
            yield Change(column=name, words=words_, replacement="\n".join(lines))


def _differences(feature: Any, column: profile.Column, schema: Any) -> Iterator[str]:
    """Yields what does not fit the schema, in words."""
    if not column.present:
        if feature.presence.min_fraction > 0:
            yield "no value in any row"
        return
    type_ = _type(feature)
    if (type_, column.type.value) in _WIDER:
        example = _example(column, type_)
        yield f"{_TYPES[type_]} becomes {_TYPES[column.type.value]}{f' (such as {example!r})' if example else ''}"
        return
    if (1.0 - column.missing_share) < feature.presence.min_fraction:
        allowed = 1.0 - feature.presence.min_fraction
        yield f"missing in {column.missing_share:.1%} of the rows, at most {allowed:.1%} may be"
    if column.most_values > 1 and feature.HasField("shape"):
        yield f"up to {column.most_values:,} values a row, the shape allows one"
    yield from _new_values(feature, column, schema)
    yield from _wider_range(feature, column)


def _new_values(feature: Any, column: profile.Column, schema: Any) -> Iterator[str]:
    values = _string_domain(feature, schema)
    if values is None:
        return
    if not column.counts:
        yield f"{column.distinct_in_words()} different values, {len(values):,} are listed"
        return
    new = {value: count for value, count in column.counts.items() if value not in values}
    if new:
        shown = ", ".join(f"{value!r} ({count:,} rows)" for value, count in list(new.items())[:_SHOWN])
        more = f" and {len(new) - _SHOWN:,} more" if len(new) > _SHOWN else ""
        share = sum(new.values()) / column.present
        yield f"new value{'s' * (len(new) > 1)} {shown}{more}, {share:.1%} of the rows"


def _wider_range(feature: Any, column: profile.Column) -> Iterator[str]:
    bounds, limits = column.range(), _limits(feature)
    if bounds is None or limits is None:
        return
    low, high = limits
    if low is not None and bounds[0] < low:
        yield f"down to {bounds[0]:g}, the least was {low:g}"
    if high is not None and bounds[1] > high:
        yield f"up to {bounds[1]:g}, the most was {high:g}"


def _example(column: profile.Column, type_: str) -> str | None:
    """Returns a value that the old type does not take."""
    if column.type is not profile.Type.STRING:
        return next((value for value in column.counts if not re.fullmatch(r"\s*-?\d+\s*", value)), None)
    numbers = profile.as_numbers(column.sample)
    odd = column.sample.filter(pa.array(np.isnan(numbers))).drop_null()
    return str(odd[0])[:40] if len(odd) and type_ != "BYTES" else None


# --- changing a feature ----------------------------------------------------------------------------------------------


def _changed(feature: Any, column: profile.Column, schema: Any, smallest: int) -> str:
    """Returns the text of the feature as the data have it."""
    from tensorflow_metadata.proto.v0 import schema_pb2

    new = schema_pb2.Feature()
    new.CopyFrom(feature)
    type_ = _type(feature)
    if (type_, column.type.value) in _WIDER:
        new.type = schema_pb2.FeatureType.Value(column.type.value)
        for field in ("int_domain", "float_domain"):
            new.ClearField(field)
    share = 1.0 - column.missing_share
    if share < feature.presence.min_fraction:
        new.presence.min_fraction = new_schema.min_fraction(column, smallest)
        new.presence.min_count = 1 if column.present else 0
        new.ClearField("shape")
    if column.most_values > 1:
        new.ClearField("shape")
    values = _string_domain(feature, schema)
    if values is not None and column.counts:
        merged = sorted({*values, *column.counts})
        new.string_domain.Clear()
        new.string_domain.value.extend(merged)
    elif values is not None:
        new.ClearField("domain")
        new.ClearField("string_domain")
    _widen(new, column)
    return _feature_text(new)


def _widen(new: Any, column: profile.Column) -> None:
    bounds = column.range()
    if bounds is None:
        return
    for name, kind in (("int_domain", int), ("float_domain", float)):
        if not new.HasField(name):
            continue
        domain = getattr(new, name)
        if domain.HasField("min") and bounds[0] < domain.min:
            domain.min = kind(bounds[0])
        if domain.HasField("max") and bounds[1] > domain.max:
            domain.max = kind(bounds[1])


def _feature_text(feature: Any) -> str:
    from google.protobuf import text_format

    body = text_format.MessageToString(feature, as_utf8=True)
    return "feature {\n" + "".join(f"  {line}\n" for line in body.splitlines()) + "}"


def _replaced(text: str, change: Change) -> str:
    """Puts the new text of a feature in the place of its old one; a new one goes to the end."""
    for start, end in _blocks(text):
        if _name_of(text[start:end]) == change.column:
            if change.replacement is None:
                return text[:start].rstrip("\n") + "\n" + text[end:].lstrip("\n")
            return text[:start] + change.replacement + text[end:]
    return text.rstrip("\n") + f"\n{change.replacement}\n"


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Yields start and end of each `feature { ... }` on the first level."""
    depth, begin = 0, 0
    for token in re.finditer(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|#[^\n]*|\bfeature\s*:?\s*\{|[{}]|<|>', text):
        if token[0].startswith("feature") and depth == 0:
            begin = token.start()
        if token[0].endswith("{") and not token[0].startswith(("#", '"', "'")):
            depth += 1
        elif token[0] == "}":
            depth -= 1
            if depth == 0 and text.startswith("feature", begin):
                yield begin, token.end()
                begin = len(text)


def _name_of(block: str) -> str | None:
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    parsed = text_format.Parse(block, schema_pb2.Schema())
    return parsed.feature[0].name if len(parsed.feature) == 1 else None


def _inferred(config: Config, looked: profile.Profile, smallest: int) -> str:
    bodies: dict[str, Mapping[str, Any]] = {}
    for name, feature in config.features.items():
        for column in settings.raw_columns(name, feature):
            bodies[column] = feature.model_dump(mode="json")
    return new_schema.render(
        looked,
        label=config.label.column,
        classes=config.label.task is not settings.Task.REGRESSION,
        features=bodies,
        smallest_split=smallest,
    )


# --- the schema ------------------------------------------------------------------------------------------------------


def _text(config: Config) -> str:
    if config.schema_path is None:
        raise BadInput(
            [
                Problem(
                    where=f"the configuration of {config.name}",
                    found="no schema",
                    expected="a curated schema",
                    action="`schema accept` writes one from the newest data.",
                )
            ]
        )
    return Path(config.schema_path).read_text(encoding="utf-8")


def _parse(text: str, config: Config) -> Any:
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    try:
        return text_format.Parse(text, schema_pb2.Schema())
    except text_format.ParseError as error:
        raise BadInput(
            [
                Problem(
                    where=str(config.schema_path),
                    found=str(error),
                    expected="a tensorflow.metadata.v0.Schema in text form",
                    action="Repair the file.",
                )
            ]
        ) from error


def _type(feature: Any) -> str:
    from tensorflow_metadata.proto.v0 import schema_pb2

    return str(schema_pb2.FeatureType.Name(feature.type))


def _string_domain(feature: Any, schema: Any) -> list[str] | None:
    """Returns the values that the schema lists for a column, in the feature or in a domain that it names."""
    if feature.HasField("string_domain"):
        return list(feature.string_domain.value)
    if feature.HasField("domain"):
        return next((list(domain.value) for domain in schema.string_domain if domain.name == feature.domain), None)
    return None


def _limits(feature: Any) -> tuple[float | None, float | None] | None:
    for name in ("int_domain", "float_domain"):
        if feature.HasField(name):
            domain = getattr(feature, name)
            return (
                domain.min if domain.HasField("min") else None,
                domain.max if domain.HasField("max") else None,
            )
    return None


def _presence_in_words(feature: Any) -> str:
    if feature.presence.min_fraction >= 1.0:
        return "in every row"
    if feature.presence.min_fraction > 0.0:
        return f"in {feature.presence.min_fraction:.0%} of the rows"
    return "in some row" if feature.presence.min_count else "no"


def _domain_in_words(feature: Any, schema: Any) -> str:
    values = _string_domain(feature, schema)
    if values is not None:
        more = f", ... ({len(values):,})" if len(values) > _SHOWN else ""
        return ", ".join(short(value, _VALUE_SHOWN) for value in values[:_SHOWN]) + more
    limits = _limits(feature)
    if limits is None or limits == (None, None):
        return "any"
    low, high = limits
    if low is None or high is None:
        return f"at least {low:g}" if low is not None else f"at most {high:g}"
    return f"{low:g} to {high:g}"


def _uses(config: Config) -> dict[str, str]:
    """Names what the configuration makes of each raw column."""
    uses: dict[str, list[str]] = {config.label.column: [f"the label ({config.label.task.value})"]}
    for name, feature in config.features.items():
        for column in settings.raw_columns(name, feature):
            uses.setdefault(column, []).append(feature.kind if name == column else f"{feature.kind} {name}")
    for columns in config.evaluation.slices:
        for column in columns:
            uses.setdefault(column, []).append("slice")
    if config.weights is not None and config.weights.column is not None:
        uses.setdefault(config.weights.column, []).append("weight")
    return {column: ", ".join(dict.fromkeys(words)) for column, words in uses.items()}


def _no_change(name: str, changes: Changes) -> Problem:
    names = ", ".join(change.column for change in changes.changes)
    return Problem(
        where=f"--column {name}",
        found="no change of that column",
        expected=f"one of {names}" if names else "a column that the newest data would change; none would",
        action="Correct the name.",
    )
