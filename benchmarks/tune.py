"""Searches for hyperparameters: two trials at a time against one after the other, Hyperband against random search.

    python -m benchmarks.tune [--rows 112000] [--parallel-rows 600000] [--trials 16] [--part parallel|hyperband|all]

`parallel`: the same random search (same oracle, seed and trials) with one trial at a time and with two, the workers'
start included; what other processes take of the cores meanwhile is told. `hyperband`: the epochs that Hyperband needs
to reach random search's best score, beside all epochs of that random search, on the built-in problem and on a table of
three classes. Ends with 1 where a bar is not held.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from benchmarks import harness, transformed
from evergreen import settings
from trainer import trials, tune

OUTPUT = Path("benchmarks/out/tune.json")
MAX_PARALLEL = 0.65
"""Largest share of the sequential wall time that two parallel trials may take."""
_SECONDS, _EPOCHS = "seconds", "epochs to random's best loss"
MAX_HYPERBAND = 0.5
"""Largest share of random search's epochs in which Hyperband has to reach its best score."""

REGRESSION = {
    "features": {"beta1": {"kind": "numeric"}, "beta2": {"kind": "numeric"}, "week_hour": {
        "kind": "cross", "parts": [{"column": "weekday", "size": 7}, {"column": "hour", "size": 24}]}},
    "label": {"column": "humidity", "task": "regression"},
}  # fmt: skip
CLASSES = {
    "features": {**{f"x{n}": {"kind": "numeric"} for n in range(6)}, "group": {"kind": "identity", "size": 20}},
    "label": {"column": "kind", "task": "multiclass"},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table and writes the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tune", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=112_000, help="rows of the Hyperband race (default %(default)s)")
    parser.add_argument(
        "--parallel-rows", type=int, default=600_000, help="rows of the race of two trials (default %(default)s)"
    )
    parser.add_argument("--trials", type=int, default=16, help="trials of the random search (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=9, help="epochs of a trial at the most (default %(default)s)")
    parser.add_argument("--part", choices=("parallel", "hyperband", "all"), default="all")
    options = parser.parse_args(arguments)
    figures: list[harness.Figure] = []
    with tempfile.TemporaryDirectory() as scratch:
        if options.part != "hyperband":
            figures += _parallel(Path(scratch) / "parallel", options)
        if options.part != "parallel":
            figures += _hyperband(Path(scratch), options)
    print(f"{harness.machine()}; {options.trials} trials of {options.epochs} epochs, TensorFlow {tf.__version__}")
    print("`ours` is two trials at a time, or Hyperband; `stock` is one after the other, or random search.")
    print(harness.table(figures))
    harness.write(figures, OUTPUT)
    missed = [figure for figure in figures if not _held(figure)]
    print("\n".join(f"Missed: {figure.case}, {figure.metric}" for figure in missed) or "All bars are held.")
    return 1 if missed else 0


def _parallel(folder: Path, options: argparse.Namespace) -> Iterator[harness.Figure]:
    name, preprocessing, table = next(tables(options.parallel_rows))
    setting = _prepare(folder / name, preprocessing, table, options)
    alone = _search(setting, folder / "alone", algorithm="random", parallel=1)
    together = _search(setting, folder / "together", algorithm="random", parallel=2)
    _same_trials(alone.table, together.table)
    for name, search in (("one after the other", alone), ("two at a time", together)):
        print(
            f"{name}: {search.processor / search.seconds:.2f} cores busy with the search, "
            f"{search.others / search.seconds:.2f} with other work"
        )
    case = f"{options.trials} trials, {options.parallel_rows:,} rows"
    yield _figure(case, _SECONDS, "s", together.seconds, alone.seconds)
    # Where other work shares the cores, this tells what the seconds cannot: what both searches cost.
    yield _figure(case, "processor time", "s", together.processor, alone.processor)


def _hyperband(folder: Path, options: argparse.Namespace) -> Iterator[harness.Figure]:
    for name, preprocessing, table in tables(options.rows):
        setting = _prepare(folder / name, preprocessing, table, options)
        random = _search(setting, folder / name / "random", algorithm="random", parallel=1)
        hyperband = _search(setting, folder / name / "hyperband", algorithm="hyperband", parallel=1)
        yield _reached(f"{name}, {options.rows:,} rows", hyperband.table, random.table)


def tables(rows: int) -> Iterator[tuple[str, dict[str, Any], dict[str, npt.NDArray[Any]]]]:
    """Yields the name, the preprocessing and the raw columns of each table."""
    random = np.random.default_rng(1)
    cell = random.integers(0, 168, rows)
    beta = random.uniform(-5, 5, size=(2, rows)).astype(np.float32)
    humidity = 2 * beta[0] - 0.5 * beta[1] + 18.5 + 8.0 * (cell % 9 == 0) + random.normal(0, 1.414, rows)
    table: dict[str, npt.NDArray[Any]] = {
        "beta1": beta[0], "beta2": beta[1], "weekday": cell // 24, "hour": cell % 24,
        "humidity": humidity.astype(np.float32),
    }  # fmt: skip
    yield "humidity", REGRESSION, table
    x = random.normal(size=(6, rows)).astype(np.float32)
    group = random.integers(0, 20, rows)
    lift = random.normal(size=20)
    scores = np.stack([x[0] * x[1] + lift[group], x[2] ** 2 - x[3], 1.5 * np.sin(2 * x[4]) + x[5]])
    kind = np.argmax(scores + random.gumbel(size=scores.shape), axis=0)
    columns: dict[str, npt.NDArray[Any]] = {f"x{n}": x[n] for n in range(6)}
    yield "classes", CLASSES, {**columns, "group": group, "kind": kind}


def _prepare(
    folder: Path, preprocessing: dict[str, Any], table: dict[str, Any], options: argparse.Namespace
) -> trials.Setting:
    """Writes raw rows and puts them through the stock Transform, as a run does."""
    files, graph = transformed.make(folder, preprocessing, table)
    config = settings.TrainerConfig.model_validate(
        {
            "preprocessing": preprocessing,
            "model": {"kind": "wide_deep"},
            "training": {"epochs": options.epochs, "batch_size": 1024},
            "tuning": {
                "algorithm": "random",
                "max_trials": options.trials,
                "early_stopping_patience": None,
                "space": {
                    "training.learning_rate": {"kind": "log", "min": 1e-5, "max": 1e-1},
                    "model.hidden_units": {"kind": "choice", "values": [[16], [64, 32], [128, 64]]},
                    "model.dropout": {"kind": "float", "min": 0.0, "max": 0.5},
                },
            },
        }
    )
    return trials.Setting(config=config, train_files=files, transform_graph=graph, folder=str(folder / "search"))


class _Searched(NamedTuple):
    table: dict[str, Any]
    seconds: float
    processor: float
    """Processor seconds of this process and of the workers."""
    others: float
    """Processor seconds of everything else on this machine."""


def _search(setting: trials.Setting, folder: Path, *, algorithm: str, parallel: int) -> _Searched:
    """Runs one search from nothing."""
    tuning = setting.tuning.model_copy(update={"algorithm": algorithm, "parallel_trials": parallel})
    config = setting.config.model_copy(update={"tuning": tuning})
    search = tune.Search(dataclasses.replace(setting, config=config, folder=str(folder)))
    started, used, busy = time.perf_counter(), sum(os.times()[:4]), _busy()
    search.search()
    seconds, processor = time.perf_counter() - started, sum(os.times()[:4]) - used
    return _Searched(search.table(), seconds, processor, max(0.0, _busy() - busy - processor))


def _busy() -> float:
    """Returns the processor seconds of all processes of this machine since it started."""
    _, *ticks = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()
    user, nice, system, _idle, _waiting, *interrupts = (int(tick) for tick in ticks[:8])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def _same_trials(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Makes sure that both searches tried the same: else their times say nothing."""
    tried = [sorted(str(sorted(trial["values"].items())) for trial in table["trials"]) for table in (one, other)]
    if tried[0] != tried[1]:
        raise harness.Failed("two searches with the same seed tried different values")


def _figure(case: str, metric: str, unit: str, ours: float, stock: float) -> harness.Figure:
    return harness.Figure(case=case, metric=metric, unit=unit, ours=ours, stock=stock)


def _reached(name: str, hyperband: dict[str, Any], random: dict[str, Any]) -> harness.Figure:
    """Counts Hyperband's epochs, in the order of its trials, up to the first score as good as random search's best."""
    goal = min(trial["score"] for trial in random["trials"])
    epochs = 0
    for trial in hyperband["trials"]:
        epochs += trial["epochs"]
        if trial["score"] <= goal:
            break
    else:
        print(f"{name}: Hyperband came to {min(t['score'] for t in hyperband['trials']):.6g}, not to {goal:.6g}")
        return _figure(name, _EPOCHS, "", float("inf"), random["epochs"])
    print(f"{name}: random search's best loss {goal:.6g}, Hyperband's {trial['score']:.6g} after {epochs} epochs")
    return _figure(name, _EPOCHS, "", epochs, random["epochs"])


def _held(figure: harness.Figure) -> bool:
    assert figure.ours is not None
    assert figure.stock is not None
    if figure.metric not in (_SECONDS, _EPOCHS):
        return True
    return figure.ours <= figure.stock * (MAX_PARALLEL if figure.metric == _SECONDS else MAX_HYPERBAND)


if __name__ == "__main__":
    sys.exit(main())
