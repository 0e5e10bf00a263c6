"""What the model needs to know of the transformed columns, read from the transform graph: names, sizes and classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_metadata.proto.v0 import schema_pb2

from evergreen import settings
from transform import columns, preprocessing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """The columns that Transform writes."""

    numeric: tuple[str, ...]
    """Scaled numbers, float32."""
    categories: Mapping[str, int]
    """Number of categories of each column of ids, int64; -1 is no category."""
    label: str
    lengths: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """How many ids a row has, for the columns of several: multi-hot."""
    weight: str | None = None
    """The column of the rows' weights, float32, where rows are weighted."""
    classes: tuple[str | int, ...] = ()
    """The classes in ascending order; empty for a regression. The second of two is the positive one."""
    class_ranks: tuple[int, ...] = ()
    """For each id that Transform gives a class (by frequency) its place in `classes`."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all inputs of the model."""
        return (*self.numeric, *self.categories)

    def spec(self) -> dict[str, tf.io.FixedLenFeature]:
        """How to parse a transformed tf.Example: every column holds one value, those in `lengths` that many."""
        types: dict[str, tf.DType] = dict.fromkeys(self.numeric, tf.float32)
        types.update(dict.fromkeys(self.categories, tf.int64))
        types[self.label] = tf.int64 if self.classes else tf.float32
        if self.weight is not None:
            types[self.weight] = tf.float32
        shapes = {name: [length] for name, length in self.lengths.items()}
        return {name: tf.io.FixedLenFeature(shapes.get(name, []), dtype) for name, dtype in types.items()}


def read(transform: tft.TFTransformOutput, config: settings.Preprocessing) -> Features:
    """Reads types and sizes out of the transformed schema and the classes out of the label's vocabulary."""
    spec, domains = transform.transformed_feature_spec(), transform.transformed_domains()
    names = [column for name, feature in config.features.items() for column in settings.output_columns(name, feature)]
    features = Features(
        numeric=tuple(name for name in names if spec[name].dtype == tf.float32),
        categories={name: domains[name].max + 1 for name in names if spec[name].dtype == tf.int64},
        label=config.label.column,
        lengths={name: spec[name].shape[0] for name in names if len(spec[name].shape) == 1},
        weight=columns.WEIGHT if config.weights is not None else None,
    )
    if config.label.task is settings.Task.REGRESSION:
        return features
    by_id = _classes(transform, config.label.column)
    classes = sorted(by_id)
    ranks = tuple(classes.index(value) for value in by_id)
    return dataclasses.replace(features, classes=tuple(classes), class_ranks=ranks)


def _classes(transform: tft.TFTransformOutput, column: str) -> list[Any]:
    words = transform.vocabulary_by_name(preprocessing.label_vocabulary_name(column))
    types = {feature.name: feature.type for feature in transform.raw_metadata.schema.feature}
    if types[column] == schema_pb2.INT:
        return [int(word) for word in words]
    return [word.decode() for word in words]
