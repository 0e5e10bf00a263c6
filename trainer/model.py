"""The Keras model: transformed columns in, predictions in the label's own units (or class scores) out.

The first layers turn a batch of compact columns into one matrix: numbers as they are and each category column one-hot,
170 wide for the humidity problem (2 numbers and 168 cells). Columns of more than `one_hot_up_to` categories are
embedded instead. Columns of several ids a row are multi-hot, or the sum of their embeddings. A linear part, a deep part
or both read from there.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, NamedTuple

import keras

from evergreen import settings
from trainer import features as features_lib

INPUT_LAYER = "inputs"
"""Name of the layer whose output is the model's first matrix, [batch, width]."""


@keras.saving.register_keras_serializable(package="evergreen")
class OneHot(keras.layers.Layer):
    """Ids [batch] to rows of zeros with a single one [batch, size]; an id outside of [0, size) gives zeros only."""

    def __init__(self, size: int, **kwargs: Any) -> None:
        """Takes the number of categories."""
        super().__init__(**kwargs)
        self.size = size

    def call(self, ids: Any) -> Any:
        """Expands a batch."""
        return keras.ops.one_hot(ids, self.size, dtype=self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Adds the axis of the categories."""
        return (*input_shape, self.size)

    def get_config(self) -> dict[str, Any]:
        """Returns what the layer is rebuilt from."""
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable(package="evergreen")
class MultiHot(OneHot):
    """Ids [batch, n] to rows with a one for each of them [batch, size]; ids outside of [0, size) count for nothing."""

    def call(self, ids: Any) -> Any:
        """Expands a batch, one place after the other: all at once would take n times the memory."""
        rows = super().call(ids[:, 0])
        for place in range(1, ids.shape[1]):
            rows = keras.ops.maximum(rows, super().call(ids[:, place]))
        return rows

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Puts the categories in the place of the values."""
        return (input_shape[0], self.size)


@keras.saving.register_keras_serializable(package="evergreen")
class CategoryEmbedding(keras.layers.Embedding):
    """Ids [batch] to learned vectors [batch, output_dim]; a negative id (no category) gives zeros."""

    def call(self, ids: Any) -> Any:
        """Looks a batch up."""
        known = keras.ops.expand_dims(keras.ops.cast(ids >= 0, self.compute_dtype), -1)
        return super().call(keras.ops.maximum(ids, 0)) * known


@keras.saving.register_keras_serializable(package="evergreen")
class EmbeddingBag(CategoryEmbedding):
    """Ids [batch, n] to the sum of their vectors, [batch, output_dim]; negative ids count for nothing."""

    def call(self, ids: Any) -> Any:
        """Looks a batch up."""
        return keras.ops.sum(super().call(ids), axis=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Puts the vector in the place of the values."""
        return (input_shape[0], self.output_dim)


@keras.saving.register_keras_serializable(package="evergreen")
class EvenedEmbeddingBag(EmbeddingBag):
    """As `EmbeddingBag`, divided by the root of how many ids there are: long rows are not louder than short ones."""

    def call(self, ids: Any) -> Any:
        """Looks a batch up."""
        count = keras.ops.sum(keras.ops.cast(ids >= 0, self.compute_dtype), axis=1, keepdims=True)
        return super().call(ids) / keras.ops.sqrt(keras.ops.maximum(count, 1.0))


def build(
    config: settings.Model,
    features: features_lib.Features,
    *,
    label_mean: float = 0.0,
    label_deviation: float = 1.0,
    seed: int | None = None,
) -> keras.Model:
    """Builds the model that the configuration asks for.

    Args:
        config: Kind, sizes and the border between one-hot and embedding.
        features: The transformed columns.
        label_mean: Mean of a regression's label: where the untrained model starts.
        label_deviation: Its standard deviation; inside, the model works on a label of mean 0 and deviation 1.
        seed: Of the initial weights.

    Returns:
        A model from {name: [batch], or [batch, n] for several ids a row} to float32 [batch, 1]: the prediction in the
        label's own units for a regression, the probability of the second class for two classes; for more of them
        [batch, classes] probabilities.
    """
    if seed is not None:
        keras.utils.set_random_seed(seed)
    inputs = {name: keras.Input((), name=name, dtype="float32") for name in features.numeric}
    inputs |= {
        name: keras.Input((features.lengths[name],) if name in features.lengths else (), name=name, dtype="int64")
        for name in features.categories
    }
    names = _Names(features.names)
    first = _first_layers(config, features, inputs, names)
    outputs = len(features.classes) if len(features.classes) > 2 else 1
    parts = []
    if config.kind in ("linear", "wide_deep"):
        parts += _wide(first, features, outputs, names)
    if config.kind in ("deep", "wide_deep"):
        parts.append(_deep(config, first, features, outputs, names))
    scores = keras.layers.Add(name=names("scores"))(parts) if len(parts) > 1 else parts[0]
    return keras.Model(inputs, _output(features, scores, names, (label_mean, label_deviation)), name=config.kind)


class _Names:
    """Names of layers: legal as TensorFlow's scopes, and none of them the name of a column's input."""

    def __init__(self, columns: Collection[str]) -> None:
        self._taken = set(columns)

    def __call__(self, purpose: str, column: str = "") -> str:
        legal = re.sub(r"[^A-Za-z0-9.]+", "_", column)
        name = f"{legal.strip('_')}_{purpose}".strip("_")
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name


class _First(NamedTuple):
    matrix: Any | None
    """Numbers and one-hot columns side by side, [batch, width]; None when all columns are too large for that."""
    large: dict[str, tuple[Any, int]]
    """Input and number of categories of the columns that are embedded."""


def _first_layers(
    config: settings.Model, features: features_lib.Features, inputs: dict[str, Any], names: _Names
) -> _First:
    large = {name: (inputs[name], size) for name, size in features.categories.items() if size > config.one_hot_up_to}
    columns = [keras.layers.Reshape((1,), name=names("column", name))(inputs[name]) for name in features.numeric]
    columns += [
        (MultiHot if name in features.lengths else OneHot)(size, name=names("one_hot", name))(inputs[name])
        for name, size in features.categories.items()
        if name not in large
    ]
    if not columns:
        return _First(None, large)
    if len(columns) == 1:
        return _First(keras.layers.Identity(name=names(INPUT_LAYER))(columns[0]), large)
    return _First(keras.layers.Concatenate(name=names(INPUT_LAYER))(columns), large)


def _wide(first: _First, features: features_lib.Features, outputs: int, names: _Names) -> list[Any]:
    """A weight for every number and category; an embedding as wide as the output is just that for large columns."""
    parts = []
    if first.matrix is not None:
        parts.append(keras.layers.Dense(outputs, name=names("wide"), kernel_initializer="zeros")(first.matrix))
    for name, (ids, size) in first.large.items():
        kind = EmbeddingBag if name in features.lengths else CategoryEmbedding
        weights = kind(size, outputs, embeddings_initializer="zeros", name=names("wide", name))
        parts.append(weights(ids))
    return parts


def _deep(config: settings.Model, first: _First, features: features_lib.Features, outputs: int, names: _Names) -> Any:
    parts = [] if first.matrix is None else [first.matrix]
    for name, (ids, size) in first.large.items():
        kind = EvenedEmbeddingBag if name in features.lengths else CategoryEmbedding
        parts.append(kind(size, embedding_width(size), name=names("embedding", name))(ids))
    hidden = keras.layers.Concatenate(name=names("deep_inputs"))(parts) if len(parts) > 1 else parts[0]
    for number, units in enumerate(config.hidden_units, start=1):
        hidden = keras.layers.Dense(units, activation="relu", name=names(f"hidden_{number}"))(hidden)
        if config.dropout:
            hidden = keras.layers.Dropout(config.dropout, name=names(f"dropout_{number}"))(hidden)
    return keras.layers.Dense(outputs, name=names("deep"))(hidden)


def _output(features: features_lib.Features, scores: Any, names: _Names, label: tuple[float, float]) -> Any:
    if not features.classes:
        mean, deviation = label
        return keras.layers.Rescaling(deviation, offset=mean, name=names("prediction"))(scores)
    activation = "softmax" if len(features.classes) > 2 else "sigmoid"
    return keras.layers.Activation(activation, name=names("probabilities"))(scores)


def embedding_width(categories: int) -> int:
    """Sizes an embedding by the fourth root rule, 2 to 64: 1,000 categories give 9, a million 51."""
    return int(min(64, max(2, round(1.6 * categories**0.25))))
