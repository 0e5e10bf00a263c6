"""The Keras model: transformed columns in, predictions in the label's own units (or class scores) out.

The first layers turn a batch of compact columns into one matrix: numbers as they are and each category column one-hot,
170 wide for the humidity problem (2 numbers and 168 cells). Columns of more than `one_hot_up_to` categories are
embedded instead. Columns of several ids a row are multi-hot, or the sum of their embeddings. A linear part, a deep
part, both, a cross network or a function of the user's reads from there.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from evergreen import errors, settings
from trainer import features as features_lib

INPUT_LAYER = "inputs"
"""Name of the layer whose output is the model's first matrix, [batch, width]."""
_SIXTEEN_BITS = 1 << 16
_LOOKED_UP_FROM = 64
"""Categories from which on a row of weights is looked up faster than a one-hot column is multiplied."""


@keras.saving.register_keras_serializable(package="evergreen")
class SideBySide(keras.layers.Layer):
    """Numbers, [batch] each, to the rows of a matrix [batch, columns]: one layer however many columns there are."""

    def call(self, columns: list[Any]) -> Any:
        """Puts a batch together."""
        return keras.ops.stack(columns, axis=1)

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """Counts the columns."""
        return (input_shape[0][0], len(input_shape))


@keras.saving.register_keras_serializable(package="evergreen")
class OneHot(keras.layers.Layer):
    """Ids [batch] to rows of zeros with a single one [batch, size]; an id outside of [0, size) gives zeros only."""

    def __init__(self, size: int, comparing: bool = False, **kwargs: Any) -> None:
        """Takes the number of categories, and whether each id is compared with all of them.

        That is slower, and right where the operation one-hot is not: TensorFlow Lite's copies the bytes of a quantised
        0 and 1 onto the scale of its output, which is another one.
        """
        super().__init__(**kwargs)
        self.size = size
        self.comparing = comparing

    def call(self, ids: Any) -> Any:
        """Expands a batch."""
        if self.comparing:
            equal = keras.ops.equal(keras.ops.expand_dims(ids, -1), keras.ops.arange(self.size, dtype=ids.dtype))
            one, zero = (keras.ops.cast(value, self.compute_dtype) for value in (1.0, 0.0))
            return keras.ops.where(equal, one, zero)
        return keras.ops.one_hot(ids, self.size, dtype=self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Adds the axis of the categories."""
        return (*input_shape, self.size)

    def get_config(self) -> dict[str, Any]:
        """Returns what the layer is rebuilt from."""
        return {**super().get_config(), "size": self.size, "comparing": self.comparing}


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


@keras.saving.register_keras_serializable(package="evergreen")
class DenseOfIds(keras.layers.Layer):
    """A dense layer over a matrix of which some columns are one-hot and given as ids, [batch].

    Their rows of the kernel are looked up, and not multiplied with zeros; the weights are those of `Dense` over the
    whole matrix. An id outside of its categories adds nothing.
    """

    def __init__(
        self,
        units: int,
        sizes: Sequence[int | None],
        activation: Any = None,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        """Takes the outputs and, for each input in the order of the kernel's rows, its categories; None is a matrix."""
        super().__init__(**kwargs)
        self.units = units
        self.sizes = tuple(sizes)
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: list[tuple[int | None, ...]]) -> None:
        """Makes the kernel, [width, units], and the bias."""
        self.widths = [size or shape[-1] or 0 for size, shape in zip(self.sizes, input_shape, strict=True)]
        make = {"initializer": self.kernel_initializer, "regularizer": self.kernel_regularizer}
        self.kernel = self.add_weight(shape=(sum(self.widths), self.units), name="kernel", **make)
        self.bias = self.add_weight(shape=(self.units,), name="bias", initializer="zeros")

    def call(self, inputs: list[Any]) -> Any:
        """Adds up what each input gives."""
        total, begin = self.bias, 0
        for values, size, width in zip(inputs, self.sizes, self.widths, strict=True):
            rows = self.kernel[begin : begin + width]
            total = total + (keras.ops.matmul(values, rows) if size is None else self._looked_up(rows, values, size))
            begin += width
        return self.activation(total)

    def _looked_up(self, rows: Any, ids: Any, size: int) -> Any:
        known = keras.ops.cast((ids >= 0) & (ids < size), rows.dtype)
        return keras.ops.take(rows, keras.ops.clip(ids, 0, size - 1), axis=0) * keras.ops.expand_dims(known, -1)

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """Puts the units in the place of the columns."""
        return (input_shape[0][0], self.units)

    def get_config(self) -> dict[str, Any]:
        """Returns what the layer is rebuilt from."""
        return {
            **super().get_config(),
            "units": self.units,
            "sizes": self.sizes,
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


@keras.saving.register_keras_serializable(package="evergreen")
class Dropout(keras.layers.Dropout):
    """Keras' Dropout, with 16 random bits for a unit instead of 32 and a conversion to float.

    On a CPU the random numbers of Keras' own take longer than the matrices of a small network. The rate is met to
    1/65,536, and what is kept is scaled by the share that is.
    """

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Leaves units of a batch [batch, units] out, in training."""
        dropped = round(self.rate * _SIXTEEN_BITS)
        if not training or not dropped:
            return inputs
        shape, units = tf.shape(inputs), inputs.shape[-1]
        drawn = tf.random.stateless_uniform(
            [shape[0], (units + 1) // 2], self.seed_generator.next(), minval=None, maxval=None, dtype=tf.uint32
        )
        bits = tf.reshape(tf.bitcast(drawn, tf.uint16), [shape[0], units + units % 2])[:, :units]
        kept = bits >= tf.constant(dropped, tf.uint16)
        return tf.where(kept, inputs * (_SIXTEEN_BITS / (_SIXTEEN_BITS - dropped)), tf.zeros_like(inputs))


@keras.saving.register_keras_serializable(package="evergreen")
class Cross(keras.layers.Layer):
    """A layer of a cross network: x0 * (W x + b) + x, each [batch, width] (Wang et al., DCN V2).

    With a rank of less than half the width, W is the product of two narrow matrices.
    """

    def __init__(self, rank: int | None = None, kernel_regularizer: Any = None, **kwargs: Any) -> None:
        """Takes the rank of W, None for a full one."""
        super().__init__(**kwargs)
        self.rank = rank
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: list[tuple[int | None, ...]]) -> None:
        """Makes the matrices."""
        width: Any = input_shape[0][-1]
        rank = self.rank if self.rank is not None and 2 * self.rank < width else None
        make = {"initializer": "glorot_uniform", "regularizer": self.kernel_regularizer}
        self.down = None if rank is None else self.add_weight(shape=(width, rank), name="down", **make)
        self.kernel = self.add_weight(shape=(rank or width, width), name="kernel", **make)
        self.bias = self.add_weight(shape=(width,), name="bias", initializer="zeros")

    def call(self, inputs: list[Any]) -> Any:
        """Crosses the first input of the network with the output of the layer before."""
        first, before = inputs
        narrow = before if self.down is None else keras.ops.matmul(before, self.down)
        return first * (keras.ops.matmul(narrow, self.kernel) + self.bias) + before

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """Keeps the shape."""
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        """Returns what the layer is rebuilt from."""
        regularizer = keras.regularizers.serialize(self.kernel_regularizer)
        return {**super().get_config(), "rank": self.rank, "kernel_regularizer": regularizer}


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
    outputs = len(features.classes) if len(features.classes) > 2 else 1
    if config.function is not None:
        scores = _own_scores(config.function, config, features, inputs, outputs)
    else:
        scores = _scores(_Parts(config, features, names, outputs), _first_layers(config, features, inputs, names))
    name = "own" if config.function is not None else config.kind
    return keras.Model(inputs, _output(features, scores, names, (label_mean, label_deviation)), name=name)


def own_function(path: str) -> Callable[..., Any]:
    """Returns the user's function under a dotted path.

    It is called as `function(inputs, features, config)` with {name: Keras tensor [batch] or [batch, n]},
    `trainer.features.Features` and `settings.Model`, and returns a Keras tensor of scores: [batch, classes] for more
    than two classes, else [batch, 1], before any softmax or sigmoid; a regression's in standard deviations of the
    label around its mean. Everything around it (input, loss, export) stays.

    Raises:
        BadInput: when there is no such function.
    """
    module, _, name = path.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise errors.BadInput([_of_function(path, str(error), "a function that can be imported")]) from error
    if not callable(function):
        raise errors.BadInput([_of_function(path, f"a {type(function).__name__}", "a function")])
    return function


def _own_scores(
    path: str, config: settings.Model, features: features_lib.Features, inputs: dict[str, Any], outputs: int
) -> Any:
    scores = own_function(path)(inputs, features, config)
    shape = getattr(scores, "shape", None)
    if shape is None or tuple(shape) != (None, outputs):
        raise errors.BadInput(
            [_of_function(path, f"an answer of shape {shape}", f"a Keras tensor of shape (None, {outputs})")]
        )
    return scores


def _of_function(path: str, found: str, expected: str) -> errors.Problem:
    return errors.Problem(
        where=f"model.function, {path}", found=found, expected=expected, action="Correct the path or the function."
    )


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
    inputs: list[Any]
    """Numbers and one-hot columns side by side, [batch, width], and between them the ids, [batch], of the one-hot
    columns that are looked up."""
    sizes: list[int | None]
    """For each of the inputs the number of categories; None is a matrix."""
    large: dict[str, tuple[Any, int]]
    """Input and number of categories of the columns that are embedded."""


def _first_layers(
    config: settings.Model, features: features_lib.Features, inputs: dict[str, Any], names: _Names
) -> _First:
    large = {name: (inputs[name], size) for name, size in features.categories.items() if size > config.one_hot_up_to}
    numbers = [inputs[name] for name in features.numeric]
    first = _First([], [], large)
    columns = [SideBySide(name=names("numbers"))(numbers)] if numbers else []
    for name, size in features.categories.items():
        if name in large:
            continue
        if size >= _LOOKED_UP_FROM and name not in features.lengths and config.kind != "cross":
            _add_matrix(first, columns, names)
            first.inputs.append(inputs[name])
            first.sizes.append(size)
            columns = []
            continue
        kind = MultiHot if name in features.lengths else OneHot
        columns.append(kind(size, name=names("one_hot", name))(inputs[name]))
    _add_matrix(first, columns, names)
    return first


def _add_matrix(first: _First, columns: list[Any], names: _Names) -> None:
    """Puts columns side by side, behind the inputs that there are."""
    if not columns:
        return
    join = keras.layers.Concatenate(name=names(INPUT_LAYER)) if len(columns) > 1 else None
    first.inputs.append(keras.layers.Identity(name=names(INPUT_LAYER))(columns[0]) if join is None else join(columns))
    first.sizes.append(None)


class _Parts(NamedTuple):
    """What every part of the network is built with."""

    config: settings.Model
    features: features_lib.Features
    names: _Names
    outputs: int

    @property
    def penalty(self) -> Any:
        """The regulariser of the weights."""
        return keras.regularizers.L2(self.config.l2) if self.config.l2 else None


def _scores(parts: _Parts, first: _First) -> Any:
    kind = parts.config.kind
    if kind == "cross":
        return _cross(parts, first)
    scores = []
    if kind in ("linear", "wide_deep"):
        scores += _wide(parts, first)
    if kind in ("deep", "wide_deep"):
        scores.append(_last(parts, _hidden(parts, _with_embeddings(parts, first))))
    return keras.layers.Add(name=parts.names("scores"))(scores) if len(scores) > 1 else scores[0]


def _dense(parts: _Parts, first: _First, units: int, **options: Any) -> Any:
    """A dense layer over the first inputs."""
    options["kernel_regularizer"] = parts.penalty
    if first.sizes == [None]:
        return keras.layers.Dense(units, **options)(first.inputs[0])
    return DenseOfIds(units, first.sizes, **options)(first.inputs)


def _wide(parts: _Parts, first: _First) -> list[Any]:
    """A weight for every number and category; an embedding as wide as the output is just that for large columns."""
    scores = []
    if first.inputs:
        scores.append(_dense(parts, first, parts.outputs, name=parts.names("wide"), kernel_initializer="zeros"))
    for name, (ids, size) in first.large.items():
        kind = EmbeddingBag if name in parts.features.lengths else CategoryEmbedding
        weights = kind(
            size,
            parts.outputs,
            embeddings_initializer="zeros",
            embeddings_regularizer=parts.penalty,
            name=parts.names("wide", name),
        )
        scores.append(weights(ids))
    return scores


def _cross(parts: _Parts, first: _First) -> Any:
    """A cross network beside a deep one, the scores from both."""
    whole = _with_embeddings(parts, first)
    (inputs,) = whole.inputs
    crossed = inputs
    for number in range(1, parts.config.cross_layers + 1):
        layer = Cross(parts.config.cross_rank, parts.penalty, name=parts.names(f"cross_{number}"))
        crossed = layer([inputs, crossed])
    if parts.config.hidden_units:
        both = [crossed, *_hidden(parts, whole).inputs]
        crossed = keras.layers.Concatenate(name=parts.names("cross_and_deep"))(both)
    return _last(parts, _First([crossed], [None], {}))


def _with_embeddings(parts: _Parts, first: _First) -> _First:
    """Puts the embeddings, [batch, width], behind the last matrix."""
    if not first.large:
        return first
    columns = []
    for name, (ids, size) in first.large.items():
        kind = EvenedEmbeddingBag if name in parts.features.lengths else CategoryEmbedding
        vectors = kind(
            size, embedding_width(size), embeddings_regularizer=parts.penalty, name=parts.names("embedding", name)
        )
        columns.append(vectors(ids))
    inputs, sizes = list(first.inputs), list(first.sizes)
    if sizes and sizes[-1] is None:
        columns.insert(0, inputs.pop())
        sizes.pop()
    joined = keras.layers.Concatenate(name=parts.names("deep_inputs"))(columns) if len(columns) > 1 else columns[0]
    return _First([*inputs, joined], [*sizes, None], {})


def _hidden(parts: _Parts, first: _First) -> _First:
    """The hidden layers; without any, what they would have been given."""
    for number, units in enumerate(parts.config.hidden_units, start=1):
        hidden = _dense(parts, first, units, activation="relu", name=parts.names(f"hidden_{number}"))
        if parts.config.dropout:
            hidden = Dropout(parts.config.dropout, name=parts.names(f"dropout_{number}"))(hidden)
        first = _First([hidden], [None], {})
    return first


def _last(parts: _Parts, before: _First) -> Any:
    return _dense(parts, before, parts.outputs, name=parts.names("deep"))


def _output(features: features_lib.Features, scores: Any, names: _Names, label: tuple[float, float]) -> Any:
    if not features.classes:
        mean, deviation = label
        # float32 whatever the rest computes in: eight bits of mantissa are no prediction.
        return keras.layers.Rescaling(deviation, offset=mean, dtype="float32", name=names("prediction"))(scores)
    activation = "softmax" if len(features.classes) > 2 else "sigmoid"
    return keras.layers.Activation(activation, dtype="float32", name=names("probabilities"))(scores)


def embedding_width(categories: int) -> int:
    """Sizes an embedding by the fourth root rule, 2 to 64: 1,000 categories give 9, a million 51."""
    return int(min(64, max(2, round(1.6 * categories**0.25))))
