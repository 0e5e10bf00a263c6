"""What the model needs to know of the transformed columns, read from the transform graph: names, sizes and classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_metadata.proto.v0 import schema_pb2

from evergreen import settings
from transform import preprocessing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """The columns that Transform writes."""

    numeric: tuple[str, ...]
    """Scaled numbers, float32."""
    categories: Mapping[str, int]
    """Number of categories of each column of ids, int64; -1 is no category."""
    label: str
    classes: tuple[str | int, ...] = ()
    """The classes in ascending order; empty for a regression. The second of two is the positive one."""
    class_ranks: tuple[int, ...] = ()
    """For each id that Transform gives a class (by frequency) its place in `classes`."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all inputs of the model."""
        return (*self.numeric, *self.categories)

    def spec(self) -> dict[str, tf.io.FixedLenFeature]:
        """How to parse a transformed tf.Example: every column holds one value."""
        columns: dict[str, tf.DType] = dict.fromkeys(self.numeric, tf.float32)
        columns.update(dict.fromkeys(self.categories, tf.int64))
        columns[self.label] = tf.int64 if self.classes else tf.float32
        return {name: tf.io.FixedLenFeature([], dtype) for name, dtype in columns.items()}


def read(transform: tft.TFTransformOutput, config: settings.Preprocessing) -> Features:
    """Reads the sizes out of the transformed schema and the classes out of the label's vocabulary."""
    domains = transform.transformed_domains()
    numeric = tuple(name for name, feature in config.features.items() if isinstance(feature, settings.Numeric))
    categories = {name: domains[name].max + 1 for name in config.features if name not in numeric}
    if config.label.task is settings.Task.REGRESSION:
        return Features(numeric=numeric, categories=categories, label=config.label.column)
    by_id = _classes(transform, config.label.column)
    classes = sorted(by_id)
    ranks = tuple(classes.index(value) for value in by_id)
    return Features(
        numeric=numeric, categories=categories, label=config.label.column, classes=tuple(classes), class_ranks=ranks
    )


def _classes(transform: tft.TFTransformOutput, column: str) -> list[Any]:
    words = transform.vocabulary_by_name(preprocessing.label_vocabulary_name(column))
    types = {feature.name: feature.type for feature in transform.raw_metadata.schema.feature}
    if types[column] == schema_pb2.INT:
        return [int(word) for word in words]
    return [word.decode() for word in words]
