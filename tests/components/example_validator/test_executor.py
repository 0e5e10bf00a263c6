"""The data gate on real statistics: what stops the run, what only warns, what drifts, and what is left behind."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
from tfx.types import artifact_utils, standard_artifacts

from components.example_validator import checks, executor
from evergreen import settings
from evergreen.errors import GateRefusal

SCHEMA = """
feature { name: "hour" type: INT presence { min_fraction: 1.0 min_count: 1 } int_domain { min: 0 max: 23 } }
feature { name: "town" type: BYTES presence { min_fraction: 0.9 } string_domain { value: "Bonn" value: "Ulm" } }
feature { name: "size" type: FLOAT presence { min_fraction: 1.0 } float_domain { min: 0 } }
feature { name: "note" type: BYTES }
feature { name: "price" type: FLOAT presence { min_fraction: 1.0 } }
"""


def table(rows: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "hour": random.integers(0, 24, rows),
            "town": random.choice(["Bonn", "Ulm"], rows, p=[0.7, 0.3]),
            "size": random.lognormal(0, 2, rows).astype(np.float32),
            "note": random.choice(["a", "b", "c"], rows),
            "price": random.normal(100, 10, rows).astype(np.float32),
        }
    )


def statistics(frame: pd.DataFrame) -> statistics_pb2.DatasetFeatureStatisticsList:
    return tfdv.generate_statistics_from_dataframe(frame, n_jobs=1)


@dataclasses.dataclass(frozen=True)
class Outcome:
    folder: Path
    refusal: GateRefusal | None
    artifact: standard_artifacts.ExampleAnomalies

    @property
    def report(self) -> dict[str, Any]:
        return json.loads((self.folder / "report.json").read_text())

    def checks(self, severity: str) -> set[tuple[str | None, str]]:
        return {(finding["column"], finding["check"]) for finding in self.report[severity]}


def run(
    root: Path,
    splits: Mapping[str, pd.DataFrame],
    *,
    champion: pd.DataFrame | None = None,
    validation: settings.Validation | None = None,
    weights: str | None = None,
    types: Mapping[str, type] | None = None,
) -> Outcome:
    stats, schema = standard_artifacts.ExampleStatistics(), standard_artifacts.Schema()
    reference, output = standard_artifacts.Model(), standard_artifacts.ExampleAnomalies()
    stats.uri, schema.uri = str(root / "stats"), str(root / "schema")
    reference.uri, output.uri = str(root / "champion"), str(root / "anomalies")
    for name, frame in splits.items():
        folder = root / "stats" / f"Split-{name}"
        folder.mkdir(parents=True)
        (folder / "FeatureStats.pb").write_bytes(statistics(frame).SerializeToString())
    stats.split_names, stats.span = artifact_utils.encode_split_names(list(splits)), 7
    (root / "schema").mkdir()
    schema_of = text_format.Parse(SCHEMA, schema_pb2.Schema())
    for feature in schema_of.feature:
        kinds = {str: schema_pb2.BYTES, int: schema_pb2.INT, float: schema_pb2.FLOAT}
        feature.type = kinds[types[feature.name]] if types and feature.name in types else feature.type
    (root / "schema" / "schema.pbtxt").write_text(str(schema_of))
    (root / "champion").mkdir()
    (root / "champion" / "champion.json").write_text(json.dumps({"version": 3 if champion is not None else None}))
    if champion is not None:
        bundle = root / "champion" / "bundle" / "train_stats"
        bundle.mkdir(parents=True)
        (bundle / "FeatureStats.pb").write_bytes(statistics(champion).SerializeToString())
    refusal = None
    try:
        executor.Executor().Do(
            {"statistics": [stats], "schema": [schema], "champion": [reference]},
            {"anomalies": [output]},
            {"validation": (validation or settings.Validation()).model_dump_json(), "label": "price"}
            | ({} if weights is None else {"weights": weights}),
        )
    except GateRefusal as error:
        refusal = error
    return Outcome(root / "anomalies", refusal, output)


def test_clean_data_pass_and_leave_tfx_s_layout(tmp_path: Path) -> None:
    done = run(tmp_path, {"train": table(2000, 1), "eval": table(300, 2)})
    assert done.refusal is None
    assert done.report == {
        "anomalies": 0,
        "errors": [],
        "warnings": [],
        "splits": {"train": {"rows": 2000, "columns": 5}, "eval": {"rows": 300, "columns": 5}},
        "drift": {},
        "champion_version": None,
        "checked_spans": [],
        "span_drift": {},
        "moving": [],
    }
    assert artifact_utils.decode_split_names(done.artifact.split_names) == ["train", "eval"]
    assert done.artifact.span == 7
    assert done.artifact.get_json_value_custom_property("blessed") == {"train": 1, "eval": 1}
    for split in ("train", "eval"):
        diff = anomalies_pb2.Anomalies.FromString((done.folder / f"Split-{split}" / "SchemaDiff.pb").read_bytes())
        assert not diff.anomaly_info


def test_everything_that_is_wrong_is_told_at_once_in_words(tmp_path: Path) -> None:
    bad = table(2000, 1)
    bad.loc[:99, "hour"] = 24
    bad.loc[:9, "town"] = "Uln"
    bad.loc[10:999, "town"] = None
    bad["size"] = -bad["size"]
    bad["extra"] = "new"
    bad = bad.rename(columns={"price": "prize"})
    done = run(tmp_path, {"train": bad, "eval": table(300, 2)})
    assert done.checks("errors") == {
        ("hour", "range"),
        ("town", "unknown_values"),
        ("town", "missing_values"),
        ("size", "range"),
        ("price", "missing_column"),
        ("price", "label"),
    }
    assert done.checks("warnings") == {("extra", "new_column"), ("prize", "new_column"), ("size", "split_skew")}
    assert done.refusal is not None
    said = {problem.where: problem for problem in done.refusal.problems}
    assert len(done.refusal.problems) == 6
    hour = said["column 'hour', split train"]
    assert hour.found == "values from 0 to 24 (for example 24)"
    assert hour.expected == "values from 0 to 23"
    errors = {(error["column"], error["check"]): error for error in done.report["errors"]}
    assert errors["town", "unknown_values"]["examples"] == ["'Uln'"]
    assert errors["town", "unknown_values"]["expected"] == "one of 'Bonn', 'Ulm'"
    assert errors["town", "missing_values"]["found"] == "no value in 49.50% of the rows"
    assert errors["town", "missing_values"]["expected"] == "a value in at least 90.0% of the rows"
    assert errors["size", "range"]["expected"] == "at least 0"
    assert errors["price", "missing_column"]["found"] == "no such column"
    assert done.artifact.get_json_value_custom_property("blessed") == {"train": 0, "eval": 1}
    diff = anomalies_pb2.Anomalies.FromString((done.folder / "Split-train" / "SchemaDiff.pb").read_bytes())
    assert {"hour", "town", "size", "price"} <= set(diff.anomaly_info)


def test_a_column_of_text_where_numbers_belong(tmp_path: Path) -> None:
    bad = table(500, 1)
    bad["size"] = "n/a"
    done = run(tmp_path, {"train": bad})
    (error,) = done.report["errors"]
    assert (error["column"], error["check"], error["found"]) == ("size", "type", "values of text (BYTES)")
    assert error["expected"] == "numbers (FLOAT)"
    assert error["examples"] == ["'n/a'"]


def test_the_same_thing_in_several_splits_is_told_once(tmp_path: Path) -> None:
    done = run(tmp_path, {s: table(200, n).drop(columns="hour") for n, s in enumerate(("train", "eval", "test"))})
    (error,) = done.report["errors"]
    assert error["splits"] == ["train", "eval", "test"]
    assert done.refusal is not None
    assert done.refusal.problems[0].where == "column 'hour', splits train, eval, test"


def test_a_column_that_may_be_empty_and_is_only_warns(tmp_path: Path) -> None:
    bare = table(200, 1)
    bare["note"] = pd.Series([None] * 200, dtype=object)
    done = run(tmp_path, {"train": bare})
    assert done.refusal is None
    assert done.checks("errors") == set()
    assert done.checks("warnings") <= {("note", "empty")}


def test_too_few_rows(tmp_path: Path) -> None:
    done = run(tmp_path, {"train": table(50, 1), "eval": table(20, 2)}, validation=settings.Validation(min_rows=60))
    (error,) = done.report["errors"]
    assert (error["check"], error["found"]) == ("rows", "50 rows")
    assert error["expected"] == "at least 60 (validation.min_rows)"


def test_an_empty_split(tmp_path: Path) -> None:
    done = run(tmp_path, {"train": table(500, 1), "test": table(0, 2)})
    assert ("rows_test") in {error["check"] for error in done.report["errors"]}


def test_drift_from_the_champion_stops_numbers_and_categories(tmp_path: Path) -> None:
    moved = table(4000, 1)
    moved["price"] += 15
    moved["town"] = np.random.default_rng(4).choice(["Bonn", "Ulm"], 4000, p=[0.3, 0.7])
    done = run(tmp_path, {"train": moved, "eval": moved}, champion=table(4000, 2))
    assert done.checks("errors") == {("price", "label_drift"), ("town", "drift")}
    assert done.report["champion_version"] == 3
    assert set(done.report["drift"]) == {"hour", "town", "size", "note", "price"}
    assert done.report["drift"]["town"] == pytest.approx(0.4, abs=0.05)
    assert done.report["drift"]["size"] < 0.15
    errors = {error["column"]: error for error in done.report["errors"]}
    assert "version 3" in errors["price"]["found"]
    assert "mean 100" in errors["price"]["found"]
    assert "mean 114.9" in errors["price"]["found"]
    assert "'Bonn' 69.5%" in errors["town"]["found"]


def test_drift_can_be_left_alone(tmp_path: Path) -> None:
    moved = table(1000, 1)
    moved["price"] += 100
    done = run(
        tmp_path,
        {"train": moved},
        champion=table(1000, 2),
        validation=settings.Validation(max_drift=None, max_label_drift=None),
    )
    assert done.refusal is None
    assert done.report["drift"] == {}


def _hard_columns(rows: int, seed: int) -> pd.DataFrame:
    """Shapes on which distances between honest samples are large: heavy tails, masses at a point, many categories."""
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "uniform": random.uniform(-5, 5, rows),
            "lognormal": random.lognormal(0, 2, rows),
            "pareto": random.pareto(1.0, rows),
            "mostly_zero": np.where(random.uniform(size=rows) < 0.9, 0, random.exponential(1, rows)),
            "weekday": random.integers(0, 7, rows),
            "count": random.poisson(3, rows),
            "coin": random.choice(["a", "b"], rows),
            "many": np.char.add("c", np.minimum(999, random.zipf(1.5, rows)).astype(str)),
            "unique": np.char.add(f"{seed}-", np.arange(rows).astype(str)),
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize("rows", [16_000, 500, 100])
def test_honest_sampling_noise_raises_no_alarm_at_the_default_threshold(rows: int) -> None:
    default = settings.Validation().max_drift
    assert default is not None
    reference = statistics(_hard_columns(16_000 if rows > 1000 else rows, 0))
    schema = tfdv.infer_schema(reference)
    for seed in range(1, 21):
        current = statistics(_hard_columns(rows, seed))
        compared = checks.with_comparators(
            schema, current=current.datasets[0], reference=reference.datasets[0], max_drift=default
        )
        found = checks.distances(tfdv.validate_statistics(current, compared, previous_statistics=reference))
        assert len(found) == 9
        assert {name: pair for name, pair in found.items() if pair[0] > pair[1]} == {}


def test_comparators_of_the_schema_stay_and_the_schema_is_left_as_it_is() -> None:
    schema = text_format.Parse(SCHEMA, schema_pb2.Schema())
    schema.feature[1].drift_comparator.infinity_norm.threshold = 0.01
    before = schema.SerializeToString()
    frame = statistics(table(1000, 1)).datasets[0]
    copy = checks.with_comparators(schema, current=frame, reference=frame, max_drift=0.2)
    assert schema.SerializeToString() == before
    assert copy.feature[1].drift_comparator.infinity_norm.threshold == 0.01
    assert copy.feature[0].drift_comparator.jensen_shannon_divergence.threshold == 0.2


@pytest.mark.parametrize(("value", "shown"), [("yes", "'yes'"), (7, "7"), (0.25, "0.25")])
def test_a_label_of_one_value_stops_the_run_in_one_error(tmp_path: Path, value: object, shown: str) -> None:
    single, mixed = table(500, 1), table(500, 2)
    single["price"] = value
    mixed["price"] = [value, "no" if isinstance(value, str) else value + 1] * 250  # type: ignore[operator]
    mixed["price"] = mixed["price"].astype(single["price"].dtype)
    done = run(tmp_path / "train", {"train": single, "eval": single, "test": mixed}, types={"price": type(value)})
    assert done.refusal is not None
    (problem,) = done.refusal.problems
    assert problem.where == "column 'price', splits train, eval"
    assert problem.found == f"one label only: {shown} in every row"
    assert problem.expected == "at least two different labels, for there is nothing to learn"
    assert problem.action.startswith("Look whether the rows of the others were lost at the source")
    assert done.checks("errors") == {("price", "label")}
    # Where training has several, a split to measure on that has one is a warning.
    other = run(tmp_path / "test", {"train": mixed, "test": single}, types={"price": type(value)})
    assert other.refusal is None
    assert ("price", "label") in other.checks("warnings")


def test_a_label_without_a_value_stops_the_run(tmp_path: Path) -> None:
    bare = table(500, 1)
    bare["price"] = np.full(500, np.nan, np.float32)
    done = run(tmp_path, {"train": bare})
    assert ("price", "label") in done.checks("errors")
    found = {(error["column"], error["check"]): error for error in done.report["errors"]}["price", "label"]
    assert found["found"] == "no value in any row"
    assert "not been filled in yet" in found["action"]


@pytest.mark.parametrize(
    ("values", "found"),
    [([0.0] * 300, "the weight 0 in every row"), ([0.0, -1.5] * 150, "no weight above 0: -1.5 to 0")],
)
def test_weights_that_make_no_row_count_stop_the_run(tmp_path: Path, values: list[float], found: str) -> None:
    weightless = table(300, 1)
    weightless["size"] = np.abs(values).astype(np.float32) * np.sign(values)
    done = run(tmp_path, {"train": weightless, "eval": table(300, 2)}, weights="size")
    error = next(error for error in done.report["errors"] if error["check"] == "weights")
    assert (error["column"], error["splits"], error["found"]) == ("size", ["train"], found)
    assert error["action"] == "Look what fills the column, or take it out of weights.column."


def test_weights_of_which_some_count_pass(tmp_path: Path) -> None:
    some = table(300, 1)
    some["size"] = ([0.0] * 299) + [0.5]
    # A test split is measured with every row counting once.
    none = table(300, 2)
    none["size"] = 0.0
    done = run(tmp_path, {"train": some, "test": none}, weights="size")
    assert "weights" not in {error["check"] for error in done.report["errors"]}
