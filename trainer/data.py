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
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from evergreen import errors, settings
from trainer import disk, grouping
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
_PILE, _PILE_BYTES = 16, 4 << 20
"""Batches that are taken from the columns at once, and how large they may be together."""
_SHUFFLE_ROWS = 100_000
"""Serialized examples in the shuffle buffer of a streamed split."""
_JUDGING_BATCHES = 8
"""How many times the batch of training the one of the judging part is: nothing is kept for a gradient."""
_SEEDS = 1_000_003
"""Between the seeds of two trainings: their epochs' seeds do not meet."""
_ALIGNMENT = 64
"""Bytes; where TensorFlow's tensors begin."""
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
    kept = _in_memory(files, features, cache_bytes) or _on_disk(files, features, disk_bytes)
    if kept is not None:
        if not len(kept.label):
            raise errors.BadInput([_nothing(patterns, f"{kept.skipped} rows, none of them with a label")])
        return _of_rows(kept, features, **common)
    deterministic = reproducible or not training
    return _stream(files, features, patterns=patterns, deterministic=deterministic, **common)


class HeldOut:
    """A split that is read once and parted at random for the trials of a search: to train on, and to judge by."""

    def __init__(self, features: features_lib.Features, parts: tuple[_Rows, _Rows]) -> None:
        """Takes both parts; `hold_out` and `shared` make it."""
        self._features, self._parts = features, parts

    def open(self, *, batch_size: int, seed: int, class_weights: settings.ClassWeights = None) -> tuple[Split, Split]:
        """Opens the part to train on and the one to judge by.

        Raises:
            BadInput: when the weights name no class of the label.
        """
        problems = class_problems(self._features, class_weights)
        if problems:
            raise errors.BadInput(problems)
        common: dict[str, Any] = {"seed": seed, "class_weights": class_weights}
        train, judge = self._parts
        return (
            _of_rows(train, self._features, batch_size=batch_size, training=True, **common),
            _of_rows(judge, self._features, batch_size=_JUDGING_BATCHES * batch_size, training=False, **common),
        )


def hold_out(
    patterns: Sequence[str], features: features_lib.Features, *, share: float, seed: int, cache_bytes: int
) -> HeldOut:
    """Reads a split and parts it.

    Args:
        patterns: Globs of TFRecord files of transformed tf.Examples.
        features: The columns to decode.
        share: Of the rows that judge.
        seed: Of the parting.
        cache_bytes: How large the decoded columns may be; of a larger split only the first rows of all shards that fit
            are used.

    Raises:
        BadInput: when there are fewer than two rows with a label.
    """
    groups = grouping.Groups(features.spec())
    parts = [
        _Rows(_InMemory(part), groups.column(part, features.label), 0, "memory")
        for part in _parted(patterns, features, share=share, seed=seed, cache_bytes=cache_bytes)
    ]
    return HeldOut(features, (parts[0], parts[1]))


def share_held_out(
    files: tuple[int, int],
    patterns: Sequence[str],
    features: features_lib.Features,
    *,
    share: float,
    seed: int,
    cache_bytes: int,
) -> None:
    """Does as `hold_out` for other processes, which `shared` gives the parts to without reading anything again.

    Args:
        files: descriptors of two empty files, for the part to train on and the one to judge by.
        patterns: as in `hold_out`, and so are the others.
        features: the columns.
        share: of the rows that judge.
        seed: of the parting.
        cache_bytes: memory for the columns, here and once more in the files.
    """
    spec = grouping.Groups(features.spec()).spec()
    parted = _parted(patterns, features, share=share, seed=seed, cache_bytes=cache_bytes)
    for file, part in zip(files, parted, strict=True):
        disk.write(file, part, spec)


def shared(files: tuple[int, int], features: features_lib.Features) -> HeldOut:
    """Maps what `share_held_out` wrote; all processes have the same memory.

    Args:
        files: the descriptors, inherited.
        features: the columns.
    """
    groups = grouping.Groups(features.spec())
    parts = []
    for file in files:
        records = disk.Records(f"/proc/self/fd/{file}", groups.spec())
        parts.append(_Rows(records, groups.column(records.arrays(), features.label), 0, "memory"))
    return HeldOut(features, (parts[0], parts[1]))


def _parted(
    patterns: Sequence[str], features: features_lib.Features, *, share: float, seed: int, cache_bytes: int
) -> tuple[grouping.Arrays, grouping.Arrays]:
    files = sorted(file for pattern in patterns for file in tf.io.gfile.glob(pattern))
    matrices = (_load(files, features, cache_bytes, whole=False) or ({}, 0))[0] if files else {}
    rows = len(next(iter(matrices.values()), ()))
    if rows < 2:
        raise errors.BadInput([_nothing(patterns, f"{rows} rows with a label")])
    order = np.random.default_rng(seed).permutation(rows)
    judging = min(rows - 1, max(1, round(share * rows)))
    train, judge = (
        {group: values[chosen] for group, values in matrices.items()} for chosen in (order[judging:], order[:judging])
    )
    return train, judge


def read_columns(files: Sequence[str], features: features_lib.Features) -> Columns:
    """Decodes whole files into one array a column, in file order, rows without a label included."""
    batches = list(_decoded(sorted(files), features))
    return {name: np.concatenate([batch[name] for batch in batches]) for name in features.spec()}


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
    files: Sequence[str], features: features_lib.Features, budget: int, *, whole: bool = True
) -> tuple[grouping.Arrays, int] | None:
    """Decodes the rows with a label into matrices, and counts those without.

    What is larger than `budget` bytes gives None, or what fits unless `whole`.
    """
    if whole and _surely_larger(files, budget):
        return None
    groups = grouping.Groups(features.spec())
    parts: dict[str, list[npt.NDArray[Any]]] = {group: [] for group in groups.spec()}
    size = read = 0
    for batch in _decoded(files, features):
        read += len(batch[features.label])
        for group, values in groups.pack(_labelled(batch, features)).items():
            parts[group].append(values)
            size += values.nbytes
        if size > budget:
            if whole:
                return None
            break
    matrices = {group: _joined(parts.pop(group)) for group in groups.spec() if parts[group]}
    return matrices, read - len(next(iter(matrices.values()), ()))


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
    """Decoded columns, by type in matrices, of which a batch is taken at once."""

    def take(self, chosen: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """Returns the matrices of rows by their numbers."""

    def cut(self, begin: tf.Tensor, end: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """Returns the matrices of the rows from one number up to another."""


class _Rows(NamedTuple):
    """The rows of a split that have a label."""

    table: _Table
    label: npt.NDArray[Any]
    skipped: int
    """Rows without a label."""
    tier: Literal["memory", "disk"]


class _InMemory:
    """Matrices as tensors."""

    def __init__(self, matrices: grouping.Arrays) -> None:
        self._tensors = {group: _as_tensor(values) for group, values in matrices.items()}

    def take(self, chosen: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return {group: tf.gather(tensor, chosen) for group, tensor in self._tensors.items()}

    def cut(self, begin: tf.Tensor, end: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return {group: tensor[begin:end] for group, tensor in self._tensors.items()}


def _joined(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Puts rows together in memory that begins where a tensor's has to, so that `_as_tensor` need not copy them."""
    rows, first = sum(map(len, parts)), parts[0]
    if first.dtype.hasobject:
        return np.concatenate(parts)
    size = rows * math.prod(first.shape[1:]) * first.itemsize
    buffer = np.empty(size + _ALIGNMENT, np.uint8)
    begin = -buffer.ctypes.data % _ALIGNMENT
    joined = buffer[begin : begin + size].view(first.dtype).reshape(rows, *first.shape[1:])
    return np.concatenate(parts, out=joined)


def _as_tensor(values: npt.NDArray[Any]) -> tf.Tensor:
    """Makes a tensor that shares an array's memory, which goes back to the system with the last of both.

    TensorFlow's own memory for large tensors stays with the process for good (oneDNN's allocator).
    """
    # A tensor that begins elsewhere than its kernels expect ends the process: such an array is copied.
    if values.dtype.hasobject or not values.size or values.ctypes.data % _ALIGNMENT:
        return tf.constant(values)
    return tf.experimental.dlpack.from_dlpack(values.__dlpack__())


def _in_memory(files: Sequence[str], features: features_lib.Features, budget: int) -> _Rows | None:
    """Decodes the files into memory; None where they do not fit."""
    loaded = _load(files, features, budget)
    if loaded is None:
        return None
    matrices, skipped = loaded
    label = grouping.Groups(features.spec()).column(matrices, features.label) if matrices else np.empty(0)
    return _Rows(_InMemory(matrices), label, skipped, "memory")


def _on_disk(files: Sequence[str], features: features_lib.Features, budget: int) -> _Rows | None:
    """Decodes the files onto disk; None where they do not fit, or where no row has a label."""
    if not budget or _surely_larger(files, budget):
        return None
    groups = grouping.Groups(features.spec())
    labels: list[npt.NDArray[Any]] = []
    read = 0

    def labelled() -> Iterator[grouping.Arrays]:
        nonlocal read
        for batch in _decoded(files, features):
            read += len(batch[features.label])
            kept = _labelled(batch, features)
            labels.append(kept[features.label])
            yield groups.pack(kept)

    table = disk.spill(labelled(), groups.spec(), budget=budget)
    if table is None:
        return None
    label = np.concatenate(labels)
    return _Rows(table, label, read - len(label), "disk")


def _of_rows(
    kept: _Rows,
    features: features_lib.Features,
    *,
    batch_size: int,
    training: bool,
    seed: int,
    class_weights: settings.ClassWeights,
) -> Split:
    label, groups = kept.label, grouping.Groups(features.spec())
    rows = len(label)
    batch = min(batch_size, rows)
    by_class = _weights_by_class(features, label, class_weights)
    row_bytes = sum(matrix.dtype.size * matrix.shape[0] for matrix in groups.spec().values())
    pile = max(1, min(_PILE, _PILE_BYTES // (batch * row_bytes)))

    @_as_is
    def taken(chosen: tf.Tensor) -> Batch:
        return _pair(groups.unpack(kept.table.take(chosen)), features, by_class)

    @_as_is
    def cut(begin: tf.Tensor) -> Batch:
        """One pass; the last batch may be smaller."""
        return _pair(groups.unpack(kept.table.cut(begin, begin + batch)), features, by_class)

    def start(step: int | tf.Tensor) -> tf.data.Dataset:
        if training:
            dataset = _permuted(rows, batch, taken, pile=pile, seed=seed, step=step)
        else:
            passed = tf.data.Dataset.range(0, rows, batch).map(cut, num_parallel_calls=tf.data.AUTOTUNE)
            dataset = passed.prefetch(tf.data.AUTOTUNE)
        return _by_data(dataset).with_options(_as_written())

    mean, deviation = _spread(label)
    return Split(
        start=start,
        rows=rows,
        skipped=kept.skipped,
        steps=rows // batch if training else math.ceil(rows / batch),
        tier=kept.tier,
        label_mean=mean,
        label_deviation=deviation,
    )


def _permuted(
    rows: int, batch: int, take: Callable[[tf.Tensor], Batch], *, pile: int, seed: int, step: int | tf.Tensor
) -> tf.data.Dataset:
    """Endless full batches, `pile` of them taken at once; every epoch is a permutation of its own of all rows."""
    steps = rows // batch

    @_as_is
    def rows_of_batches(epoch: tf.Tensor) -> tf.Tensor:
        order = tf.random.experimental.stateless_shuffle(tf.range(rows), seed=tf.stack([seed, epoch]))
        return tf.reshape(order[: steps * batch], [steps, batch])

    epochs = tf.data.Dataset.counter(start=tf.cast(step // steps, tf.int32), dtype=tf.int32)
    # The order of the next epoch is drawn during this one: its first batch waits for nothing.
    orders = epochs.map(rows_of_batches).prefetch(1)
    # Left out before the gather, what lies before the step costs nothing.
    chosen = orders.flat_map(_as_is(tf.data.Dataset.from_tensor_slices)).skip(step % steps)

    @_as_is
    def several(numbers: tf.Tensor) -> Batch:
        """Takes some batches at once: [batches, batch, ...]."""
        taken = take(tf.reshape(numbers, [-1]))
        return tf.nest.map_structure(lambda values: tf.reshape(values, [-1, batch, *values.shape[1:]]), taken)

    # A step that takes its batch off a pile wakes no other thread, which on few cores would put it off.
    return chosen.batch(pile).map(several, num_parallel_calls=tf.data.AUTOTUNE).prefetch(4).unbatch()


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


def _as_written() -> tf.data.Options:
    """Returns the options of a dataset whose graph is not rewritten: that would copy the matrices in it."""
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    return options


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
