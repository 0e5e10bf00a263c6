"""Transformed tf.Examples to shuffled batches: decoded once into columns when they fit in memory, else streamed.

    train = data.open_split(files, features, batch_size=1024, training=True, seed=42, cache_bytes=2**30)
    model.fit(train.dataset, steps_per_epoch=train.steps)

Reading goes over all shards at once, and whole batches are parsed, never single examples. Tabular data mostly fits in
memory once it is decoded: then an epoch is a permutation and a gather, with no file, no parser and no string left in
it, and the shuffle is a perfect one over all examples. What does not fit in the budget is streamed through a shuffle
buffer. Rows without a label are left out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from evergreen import errors
from trainer import features as features_lib

Columns = dict[str, npt.NDArray[Any]]

_as_is = tf.autograph.experimental.do_not_convert
"""No condition here depends on a tensor; reading the code for one takes longer than opening the files."""

_DECODE_ROWS = 4096
"""Rows that are parsed at once while the cache is filled."""
_CYCLE = 16
"""Shards that are read at the same time."""
_SHUFFLE_ROWS = 100_000
"""Serialized examples in the shuffle buffer of a streamed split."""
_MAX_DECODED_TO_FILE = 32
"""No tf.Example decodes to more than this many times its size in the file, gzip included; it saves a futile try."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """A split that is ready to be trained on or evaluated."""

    dataset: tf.data.Dataset
    """Batches of ({name: [batch]}, label [batch]): endless for training, one pass in file order otherwise."""
    rows: int
    """Rows with a label."""
    skipped: int
    """Rows without a label."""
    steps: int
    """Batches an epoch."""
    cached: bool
    label_mean: float
    """Mean of the label, in its own units (of the class's place for classes)."""
    label_deviation: float
    """Standard deviation of the label; 1 where the label is constant."""


def open_split(
    patterns: Sequence[str],
    features: features_lib.Features,
    *,
    batch_size: int,
    training: bool,
    seed: int,
    cache_bytes: int,
    reproducible: bool = True,
    first_epoch: int = 0,
) -> Split:
    """Opens the files of a split.

    Args:
        patterns: Globs of TFRecord files of transformed tf.Examples; those that end in `.gz` are compressed.
        features: The columns to decode.
        batch_size: Rows a batch. Training uses full batches only (each epoch leaves other rows out); a split that is
            smaller than a batch makes one batch.
        training: Whether the dataset shuffles and repeats.
        seed: Of the shuffle: the same seed gives the same batches, when `reproducible`.
        cache_bytes: How large the decoded columns may be in memory; 0 streams always.
        reproducible: Whether a streamed split reads its shards in a fixed order, which costs some speed.
        first_epoch: The epoch to go on with; the cached order of epoch n depends on seed and n only.

    Raises:
        BadInput: when there are no files or no rows with a label.
    """
    files = sorted(file for pattern in patterns for file in tf.io.gfile.glob(pattern))
    if not files:
        raise errors.BadInput([_nothing(patterns, "no files")])
    columns = _load(files, features, cache_bytes)
    if columns is None:
        return _stream(
            files,
            features,
            patterns=patterns,
            batch_size=batch_size,
            training=training,
            seed=seed,
            deterministic=reproducible or not training,
        )
    rows_read = len(columns[features.label])
    columns = _labelled(columns, features)
    label = columns[features.label]
    rows = len(label)
    if not rows:
        raise errors.BadInput([_nothing(patterns, f"{rows_read} rows, none of them with a label")])
    batch = min(batch_size, rows)
    dataset = (
        _permuted(columns, features, batch, seed, first_epoch) if training else _in_order(columns, features, batch)
    )
    steps = rows // batch if training else math.ceil(rows / batch)
    numbers = label.astype(np.float64)
    return Split(
        dataset=dataset.prefetch(tf.data.AUTOTUNE),
        rows=rows,
        skipped=rows_read - rows,
        steps=steps,
        cached=True,
        label_mean=float(numbers.mean()),
        label_deviation=float(numbers.std()) or 1.0,
    )


def read_columns(files: Sequence[str], features: features_lib.Features) -> Columns:
    """Decodes whole files into one array a column, in file order, rows without a label included."""
    columns = _load(sorted(files), features, budget=None)
    assert columns is not None  # only a budget makes it give up
    return columns


# --- reading ---------------------------------------------------------------------------------------------------------


def _records(files: Sequence[str], *, deterministic: bool) -> tf.data.Dataset:
    """Serialized examples of all files, read from several shards at the same time."""
    compressions = ["GZIP" if file.endswith(".gz") else "" for file in files]
    shards = tf.data.Dataset.from_tensor_slices((list(files), compressions))
    return shards.interleave(
        _as_is(lambda file, gz: tf.data.TFRecordDataset(file, compression_type=gz, buffer_size=1 << 20)),
        cycle_length=min(_CYCLE, len(files)),
        block_length=64,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=deterministic,
    )


def _load(files: Sequence[str], features: features_lib.Features, budget: int | None) -> Columns | None:
    """Decodes the files into columns; None when they are larger than `budget` bytes."""
    if budget is not None and _surely_larger(files, budget):
        return None
    spec = features.spec()
    batches = (
        _records(files, deterministic=True)
        .batch(_DECODE_ROWS)
        .map(_as_is(lambda rows: tf.io.parse_example(rows, spec)), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in spec}
    size = 0
    for batch in batches.as_numpy_iterator():
        for name, values in batch.items():
            parts[name].append(values)
            size += values.nbytes
        if budget is not None and size > budget:
            return None
    empty = {name: np.empty(0, feature.dtype.as_numpy_dtype) for name, feature in spec.items()}
    return {name: np.concatenate(values) if values else empty[name] for name, values in parts.items()}


def _surely_larger(files: Sequence[str], budget: int) -> bool:
    if budget == 0:
        return True
    # Names, types and lengths around every value make an example larger in the file than in memory, unless gzip
    # squeezes them out.
    size = sum(tf.io.gfile.stat(file).length for file in files)
    return size > budget * _MAX_DECODED_TO_FILE


def _labelled(columns: Columns, features: features_lib.Features) -> Columns:
    """Leaves rows without a label out and puts classes into their order."""
    label = columns[features.label]
    known = label >= 0 if features.classes else np.isfinite(label)
    kept = columns if known.all() else {name: values[known] for name, values in columns.items()}
    if not features.classes:
        return kept
    return {**kept, features.label: np.asarray(features.class_ranks, np.int64)[kept[features.label]]}


# --- from memory -----------------------------------------------------------------------------------------------------


def _permuted(
    columns: Columns, features: features_lib.Features, batch: int, seed: int, first_epoch: int
) -> tf.data.Dataset:
    """Endless full batches; every epoch is a permutation of its own of all rows."""
    tensors = {name: tf.constant(values) for name, values in columns.items()}
    rows = len(columns[features.label])
    steps = rows // batch

    @_as_is
    def batches_of_rows(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(rows), seed=tf.stack([seed, epoch]))
        return tf.data.Dataset.from_tensor_slices(tf.reshape(order[: steps * batch], [steps, batch]))

    @_as_is
    def gather(chosen: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        return _pair({name: tf.gather(tensor, chosen) for name, tensor in tensors.items()}, features)

    epochs = tf.data.Dataset.counter(start=first_epoch, dtype=tf.int32)
    return epochs.flat_map(batches_of_rows).map(gather, num_parallel_calls=tf.data.AUTOTUNE)


def _in_order(columns: Columns, features: features_lib.Features, batch: int) -> tf.data.Dataset:
    """One pass; the last batch may be smaller."""
    tensors = {name: tf.constant(values) for name, values in columns.items()}
    starts = tf.data.Dataset.range(0, len(columns[features.label]), batch)

    @_as_is
    def cut(start: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        return _pair({name: tensor[start : start + batch] for name, tensor in tensors.items()}, features)

    return starts.map(cut, num_parallel_calls=tf.data.AUTOTUNE)


# --- streamed --------------------------------------------------------------------------------------------------------


def _stream(
    files: Sequence[str],
    features: features_lib.Features,
    *,
    patterns: Sequence[str],
    batch_size: int,
    training: bool,
    seed: int,
    deterministic: bool,
) -> Split:
    label = _labels_only(files, features)
    known = label >= 0 if features.classes else np.isfinite(label)
    rows = int(known.sum())
    if not rows:
        raise errors.BadInput([_nothing(patterns, f"{len(label)} rows, none of them with a label")])
    batch = min(batch_size, rows)
    records = _records(files, deterministic=deterministic)
    if training:
        records = records.shuffle(min(_SHUFFLE_ROWS, len(label)), seed=seed, reshuffle_each_iteration=True).repeat()
    spec = features.spec()
    ranks = tf.constant(features.class_ranks, tf.int64)

    @_as_is
    def parse(serialized: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        parsed = tf.io.parse_example(serialized, spec)
        target = parsed[features.label]
        keep = target >= 0 if features.classes else tf.math.is_finite(target)
        kept = {name: tf.boolean_mask(values, keep) for name, values in parsed.items()}
        if features.classes:
            kept[features.label] = tf.gather(ranks, kept[features.label])
        return _pair(kept, features)

    dataset = records.batch(batch, drop_remainder=training)
    dataset = dataset.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=deterministic)
    if rows < len(label):  # a mask leaves batches of any size: make them whole again
        dataset = dataset.unbatch().batch(batch, drop_remainder=training)
    elif training:
        dataset = dataset.map(_as_is(lambda inputs, target: _with_static_size(inputs, target, batch)))
    numbers = label[known].astype(np.float64)
    if features.classes:
        numbers = np.asarray(features.class_ranks, np.float64)[label[known]]
    return Split(
        dataset=dataset.prefetch(tf.data.AUTOTUNE),
        rows=rows,
        skipped=len(label) - rows,
        steps=rows // batch if training else math.ceil(rows / batch),
        cached=False,
        label_mean=float(numbers.mean()),
        label_deviation=float(numbers.std()) or 1.0,
    )


def _labels_only(files: Sequence[str], features: features_lib.Features) -> npt.NDArray[Any]:
    """Reads just the label of every row: how many rows there are and how the label is spread."""
    spec = {features.label: features.spec()[features.label]}
    batches = (
        _records(files, deterministic=False)
        .batch(_DECODE_ROWS)
        .map(_as_is(lambda rows: tf.io.parse_example(rows, spec)[features.label]), num_parallel_calls=tf.data.AUTOTUNE)
    )
    parts = list(batches.as_numpy_iterator())
    empty: npt.NDArray[Any] = np.empty(0, spec[features.label].dtype.as_numpy_dtype)
    return np.concatenate(parts) if parts else empty


def _with_static_size(
    inputs: Mapping[str, tf.Tensor], target: tf.Tensor, batch: int
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Tells the compiler the size of the batch, which the mask has hidden."""
    return {name: tf.ensure_shape(values, [batch]) for name, values in inputs.items()}, tf.ensure_shape(target, [batch])


def _pair(columns: Mapping[str, tf.Tensor], features: features_lib.Features) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    return {name: columns[name] for name in features.names}, columns[features.label]


def _nothing(patterns: Sequence[str], found: str) -> errors.Problem:
    return errors.Problem(
        where=", ".join(patterns),
        found=found,
        expected="transformed examples with a label",
        action="Give the split more rows, or look at why its rows were lost in the steps before.",
    )
