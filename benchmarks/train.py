"""Input and training beside TFX's data accessor and TensorFlow's `make_batched_features_dataset`, on the same files.

    python -m benchmarks.train [--rows 300000] [--epochs 10] [--repeat 1]

Measured at batch 1,024: rows/s of the input alone in its first epoch (files opened and decoded) and in later ones, with
the decoded columns in memory and on disk, seconds of `fit` of the default model over all epochs (opening, tracing and
compiling included), and the share of the training steps of the second epoch that waits for input, as TensorFlow's
profiler sees it. "stock" is the better of the two. Beside stand rows/s of training by batch, precision and XLA, for
whoever has to choose. Ends with 1 where a bar of the project is not held.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks import harness, transformed
from evergreen import settings
from trainer import data, input_share, train
from trainer import features as features_lib

OUTPUT = Path("benchmarks/out/train.json")
BATCH = 1024
FEATURES = features_lib.Features(numeric=("beta1", "beta2"), categories={"week_hour": 168}, label="humidity")
"""The transformed columns of the built-in problem."""
BARS = {
    ("input", "first epoch"): 1.5,
    ("input", "later epochs"): 10.0,
    ("input, from disk", "first epoch"): 1.5,
    ("input, from disk", "later epochs"): 10.0,
    ("fit", "seconds"): 5.0,
}
"""How many times better than stock each ratio has to be."""
MAX_WAITING = 0.05
"""The largest share of step time that may be spent waiting for input."""
_WAITING_RUNS = 9
"""Of which the median counts: an epoch lasts a fifth of a second, and what else the machine does shows in it."""

Batches = Callable[[], tf.data.Dataset]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table and writes the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=300_000, help="rows of the train split (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of fit (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=1, help="medians of so many measurements (default %(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        files = write_examples(Path(scratch), rows=options.rows)
        figures = [
            *measure_input(files, rows=options.rows, repeat=options.repeat),
            *measure_fit(files, rows=options.rows, epochs=options.epochs, repeat=options.repeat),
            measure_waiting(files, epochs=3, repeat=max(_WAITING_RUNS, options.repeat), logs=Path(scratch) / "profile"),
            *measure_choices(files, rows=options.rows),
        ]
    print(f"{harness.machine()}; {options.rows:,} rows, batch {BATCH}, TensorFlow {tf.__version__}")
    print(harness.table(figures))
    harness.write(figures, OUTPUT)
    missed = list(_missed(figures))
    print("\n".join(missed) or "All bars are held.")
    return 1 if missed else 0


def write_examples(folder: Path, *, rows: int) -> list[str]:
    """Writes transformed examples of the built-in problem and returns the pattern of their files."""
    random = np.random.default_rng(1)
    beta1, beta2, cell = random.normal(size=rows), random.normal(size=rows), random.integers(0, 168, rows)
    humidity = 5.8 * beta1 - 1.4 * beta2 + 18.5 + 8.0 * (cell % 9 == 0) + random.normal(0, 1.416, rows)
    numbers = {"beta1": beta1, "beta2": beta2, "humidity": humidity}
    columns = {name: values.astype(np.float32) for name, values in numbers.items()}
    return transformed.write(folder, {**columns, "week_hour": cell})


# --- the sides -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """A way to batches of ({name: [batch]}, label [batch]), endless."""

    name: str
    open: Batches


def sides(files: Sequence[str]) -> list[Side]:
    """Returns ours and the two stock ways, each opened anew by its function."""
    return [
        Side(name="ours", open=lambda: _ours(files)),
        Side(name="ours on disk", open=lambda: _ours(files, disk=True)),
        Side(name="tf_dataset_factory", open=lambda: _accessor(files)),
        Side(name="make_batched_features_dataset", open=lambda: _batched_features(files)),
    ]


def _ours(files: Sequence[str], *, disk: bool = False) -> tf.data.Dataset:
    split = data.open_split(
        files, FEATURES, batch_size=BATCH, training=True, seed=1,
        cache_bytes=0 if disk else 2**30, disk_bytes=2**30, reproducible=True,
    )  # fmt: skip
    if split.tier != ("disk" if disk else "memory"):
        raise harness.Failed(f"the split was read from {split.tier}")
    return split.dataset


def _accessor(files: Sequence[str]) -> tf.data.Dataset:
    """Opens the files as TFX's templates do, through `fn_args.data_accessor`."""
    from tensorflow_metadata.proto.v0 import schema_pb2
    from tfx.components.util import tfxio_utils
    from tfx.types import standard_artifacts
    from tfx_bsl.public import tfxio

    examples = standard_artifacts.Examples()
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    examples.set_string_custom_property("file_format", "tfrecords_gzip")
    schema = schema_pb2.Schema()
    for name, feature in FEATURES.spec().items():
        kind = schema_pb2.FLOAT if feature.dtype == tf.float32 else schema_pb2.INT
        column = schema.feature.add(name=name, type=kind)
        column.presence.min_fraction = 1.0
        column.shape.dim.add(size=1)
    factory = tfxio_utils.get_tf_dataset_factory_from_artifact([examples], [])
    dataset = factory(list(files), tfxio.TensorFlowDatasetOptions(batch_size=BATCH, label_key=FEATURES.label), schema)
    return dataset.map(_flat)


def _batched_features(files: Sequence[str]) -> tf.data.Dataset:
    dataset = tf.data.experimental.make_batched_features_dataset(
        list(files), BATCH, FEATURES.spec(), label_key=FEATURES.label, reader_num_threads=2, parser_num_threads=2
    )
    return dataset.map(_flat)


def _flat(inputs: dict[str, tf.Tensor], label: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Makes [batch, 1] [batch], as our model takes it."""
    return {name: tf.reshape(values, [-1]) for name, values in inputs.items()}, tf.reshape(label, [-1])


# --- measuring -------------------------------------------------------------------------------------------------------


def measure_input(files: Sequence[str], *, rows: int, repeat: int) -> list[harness.Figure]:
    """Measures the input alone: rows/s of the first epoch, opening included, and of the later ones."""
    steps = rows // BATCH
    first: dict[str, list[float]] = {}
    later: dict[str, list[float]] = {}
    for side in sides(files) * repeat:
        started = time.perf_counter()
        dataset = side.open()
        iterator = iter(dataset.batch(steps, num_parallel_calls=1).map(_nothing_of))  # one element an epoch
        next(iterator)
        opened = time.perf_counter()
        epochs = 20 if side.name.startswith("ours") else 2
        for _ in range(epochs):
            next(iterator)
        first.setdefault(side.name, []).append(steps * BATCH / (opened - started))
        later.setdefault(side.name, []).append(epochs * steps * BATCH / (time.perf_counter() - opened))
    found = []
    for metric, measured in (("first epoch", first), ("later epochs", later)):
        stock = {name: values for name, values in measured.items() if not name.startswith("ours")}
        for case, ours in (("input", "ours"), ("input, from disk", "ours on disk")):
            sides_of = {"ours": measured[ours], **stock}
            found.append(_figure(case, metric, "rows/s", sides_of, best=max, lower_is_better=False))
    return found


def _nothing_of(inputs: dict[str, tf.Tensor], label: tf.Tensor) -> tf.Tensor:
    """Touches every column and lets nothing cross into Python."""
    return tf.size(label) + tf.add_n([tf.size(values) for values in inputs.values()])


def measure_fit(files: Sequence[str], *, rows: int, epochs: int, repeat: int) -> list[harness.Figure]:
    """Measures `fit` of the default model: seconds from the files to the trained model."""
    seconds: dict[str, list[float]] = {}
    # The first trace of a process loads what all later ones find loaded: no side pays for it.
    _model(train.Plan(epochs=1, steps_per_epoch=1, steps_per_execution=1), ours=True).fit(
        _ours(files), steps_per_epoch=1, verbose=0
    )
    for side in [side for side in sides(files) if side.name != "ours on disk"] * repeat:
        keras.backend.clear_session()
        started = time.perf_counter()
        dataset = side.open()
        plan = train.make_plan(settings.Training(epochs=epochs), rows // BATCH, None)
        # The stock templates leave `steps_per_execution` at Keras' default.
        fitted = _model(plan, ours=side.name == "ours")
        fitted.fit(dataset, steps_per_epoch=plan.steps_per_epoch, epochs=epochs, verbose=0)
        seconds.setdefault(side.name, []).append(time.perf_counter() - started)
    return [_figure("fit", "seconds", "s", seconds, best=min, lower_is_better=True)]


def model(plan: train.Plan, shape: settings.Model, training: settings.Training) -> keras.Model:
    """Builds and compiles a model as a run of the trainer does."""
    config = settings.TrainerConfig(
        preprocessing=settings.Preprocessing.model_validate(
            {
                "features": {name: {"kind": "numeric"} for name in FEATURES.numeric},
                "label": {"column": FEATURES.label, "task": "regression"},
            }
        ),
        model=shape,
        training=training,
    )
    split = data.Split(
        start=lambda _: None, rows=0, skipped=0, steps=1, tier="memory", label_mean=18.5, label_deviation=6.3
    )
    return train.compiled(config, FEATURES, split, plan)


def _model(plan: train.Plan, *, ours: bool) -> keras.Model:
    """Builds the default model; the stock side compiles it as TFX's templates do."""
    built = model(plan, settings.Model(), settings.Training())
    if not ours:
        built.compile(
            optimizer=keras.optimizers.Adam(3e-3),
            loss="mean_squared_error",
            metrics=[keras.metrics.RootMeanSquaredError(name="rmse")],
        )
    return built


def measure_waiting(files: Sequence[str], *, epochs: int, repeat: int, logs: Path) -> harness.Figure:
    """Measures which share of a training step waits for input in the second epoch, the median of some runs."""
    dataset = _ours(files)
    steps = sum(1 for _ in tf.data.TFRecordDataset(tf.io.gfile.glob(files[0])).batch(BATCH, drop_remainder=True))
    plan = train.make_plan(settings.Training(epochs=epochs), steps, None)
    shares = []
    for run in range(repeat):
        fitted = _model(plan, ours=True)
        waits = input_share.InputShare(str(logs / str(run)))
        fitted.fit(dataset, steps_per_epoch=plan.steps_per_epoch, epochs=epochs, verbose=0, callbacks=[waits])
        if waits.share is None:
            raise harness.Failed("the profiler saw no step")
        shares.append(100 * waits.share)
    print("waits for input, % of the steps of each run:", ", ".join(f"{share:.1f}" for share in sorted(shares)))
    return harness.Figure(case="fit", metric="waits for input", unit="%", ours=statistics.median(shares), stock=None)


def measure_choices(files: Sequence[str], *, rows: int) -> list[harness.Figure]:
    """Measures training of the default model by batch, precision and XLA: rows/s once it is compiled."""
    cases: list[dict[str, Any]] = [
        *({"batch_size": batch} for batch in (256, BATCH, 4096, 16384)),
        {"batch_size": BATCH, "precision": "mixed_bfloat16"},
        {"batch_size": BATCH, "xla": "on"},
    ]
    return [_measure_choice(files, settings.Training.model_validate({**case, "epochs": 4}), rows) for case in cases]


def _measure_choice(files: Sequence[str], training: settings.Training, rows: int) -> harness.Figure:
    keras.backend.clear_session()
    split = data.open_split(files, FEATURES, batch_size=training.batch_size, training=True, seed=1, cache_bytes=2**30)
    plan = train.make_plan(training, rows // training.batch_size, None)
    fitted = model(plan, settings.Model(), training)
    ends: list[float] = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ends.append(time.perf_counter()))
    fitted.fit(split.dataset, steps_per_epoch=plan.steps_per_epoch, epochs=plan.epochs, verbose=0, callbacks=[watch])
    speed = (plan.epochs - 1) * plan.steps_per_epoch * training.batch_size / (ends[-1] - ends[0])
    case = f"batch {training.batch_size:,}, {training.precision}, xla {training.xla}"
    return harness.Figure(case=case, metric="training", unit="rows/s", ours=speed, stock=None, lower_is_better=False)


def _figure(
    case: str, metric: str, unit: str, measured: dict[str, list[float]], *, best: Callable[..., float],
    lower_is_better: bool,
) -> harness.Figure:  # fmt: skip
    medians = {name: harness.median(values) or 0.0 for name, values in measured.items()}
    print(f"{case}, {metric}: " + ", ".join(f"{name} {value:,.4g} {unit}" for name, value in medians.items()))
    ours = medians.pop("ours")
    return harness.Figure(
        case=case, metric=metric, unit=unit, ours=ours, stock=best(medians.values()), lower_is_better=lower_is_better
    )


def _missed(figures: Sequence[harness.Figure]) -> Sequence[str]:
    missed = []
    for figure in figures:
        bar = BARS.get((figure.case, figure.metric))
        if bar is not None and (figure.ratio or 0.0) < bar:
            missed.append(f"Missed: {figure.case}, {figure.metric} is {figure.ratio or 0:.2f} times stock, not {bar}.")
        if figure.metric == "waits for input" and not (figure.ours or 0.0) < 100 * MAX_WAITING:
            missed.append(f"Missed: {figure.ours:.1f} % of a step waits for input, not under {100 * MAX_WAITING:.0f}.")
    return missed


if __name__ == "__main__":
    sys.exit(main())
