"""Warm start against cold: steps until the eval split's RMSE is within 2 % of the noise, on the built-in problem.

    python -m benchmarks.warm [--rows 16000] [--spans 7] [--every 5]

A model is trained on a window of spans and exported as a run does it. The next window (one span later, Transform made
anew) then trains the default model twice, from nothing and from that one, and is judged every few steps.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow_transform as tft

from benchmarks import harness, transformed, tune
from datagen import humidity
from evergreen import settings
from trainer import data, fitting, train, warm
from trainer import features as features_lib

OUTPUT = Path("benchmarks/out/warm.json")
GOAL = 1.02 * humidity.NOISE_FLOOR


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table and writes the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.warm", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=16_000, help="rows of a span to train on (default %(default)s)")
    parser.add_argument("--spans", type=int, default=7, help="spans of a window (default %(default)s)")
    parser.add_argument("--every", type=int, default=5, help="steps between two looks (default %(default)s)")
    options = parser.parse_args(arguments)
    config = settings.TrainerConfig.model_validate(
        {"preprocessing": tune.REGRESSION, "model": {}, "training": {"early_stopping_patience": None}}
    )
    judge = _table(range(100, 101), rows=20_000)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        base = _champion(root, _table(range(1, options.spans + 1), rows=options.rows), config)
        window = _table(range(2, options.spans + 2), rows=options.rows)
        files, graph = transformed.make(root / "next", tune.REGRESSION, window)
        taken = {
            name: _steps(files, graph, _judge(graph, judge), config, base=model, every=options.every)
            for name, model in (("cold", None), ("warm", str(base)))
        }
    figure = harness.Figure(
        case="humidity", metric="steps to 1.02 x the noise", unit="", ours=float(taken["warm"]),
        stock=float(taken["cold"]),
    )  # fmt: skip
    print(f"{harness.machine()}; {options.spans} spans of {options.rows:,} rows, batch {config.training.batch_size:,}")
    print("`ours` starts warm, `stock` cold; both are judged before the first step, and every few steps from then on.")
    print(harness.table([figure]))
    harness.write([figure], OUTPUT)
    return 0


def _table(spans: range, *, rows: int) -> dict[str, Any]:
    tables = [humidity.table(span=span, rows=rows) for span in spans]
    columns: dict[str, Any] = {
        name: np.concatenate([table[name].to_numpy() for table in tables]) for name in humidity.COLUMNS
    }
    return {
        name: values.astype(np.int64 if name in ("weekday", "hour") else np.float32) for name, values in columns.items()
    }


def _champion(root: Path, table: dict[str, Any], config: settings.TrainerConfig) -> Path:
    """Trains and exports the model that serves."""
    from tfx.components.trainer.fn_args_utils import FnArgs

    files, graph = transformed.make(root / "before", tune.REGRESSION, table)
    model = root / "model"
    train.run_fn(
        FnArgs(
            train_files=list(files), eval_files=list(files), transform_graph_path=graph,
            schema_path=str(root / "before" / "schema" / "schema.pbtxt"), serving_model_dir=str(model),
            model_run_dir=str(root / "run"), base_model=None, hyperparameters=None,
            custom_config=config.model_dump(mode="json"),
        )
    )  # fmt: skip
    return model


def _judge(graph: str, table: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Puts the judging rows through the window's own Transform."""
    layer = tft.TFTransformOutput(graph).transform_features_layer()
    columns = {name: values[:, None] for name, values in table.items() if name != "humidity"}
    inputs = {name: np.asarray(values).reshape(-1) for name, values in layer(columns).items()}
    return inputs, table["humidity"]


def _steps(
    files: Sequence[str], graph: str, judge: Any, config: settings.TrainerConfig, *, base: str | None, every: int
) -> int:
    """Trains as a run does and returns the steps after which the goal is first reached."""
    keras.utils.clear_session()
    transform = tft.TFTransformOutput(graph)
    features = features_lib.read(transform, config.preprocessing)
    split = data.open_split(
        files, features, batch_size=config.training.batch_size, training=True, seed=config.training.seed,
        cache_bytes=2**30,
    )  # fmt: skip
    steps = config.training.epochs * split.steps
    plan = fitting.Plan(epochs=steps // every, steps_per_epoch=every, steps_per_execution=every)
    model = train.compiled(config, features, split, plan)
    report = warm.start(model, base, warm.meaning(config, transform, features), transform)
    if report.started != (base is not None):
        raise harness.Failed(f"the warm start says: {report.reason}")
    for done in range(0, steps + 1, every):
        if done:
            model.fit(split.start(done - every), steps_per_epoch=every, epochs=1, verbose=0)
        rmse = model.evaluate(*judge, batch_size=8192, verbose=0, return_dict=True)["rmse"]
        if done % (20 * every) == 0 or rmse <= GOAL:
            print(f"{'cold' if base is None else 'warm'}, step {done}: RMSE {rmse:.4f}, goal {GOAL:.4f}")
        if rmse <= GOAL:
            return done
    raise harness.Failed("the goal was not reached")


if __name__ == "__main__":
    sys.exit(main())
