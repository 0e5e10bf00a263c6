"""Tables that nobody designed for, from `new` to a serving model with no edit, beside scikit-learn on the same split.

`python -m benchmarks.tables` (`make bench-tables`) writes scikit-learn's bundled iris, breast cancer, wine and diabetes
tables as CSV, runs `local_runner.py new` and `local_runner.py` on each as a person would, and trains scikit-learn's
linear model and gradient boosting on the very rows of the train split that the run wrote. All three answer the test
split; whether ours is worse than the linear model beyond noise is told by a paired bootstrap over its rows. The process
exits with 1 if it is on any table, or if a candidate was not blessed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from benchmarks import harness

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "out" / "tables.json"
TABLES = ("iris", "breast-cancer", "wine", "diabetes")
_RESAMPLES = 10_000

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """What a model says of the rows of the test split."""

    label: Array
    """True numbers, or the place of the true class."""
    numbers: Array
    """float64 [rows] for a regression, else probabilities [rows, classes]."""

    def losses(self, metric: str) -> Array:
        """Returns each row's part of a metric, float64 [rows]; the smaller the better."""
        if metric == "rmse":
            return np.asarray((self.numbers - self.label) ** 2)
        if metric == "accuracy":
            return np.asarray(self.numbers.argmax(axis=1) != self.label, np.float64)
        likelihood = self.numbers[np.arange(len(self.label)), self.label]
        return np.asarray(-np.log(np.maximum(likelihood, 1e-7)))


_OF_LOSSES: dict[str, Callable[[Array], Array]] = {
    "rmse": lambda losses: np.sqrt(losses.mean(axis=-1)),
    "accuracy": lambda losses: 1.0 - losses.mean(axis=-1),
    "log_loss": lambda losses: losses.mean(axis=-1),
}
"""From rows' parts [..., rows] to the metric."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """One metric of one table."""

    table: str
    metric: str
    rows: dict[str, int]
    ours: float
    linear: float
    boosting: float
    low: float
    """Of ours less the linear model: the 2.5th percentile over resamples of the test rows."""
    high: float
    """The 97.5th."""
    blessed: bool
    version: int | None
    seconds: float

    @property
    def worse(self) -> bool:
        """Whether ours is worse than the linear model beyond noise."""
        return self.high < 0.0 if self.metric == "accuracy" else self.low > 0.0

    def as_json(self) -> dict[str, Any]:
        """Returns the record of the benchmark file."""
        return {**dataclasses.asdict(self), "worse_than_linear_beyond_noise": self.worse}


def write_table(name: str, folder: Path) -> Path:
    """Writes a bundled table as CSV; the label is `target`, by name where the table names its classes.

    Args:
        name: one of `TABLES`.
        folder: where to.

    Returns:
        The file.
    """
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name.replace('-', '_')}")(as_frame=True)
    frame = bunch.frame
    # Wine keeps its whole numbers, so that both ways to write a class are there.
    if name in ("iris", "breast-cancer"):
        frame = frame.assign(target=[bunch.target_names[place] for place in frame["target"]])
    path = folder / f"{name}.csv"
    frame.to_csv(path, index=False)
    return path


def run_table(name: str, folder: Path) -> list[Result]:
    """Takes one table through `new`, a run and scikit-learn.

    Args:
        name: one of `TABLES`.
        folder: gets data, configuration, artifacts and registry.

    Raises:
        harness.Failed: when a command fails.
    """
    table = write_table(name, folder)
    config, environment = folder / f"{name}.yaml", folder / "environment.yaml"
    environment.write_text(
        yaml.safe_dump({"workspace": str(folder / "runs"), "registry": str(folder / "registry")}), encoding="utf-8"
    )
    runner = [sys.executable, str(ROOT / "local_runner.py")]
    written = ["--config", str(config), "--schema", str(folder / name / "schema.pbtxt")]
    look = [*runner, "new", "--data", str(table), "--label", "target", *written]
    first = harness.run_measured(look, cwd=ROOT, log=folder / f"{name}-new.log")
    run = [*runner, "--config", str(config), "--environment", str(environment)]
    second = harness.run_measured(run, cwd=ROOT, log=folder / f"{name}-run.log")
    return list(_compare(name, folder, seconds=first.seconds + second.seconds))


def _compare(name: str, folder: Path, *, seconds: float) -> list[Result]:
    from evergreen.registry import Registry
    from pipeline import config

    problem = config.load_config(folder / f"{name}.yaml")
    root = folder / "runs" / problem.name / "artifacts"
    verdict = json.loads((_only(root / "Evaluator" / "evaluation") / "verdict.json").read_text(encoding="utf-8"))
    examples = _only(root / "ExampleGen" / "examples")
    train, test = (_read(examples / f"Split-{split}", problem) for split in ("train", "test"))
    registry = Registry(str(folder / "registry"), problem.name)
    version = registry.serving()
    regression = problem.label.task.value == "regression"
    answers = _ours(folder / "registry" / problem.name / str(version), test) if version else None
    if answers is None:
        raise harness.Failed(f"{name}: {verdict['reasons']}")
    linear, boosting = (_scikit(model, train, test) for model in _models(regression))
    metrics = ("rmse",) if regression else ("accuracy", "log_loss")
    return [
        Result(
            table=name,
            metric=metric,
            rows={"train": len(train.label), "test": len(test.label)},
            ours=float(_OF_LOSSES[metric](answers.losses(metric))),
            linear=float(_OF_LOSSES[metric](linear.losses(metric))),
            boosting=float(_OF_LOSSES[metric](boosting.losses(metric))),
            low=low,
            high=high,
            blessed=bool(verdict["blessed"]),
            version=version,
            seconds=round(seconds, 1),
        )
        for metric in metrics
        for low, high in [difference(answers, linear, metric)]
    ]


def difference(ours: Answers, theirs: Answers, metric: str) -> tuple[float, float]:
    """Returns the 95 % interval of ours less theirs over resamples of the rows, the same rows for both."""
    rows = np.random.default_rng(0).integers(0, len(ours.label), (_RESAMPLES, len(ours.label)))
    of = _OF_LOSSES[metric]
    differences = of(ours.losses(metric)[rows]) - of(theirs.losses(metric)[rows])
    low, high = np.quantile(differences, [0.025, 0.975])
    return float(low), float(high)


# --- the split that the run wrote ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Split:
    serialized: Array
    features: Array
    label: Array
    classes: tuple[Any, ...]


def _read(folder: Path, problem: Any) -> _Split:
    """Reads the raw tf.Examples of a split: the columns that the features read, and the label."""
    import tensorflow as tf

    from evergreen import settings

    columns = [column for name, feature in problem.features.items() for column in settings.raw_columns(name, feature)]
    files = sorted(str(path) for path in folder.iterdir())
    serialized = np.array(list(tf.data.TFRecordDataset(files).as_numpy_iterator()), object)
    parsed = tf.io.parse_example(
        tf.constant(serialized), {column: tf.io.FixedLenFeature([], tf.float32) for column in columns}
    )
    features = np.stack([parsed[column].numpy() for column in columns], axis=1)
    label = problem.label.column
    if problem.label.task is settings.Task.REGRESSION:
        numbers = tf.io.parse_example(tf.constant(serialized), {label: tf.io.FixedLenFeature([], tf.float32)})[label]
        return _Split(serialized=serialized, features=features, label=numbers.numpy().astype(np.float64), classes=())
    example = tf.train.Example.FromString(serialized[0]).features.feature[label]
    dtype = tf.int64 if example.HasField("int64_list") else tf.string
    words = tf.io.parse_example(tf.constant(serialized), {label: tf.io.FixedLenFeature([], dtype)})[label].numpy()
    classes, places = np.unique(words, return_inverse=True)
    return _Split(serialized=serialized, features=features, label=places, classes=tuple(classes))


def _ours(model: Path, test: _Split) -> Answers:
    """Asks the published model for the rows of the test split, as a server would."""
    import tensorflow as tf

    signature = tf.saved_model.load(str(model)).signatures["serving_default"]
    outputs = signature(examples=tf.constant(test.serialized))
    if not test.classes:
        return Answers(label=test.label, numbers=outputs["prediction"].numpy().astype(np.float64))
    if "probability" in outputs:
        second = outputs["probability"].numpy().astype(np.float64)
        return Answers(label=test.label, numbers=np.stack([1.0 - second, second], axis=1))
    return Answers(label=test.label, numbers=outputs["probabilities"].numpy().astype(np.float64))


def _models(regression: bool) -> tuple[Any, Any]:
    """Returns scikit-learn's linear model and gradient boosting, as it comes, on scaled inputs."""
    from sklearn import ensemble, linear_model, pipeline, preprocessing

    linear = linear_model.LinearRegression() if regression else linear_model.LogisticRegression(max_iter=10_000)
    boosting = ensemble.GradientBoostingRegressor if regression else ensemble.GradientBoostingClassifier
    return pipeline.make_pipeline(preprocessing.StandardScaler(), linear), boosting(random_state=0)


def _scikit(model: Any, train: _Split, test: _Split) -> Answers:
    if train.classes != test.classes:
        raise harness.Failed(f"the test split has the classes {test.classes}, the train split {train.classes}")
    model.fit(train.features, train.label)
    numbers = model.predict_proba(test.features) if train.classes else model.predict(test.features)
    return Answers(label=test.label, numbers=np.asarray(numbers, np.float64))


def _only(folder: Path) -> Path:
    return max(folder.iterdir(), key=lambda path: int(path.name))


# --- the command -----------------------------------------------------------------------------------------------------


def table(results: Sequence[Result]) -> str:
    """Renders the results for people."""
    head = ("table", "train", "test", "metric", "ours", "linear", "boosting", "ours - linear, 95 %", "seconds")
    rows = [
        (
            result.table,
            str(result.rows["train"]),
            str(result.rows["test"]),
            result.metric,
            f"{result.ours:.4g}",
            f"{result.linear:.4g}",
            f"{result.boosting:.4g}",
            f"{result.low:+.3g} to {result.high:+.3g}{' WORSE' if result.worse else ''}",
            f"{result.seconds:.0f}",
        )
        for result in results
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    )


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark; see the module."""
    parser = argparse.ArgumentParser(prog="benchmarks.tables", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES), help="only these")
    parser.add_argument("--keep", metavar="DIR", help="leave data, artifacts and models in this folder")
    options = parser.parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore")
    os.chdir(ROOT)
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.keep).resolve() if options.keep else Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in options.tables:
            results += run_table(name, folder)
            print(f"{name}: done in {results[-1].seconds:.0f} s", file=sys.stderr)
    print(table(results))
    print(harness.machine())
    OUT.parent.mkdir(parents=True, exist_ok=True)
    temporary = OUT.with_suffix(".tmp")
    temporary.write_text(json.dumps([result.as_json() for result in results], indent=1) + "\n", encoding="utf-8")
    temporary.replace(OUT)
    return int(any(result.worse or not result.blessed for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
