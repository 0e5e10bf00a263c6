"""Training on the GPUs of this machine: examples/s and the share that waits for input, by precision, XLA and GPUs.

    python -m benchmarks.gpu [--rows 2000000] [--batch 16384]

Says so, and ends with 0, where there is no GPU.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks import harness
from benchmarks import train as bench
from evergreen import settings
from trainer import data, distribute, input_share, train

OUTPUT = Path("benchmarks/out/gpu.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints one line a case and writes the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000, help="rows of the train split (default %(default)s)")
    parser.add_argument("--batch", type=int, default=16_384, help="rows a step (default %(default)s)")
    options = parser.parse_args(arguments)
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        print("No GPU here: TensorFlow sees CPUs only, and there is nothing to measure.")
        return 0
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus]
    print(f"{harness.machine()}; {len(gpus)} x {names[0]}; TensorFlow {tf.__version__}; batch {options.batch:,}")
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        files = bench.write_examples(Path(scratch) / "examples", rows=options.rows)
        split = data.open_split(
            files, bench.FEATURES, batch_size=options.batch, training=True, seed=1, cache_bytes=2**34
        )
        distributions = ["none", "mirrored"] if len(gpus) > 1 else ["none"]
        cases = itertools.product(distributions, ("float32", "mixed_bfloat16", "mixed_float16"), ("off", "on"))
        for place, (distribution, precision, xla) in enumerate(cases):
            if distribution == "mirrored" and xla == "on":
                continue  # training does not compile collectives
            training = settings.Training.model_validate(
                {"batch_size": options.batch, "distribution": distribution, "precision": precision, "xla": xla}
            )
            results.append(_measure(split, training, Path(scratch) / str(place)))
            print(json.dumps(results[-1]))
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(
        json.dumps({"gpus": names, "batch": options.batch, "cases": results}, indent=1) + "\n", encoding="utf-8"
    )
    return 0


def _measure(split: data.Split, training: settings.Training, logs: Path) -> dict[str, Any]:
    """Trains a network of 1,024 x 512 units and measures the epochs after the first."""
    keras.utils.clear_session()
    strategy = distribute.strategy(training)
    plan = train.make_plan(training.model_copy(update={"epochs": 4}), split.steps, None)
    with strategy.scope():
        model = bench.model(plan, settings.Model(hidden_units=[1024, 512]), training)
    marks: list[float] = []
    waits = input_share.InputShare(str(logs))

    class Clock(keras.callbacks.Callback):
        def on_epoch_end(self, _: int, __: Any = None) -> None:
            marks.append(time.perf_counter())

    class Sync(keras.callbacks.Callback):
        def on_train_batch_end(self, _: int, logs: Any = None) -> None:
            np.asarray(logs["loss"])  # an asynchronous device has finished when a result is here

    model.fit(
        split.dataset, steps_per_epoch=plan.steps_per_epoch, epochs=4, verbose=0, callbacks=[waits, Sync(), Clock()]
    )
    seconds = marks[3] - marks[1]  # the profiler was on in the second epoch
    return {
        "distribution": training.distribution,
        "precision": training.precision,
        "xla": training.xla,
        "replicas": strategy.num_replicas_in_sync,
        "examples_per_second": round(2 * plan.steps_per_epoch * training.batch_size / seconds),
        "input_share": None if waits.share is None else round(waits.share, 4),
    }


if __name__ == "__main__":
    sys.exit(main())
