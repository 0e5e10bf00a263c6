"""Sections about the table: where it lies, how its files read, how it is split."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import pydantic

from evergreen.settings.base import ColumnName, Section, Share
from evergreen.settings.features import _time_format


class CsvFormat(Section):
    """How the CSV files are written."""

    delimiter: Annotated[str, pydantic.Field(min_length=1, max_length=1)] = ","
    """What stands between two fields."""
    quote: Annotated[str, pydantic.Field(min_length=1, max_length=1)] = '"'
    """What a field that holds a delimiter is wrapped in."""
    decimal: Literal[".", ","] = "."
    """What stands between the whole part of a number and its fraction. Marks between thousands make it no number."""
    encoding: str = "utf-8"
    """The files' character encoding, by Python's name."""
    missing: list[str] = []
    """How a missing value is written beside an empty cell, exactly: `NA`, `?`. It is missing in every column then, text
    included."""
    header: bool = True
    """Whether the first line names the columns; without it the columns are the schema's, in the schema's order."""

    @pydantic.field_validator("delimiter", "quote")
    @classmethod
    def _one_byte(cls, sign: str) -> str:
        if not sign.isascii() or sign in "\r\n\0":
            raise ValueError("one ASCII character that ends no line")
        return sign

    @pydantic.field_validator("encoding")
    @classmethod
    def _of_text(cls, encoding: str) -> str:
        try:
            if "a".encode(encoding).decode(encoding) == "a":
                return encoding
        except (LookupError, UnicodeError, ValueError):
            pass
        raise ValueError("an encoding of text that Python knows, such as utf-8, utf-16, cp1252 or shift_jis")

    @pydantic.model_validator(mode="after")
    def _apart(self) -> CsvFormat:
        if self.delimiter == self.quote:
            raise ValueError("a delimiter and a quote that differ")
        return self


class SplitByKey(Section):
    """Rows go into a split by the hash of some columns: all rows of one customer into the same."""

    columns: Annotated[list[ColumnName], pydantic.Field(min_length=1)]
    """The columns that say who or what a row belongs to. A row that lacks them all goes by its own hash."""


class SplitByTime(Section):
    """Rows go into a split by their moment: the first split gets the oldest ones, the last the newest ones."""

    time: ColumnName
    """The column with the moment; rows without one go to quarantine."""
    formats: Annotated[list[str], pydantic.Field(min_length=1)] = ["iso"]
    """How the moments are written, as in a feature of the kind calendar."""
    cutoffs: dict[str, str] | None = None
    """The moment, written like the column's, at which every split but the first begins. Without cutoffs each span by
    itself is cut by the shares of `splits`: the newest rows of every span are its test rows."""

    @pydantic.field_validator("formats")
    @classmethod
    def _known_formats(cls, formats: list[str]) -> list[str]:
        return [_time_format(text) for text in formats]


class Data(Section):
    """Where the rows come from and how they are split."""

    path: Annotated[str, pydantic.Field(min_length=1)]
    """A glob of files; `{SPAN}` and `{VERSION}` stand for a span's number and its delivery."""
    format: Literal["csv", "parquet", "tfrecord"] = "csv"
    """The files' format: CSV (plain, gzip, zstd or bz2), Parquet, or TFRecord of tf.Example (plain or gzip)."""
    csv: CsvFormat = CsvFormat()
    """How CSV files are written."""
    window: Annotated[int, pydantic.Field(ge=1)] = 1
    """How many of the latest spans one run trains on."""
    splits: dict[str, Annotated[int, pydantic.Field(ge=1)]] = {"train": 8, "eval": 1, "test": 1}
    """Name of each split and its share in parts."""
    split_by: Literal["row"] | SplitByKey | SplitByTime = "row"
    """What decides on a row's split: the hash of all its values (copies of a row stay together), the hash of some
    columns (`columns: [customer]`), or its moment (`time: sold_at`)."""
    required: list[ColumnName] = []
    """Columns without which a row is malformed; rows that lack a value go to quarantine."""
    shards: Annotated[int, pydantic.Field(ge=1, le=1024)] = 4
    """TFRecord files a split (at the least; a large input makes more)."""
    compression: Literal["none", "gzip"] = "none"
    """Of the TFRecord files: none is several times faster, gzip a third of the size."""
    max_malformed_share: Share = 0.01
    """The share of a file's rows that may go to quarantine before the run stops."""
    max_unlabelled_share: Share = 0.05
    """The share of a span's rows that may lack the label before the run stops. Such rows teach nothing: they go to
    quarantine, and do not count as malformed. Raise it where labels come late."""
    generator: str | None = None
    """Dotted path of a module that makes the built-in data where there are none yet."""
    span_column: ColumnName | None = None
    """Name of an integer column that every row gets with the number of its span; none by default."""

    @pydantic.field_validator("splits")
    @classmethod
    def _needed_splits(cls, splits: dict[str, int]) -> dict[str, int]:
        missing = {"train", "eval", "test"} - set(splits)
        if missing:
            raise ValueError(f"the splits train, eval and test are needed; missing: {', '.join(sorted(missing))}")
        illegal = [name for name in splits if not re.fullmatch(r"[a-z][a-z0-9_]*", name)]
        if illegal:
            raise ValueError(f"split names are lower-case words; found: {', '.join(illegal)}")
        return splits

    @pydantic.model_validator(mode="after")
    def _cutoffs_of_all(self) -> Data:
        if not isinstance(self.split_by, SplitByTime) or self.split_by.cutoffs is None:
            return self
        later = list(self.splits)[1:]
        if sorted(self.split_by.cutoffs) != sorted(later):
            raise ValueError(f"split_by.cutoffs has to hold {', '.join(later)}: every split but the first")
        return self
