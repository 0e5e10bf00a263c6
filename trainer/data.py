"""Transformed tf.Examples to shuffled batches: decoded once into columns in memory or on disk, else streamed.

    train = data.open_split(files, features, batch_size=1024, training=True, seed=42, cache_bytes=2**30)
    model.fit(train.dataset, steps_per_epoch=train.steps)
    model.fit(train.start(450), ...)    # the batches from the 450th step on, the same as without the first 450

Reading goes over all shards at once, and whole batches are parsed, never single examples. Tabular data mostly fits in
memory once it is decoded: then an epoch is a permutation and a gather, with no file, no parser and no string left in
it, and the shuffle is a perfect one over all examples. What does not fit in that budget is kept so on local disk
(`trainer.disk`), and what does not fit there either is streamed through a shuffle buffer. Rows without a label are left
out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from evergreen import errors, settings
from trainer import disk
from trainer import features as features_lib

Columns = dict[str, npt.NDArray[Any]]
Batch = tuple[Any, ...]
"""({name: [batch] or [batch, length]}, label [batch]), and the rows' weights [batch] where rows are weighted."""

_as_is = tf.autograph.experimental.do_not_convert
"""No condition here depends on a tensor; reading the code for one takes longer than opening the files."""

_DECODE_ROWS = 4096
"""Rows that are parsed at once while the cache is filled."""
_CYCLE = 16
"""Shards that are read at the same time."""
_SHUFFLE_ROWS = 100_000
"""Serialized examples in the shuffle buffer of a streamed split."""
_SEEDS = 1_000_003
"""Between the seeds of two trainings: their epochs' seeds do not meet."""
_MAX_DECODED_TO_FILE = 32
"""No tf.Example decodes to more than this many times its size in the file, gzip included; it saves a futile try."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """A split that is ready to be trained on or evaluated."""

    start: Callable[[int | tf.Tensor], tf.data.Dataset]
    """Opens the batches from a step on: endless for training, one pass in file order (from its begin) otherwise. The
    step may be a scalar int64 tensor, for a dataset that another process opens."""
    rows: int
    """Rows with a label."""
    skipped: int
    """Rows without a label."""
    steps: int
    """Batches an epoch."""
    tier: Literal["memory", "disk", "files"]
    """Where each epoch reads from."""
    label_mean: float
    """Mean of the label, in its own units (of the class's place for classes)."""
    label_deviation: float
    """Standard deviation of the label; 1 where the label is constant."""

    @property
    def cached(self) -> bool:
        """Whether later epochs decode nothing."""
        return self.tier != "files"

    @property
    def dataset(self) -> tf.data.Dataset:
        """Batches from the first step on."""
        return self.start(0)


def open_split(
    patterns: Sequence[str],
    features: features_lib.Features,
    *,
    batch_size: int,
    training: bool,
    seed: int,
    cache_bytes: int,
    disk_bytes: int = 0,
    reproducible: bool = True,
    class_weights: settings.ClassWeights = None,
) -> Split:
    """Opens the files of a split.

    Args:
        patterns: Globs of TFRecord files of transformed tf.Examples; those that end in `.gz` are compressed.
        features: The columns to decode.
        batch_size: Rows a batch. Training uses full batches only (each epoch leaves other rows out); a split that is
            smaller than a batch makes one batch.
        training: Whether the dataset shuffles and repeats.
        seed: Of the shuffle: the same seed gives the same batches, when `reproducible`.
        cache_bytes: How large the decoded columns may be in memory.
        disk_bytes: How large they may be on local disk, where memory does not do; with 0 for both they are streamed.
        reproducible: Whether a streamed split reads its shards in a fixed order, which costs some speed.
        class_weights: How much a row counts by its class, beside its own weight.

    Raises:
        BadInput: when there are no files or no rows with a label, or when the weights name no class of the label.
    """
    problems = class_problems(features, class_weights)
    if problems:
        raise errors.BadInput(problems)
    files = sorted(file for pattern in patterns for file in tf.io.gfile.glob(pattern))
    if not files:
        raise errors.BadInput([_nothing(patterns, "no files")])
    common: dict[str, Any] = {
        "batch_size": batch_size,
        "training": training,
        "seed": seed,
        "class_weights": class_weights,
    }
    columns = _load(files, features, cache_bytes)
    if columns is not None:
        rows_read = len(columns[features.label])
        columns = _labelled(columns, features)
        if not len(columns[features.label]):
            raise errors.BadInput([_nothing(patterns, f"{rows_read} rows, none of them with a label")])
        return _from_memory(columns, features, skipped=rows_read - len(columns[features.label]), **common)
    kept = _on_disk(files, features, disk_bytes, **common)
    deterministic = reproducible or not training
    return kept or _stream(files, features, patterns=patterns, deterministic=deterministic, **common)


def hold_out(
    patterns: Sequence[str], features: features_lib.Features, *, share: float, seed: int, cache_bytes: int
) -> Callable[..., tuple[Split, Split]]:
    """Reads a split once and parts it at random, for the trials of a search: one part to train on, one to judge by.

    Args:
        patterns: Globs of TFRecord files of transformed tf.Examples.
        features: The columns to decode.
        share: Of the rows that judge.
        seed: Of the parting.
        cache_bytes: How large the decoded columns may be; of a larger split only the first rows of all shards that fit
            are used.

    Returns:
        A function of `batch_size`, `seed` and `class_weights` that gives the part to train on and the other one.

    Raises:
        BadInput: when there are fewer than two rows with a label.
    """
    files = sorted(file for pattern in patterns for file in tf.io.gfile.glob(pattern))
    read = _load(files, features, cache_bytes, whole=False) if files else None
    columns = _labelled(read, features) if read is not None else {features.label: np.empty(0)}
    rows = len(columns[features.label])
    if rows < 2:
        raise errors.BadInput([_nothing(patterns, f"{rows} rows with a label")])
    order = np.random.default_rng(seed).permutation(rows)
    judging = min(rows - 1, max(1, round(share * rows)))
    parts = [
        {name: values[chosen] for name, values in columns.items()} for chosen in (order[judging:], order[:judging])
    ]

    def open_parts(*, batch_size: int, seed: int, class_weights: settings.ClassWeights = None) -> tuple[Split, Split]:
        problems = class_problems(features, class_weights)
        if problems:
            raise errors.BadInput(problems)
        train, judge = (
            _from_memory(
                part, features, batch_size=size, training=training, seed=seed, skipped=0, class_weights=class_weights
            )
            for part, size, training in ((parts[0], batch_size, True), (parts[1], 8 * batch_size, False))
        )
        return train, judge

    return open_parts


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


def _load(
    files: Sequence[str], features: features_lib.Features, budget: int | None, *, whole: bool = True
) -> Columns | None:
    """Decodes the files into columns; what is larger than `budget` bytes gives None, or what fits unless `whole`."""
    if whole and budget is not None and _surely_larger(files, budget):
        return None
    spec = features.spec()
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in spec}
    size = 0
    for batch in _decoded(files, features):
        for name, values in batch.items():
            parts[name].append(values)
            size += values.nbytes
        if budget is not None and size > budget:
            if whole:
                return None
            break
    empty = {name: np.empty(0, feature.dtype.as_numpy_dtype) for name, feature in spec.items()}
    return {name: np.concatenate(values) if values else empty[name] for name, values in parts.items()}


def _decoded(files: Sequence[str], features: features_lib.Features) -> Iterator[Columns]:
    """Yields the columns of some rows at a time, in file order."""
    spec = features.spec()
    batches = (
        _records(files, deterministic=True)
        .batch(_DECODE_ROWS)
        .map(_as_is(lambda rows: tf.io.parse_example(rows, spec)), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
    yield from batches.as_numpy_iterator()


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


# --- from memory or disk ----------------------------------------------------------------------------------------------


class _Table(Protocol):
    """Decoded columns, of which a batch is taken at once."""

    def take(self, chosen: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """Returns the columns of rows by their numbers."""

    def cut(self, begin: tf.Tensor, end: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """Returns the columns of the rows from one number up to another."""


class _InMemory:
    """Columns as tensors."""

    def __init__(self, columns: Columns) -> None:
        self._tensors = {name: tf.constant(values) for name, values in columns.items()}

    def take(self, chosen: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return {name: tf.gather(tensor, chosen) for name, tensor in self._tensors.items()}

    def cut(self, begin: tf.Tensor, end: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return {name: tensor[begin:end] for name, tensor in self._tensors.items()}


def _from_memory(columns: Columns, features: features_lib.Features, **options: Any) -> Split:
    return _of_table(_InMemory(columns), columns[features.label], features, tier="memory", **options)


def _on_disk(files: Sequence[str], features: features_lib.Features, budget: int, **options: Any) -> Split | None:
    """Decodes the files onto disk; None where they do not fit, or where no row has a label."""
    if not budget or _surely_larger(files, budget):
        return None
    labels: list[npt.NDArray[Any]] = []
    read = 0

    def labelled() -> Iterator[Columns]:
        nonlocal read
        for batch in _decoded(files, features):
            read += len(batch[features.label])
            kept = _labelled(batch, features)
            labels.append(kept[features.label])
            yield kept

    table = disk.spill(labelled(), features.spec(), budget=budget)
    if table is None:
        return None
    label = np.concatenate(labels)
    return _of_table(table, label, features, tier="disk", skipped=read - len(label), **options)


def _of_table(
    table: _Table,
    label: npt.NDArray[Any],
    features: features_lib.Features,
    *,
    tier: Literal["memory", "disk"],
    batch_size: int,
    training: bool,
    seed: int,
    skipped: int,
    class_weights: settings.ClassWeights,
) -> Split:
    rows = len(label)
    batch = min(batch_size, rows)
    by_class = _weights_by_class(features, label, class_weights)

    def start(step: int | tf.Tensor) -> tf.data.Dataset:
        dataset = (
            _permuted(table, features, rows, batch, seed=seed, step=step, by_class=by_class)
            if training
            else _in_order(table, features, rows, batch, by_class=by_class)
        )
        return _by_data(dataset.prefetch(tf.data.AUTOTUNE))

    mean, deviation = _spread(label)
    return Split(
        start=start,
        rows=rows,
        skipped=skipped,
        steps=rows // batch if training else math.ceil(rows / batch),
        tier=tier,
        label_mean=mean,
        label_deviation=deviation,
    )


def _permuted(
    table: _Table,
    features: features_lib.Features,
    rows: int,
    batch: int,
    *,
    seed: int,
    step: int | tf.Tensor,
    by_class: tf.Tensor | None,
) -> tf.data.Dataset:
    """Endless full batches; every epoch is a permutation of its own of all rows."""
    steps = rows // batch

    @_as_is
    def batches_of_rows(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(rows), seed=tf.stack([seed, epoch]))
        return tf.data.Dataset.from_tensor_slices(tf.reshape(order[: steps * batch], [steps, batch]))

    @_as_is
    def gather(chosen: tf.Tensor) -> Batch:
        return _pair(table.take(chosen), features, by_class)

    epochs = tf.data.Dataset.counter(start=tf.cast(step // steps, tf.int32), dtype=tf.int32)
    # Left out before the gather, what lies before the step costs nothing.
    return epochs.flat_map(batches_of_rows).skip(step % steps).map(gather, num_parallel_calls=tf.data.AUTOTUNE)


def _in_order(
    table: _Table,
    features: features_lib.Features,
    rows: int,
    batch: int,
    *,
    by_class: tf.Tensor | None,
) -> tf.data.Dataset:
    """One pass; the last batch may be smaller."""
    starts = tf.data.Dataset.range(0, rows, batch)

    @_as_is
    def cut(start: tf.Tensor) -> Batch:
        return _pair(table.cut(start, start + batch), features, by_class)

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
    class_weights: settings.ClassWeights,
) -> Split:
    label = _labels_only(files, features)
    known = label >= 0 if features.classes else np.isfinite(label)
    rows = int(known.sum())
    if not rows:
        raise errors.BadInput([_nothing(patterns, f"{len(label)} rows, none of them with a label")])
    ranked = np.asarray(features.class_ranks, np.int64)[label[known]] if features.classes else label[known]
    by_class = _weights_by_class(features, ranked, class_weights)
    batch = min(batch_size, rows)
    spec = features.spec()
    ranks = tf.constant(features.class_ranks, tf.int64)
    whole = rows == len(label)

    @_as_is
    def parse(serialized: tf.Tensor) -> Batch:
        parsed = tf.io.parse_example(serialized, spec)
        if not whole:
            target = parsed[features.label]
            keep = target >= 0 if features.classes else tf.math.is_finite(target)
            parsed = {name: tf.boolean_mask(values, keep) for name, values in parsed.items()}
        if features.classes:
            parsed[features.label] = tf.gather(ranks, parsed[features.label])
        return _pair(parsed, features, by_class)

    @_as_is
    def shuffled(epoch: tf.Tensor) -> tf.data.Dataset:
        records = _records(files, deterministic=deterministic)
        return records.shuffle(min(_SHUFFLE_ROWS, len(label)), seed=seed * _SEEDS + epoch)

    def start(step: int | tf.Tensor) -> tf.data.Dataset:
        """A batch may hold rows of two epochs, so that none is ever left out."""
        epoch, before = (step * batch // rows, step * batch % rows) if training else (0, 0)
        records = _records(files, deterministic=True)
        if training:
            records = tf.data.Dataset.counter(start=tf.cast(epoch, tf.int64)).flat_map(shuffled)
        if whole:  # left out before they are parsed, the rows before the step cost only their reading
            records = records.skip(before)
        dataset = records.batch(batch, drop_remainder=training and whole)
        dataset = dataset.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=deterministic)
        if not whole:  # a mask leaves batches of any size: make them whole again
            dataset = dataset.unbatch().skip(before).batch(batch, drop_remainder=training)
        return _by_data(dataset.prefetch(tf.data.AUTOTUNE))

    mean, deviation = _spread(ranked)
    return Split(
        start=start,
        rows=rows,
        skipped=len(label) - rows,
        steps=rows // batch if training else math.ceil(rows / batch),
        tier="files",
        label_mean=mean,
        label_deviation=deviation,
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


# --- both ------------------------------------------------------------------------------------------------------------


def _pair(columns: Mapping[str, tf.Tensor], features: features_lib.Features, by_class: tf.Tensor | None) -> Batch:
    inputs, label = {name: columns[name] for name in features.names}, columns[features.label]
    weights = None if features.weight is None else columns[features.weight]
    if by_class is not None:
        of_class = tf.gather(by_class, label)
        weights = of_class if weights is None else weights * of_class
    return (inputs, label) if weights is None else (inputs, label, weights)


def _by_data(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Lets each worker take its part of every global batch: one worker's files are never another's epoch."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


def _spread(label: npt.NDArray[Any]) -> tuple[float, float]:
    numbers = label.astype(np.float64)
    return float(numbers.mean()), float(numbers.std()) or 1.0


def _weights_by_class(
    features: features_lib.Features, label: npt.NDArray[Any], weights: settings.ClassWeights
) -> tf.Tensor | None:
    """Returns each class's weight, float32 [classes]; on average over the rows it is 1 when `balanced`."""
    if weights is None or not features.classes:
        return None
    if weights == "balanced":
        counts = np.maximum(np.bincount(label, minlength=len(features.classes)), 1)
        return tf.constant(len(label) / (len(features.classes) * counts), tf.float32)
    return tf.constant([weights.get(str(name), 1.0) for name in features.classes], tf.float32)


def class_problems(features: features_lib.Features, weights: settings.ClassWeights) -> list[errors.Problem]:
    """Tells what is wrong with the classes that the configuration gives weights to."""
    if weights is None or weights == "balanced":
        return []
    known = [str(name) for name in features.classes]
    return [
        errors.Problem(
            where=f"training.class_weights, {name}",
            found="no class of that name in the train split",
            expected=f"one of {', '.join(known)}" if known else "a label of classes",
            action="Correct the class, or remove its weight.",
        )
        for name in weights
        if name not in known
    ]


def _nothing(patterns: Sequence[str], found: str) -> errors.Problem:
    return errors.Problem(
        where=", ".join(patterns),
        found=found,
        expected="transformed examples with a label",
        action="Give the split more rows, or look at why its rows were lost in the steps before.",
    )
