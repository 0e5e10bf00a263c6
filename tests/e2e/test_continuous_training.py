"""The story of a model: first run, nothing new, a new span, a bad span, a candidate that is not good enough.

The tests build on one another in the order of the file, as the days of a pipeline do.
"""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from datagen import humidity
from tests.e2e.conftest import Workspace

pytestmark = pytest.mark.e2e

NODES = [
    "ExampleGen",
    "StatisticsGen",
    "ImportSchemaGen",
    "Champion",
    "ExampleValidator",
    "Transform",
    "Trainer",
    "Evaluator",
    "Pusher",
]


def test_the_first_run_publishes_a_model_within_two_percent_of_the_noise(workspace: Workspace):
    ended = workspace.run()
    assert ended.code == 0, ended.out + ended.err
    assert ended.states() == dict.fromkeys(NODES, "done")
    assert "Made 7 spans of data" in ended.out
    assert "Verdict: blessed" in ended.out
    assert workspace.published() == ([1], 1)
    verdict = workspace.verdict()
    assert verdict["metrics"]["candidate"]["rmse"] <= 1.02 * humidity.NOISE_FLOOR
    assert verdict["metrics"]["champion"] is None
    assert verdict["metrics"]["trivial"]["rmse"] > 3
    manifest = workspace.registry.manifest(1)
    assert manifest.champion_version is None
    assert sum(manifest.data["rows"].values()) == 7 * 20_000
    assert manifest.run_fingerprint


def test_the_log_is_named_and_holds_what_libraries_said(workspace: Workspace):
    (logs,) = (workspace.root / "logs").iterdir()
    assert (logs / "run.log").stat().st_size > 0
    records = json.loads((logs / "nodes.json").read_text())
    assert [record["node"] for record in records] == NODES
    assert all(record["figure"] for record in records)


def test_an_unchanged_run_does_no_work(workspace: Workspace):
    ended = workspace.run()
    assert ended.code == 0, ended.out + ended.err
    assert ended.states() == dict.fromkeys(NODES, "unchanged")
    assert "Nothing changed since the last run: no work was done" in ended.out
    assert workspace.published() == ([1], 1)


def test_a_changed_bound_asks_the_evaluator_alone(workspace: Workspace):
    workspace.configure(evaluation__bounds={"rmse": {"max": 1.444}, "mae": {"max": 1.5}})
    ended = workspace.run()
    assert ended.code == 0, ended.out + ended.err
    states = ended.states()
    assert [node for node, state in states.items() if state == "done"] == ["Evaluator", "Pusher"]
    assert workspace.published() == ([1], 1), "the same model is not published twice"
    workspace.configure()
    assert workspace.run().states()["Evaluator"] == "unchanged"


def test_a_lost_output_is_made_again(workspace: Workspace):
    shard = sorted(workspace.latest("Transform", "transformed_examples").glob("Split-train/*"))[0]
    shard.unlink()
    ended = workspace.run("--to", "Transform")
    states = ended.states()
    assert [node for node, state in states.items() if state == "done"] == ["Transform"]
    assert [node for node, state in states.items() if state == "skipped"] == NODES[NODES.index("Trainer") :]


def test_predictions_come_row_by_row(workspace: Workspace):
    rows = [
        '{"beta1": 0.5, "beta2": 1.0, "weekday": 1, "hour": 19}',
        '{"beta1": 0.5, "beta2": 1.0, "weekday": 1, "hour": 3}',
        '{"beta1": 0.5, "weekday": 1, "hour": 3}',
        '{"beta1": "high", "beta2": 1.0, "weekday": 1, "hour": 3}',
        '{"beta1": 0.5, "beta2": 1.0, "weekday": 9, "hour": 3}',
        '{"beta1": 0.5, "beta2": 1.0, "weekday": 1, "hour": 3, "gamma": 1}',
        "{not json",
        '{"beta1": 0.5, "beta2": 1.0, "weekday": 1, "hour": 3, "humidity": 20.0}',
    ]
    ended = workspace.run("predict", text="\n".join(rows) + "\n")
    assert ended.code == 2, ended.err
    answers = [json.loads(line) for line in ended.out.splitlines()]
    assert [answer["line"] for answer in answers] == list(range(1, 9))
    assert abs(answers[0]["prediction"] - (2 * 0.5 + 18.5 - 0.5 + 8)) < 1
    assert abs(answers[1]["prediction"] - (2 * 0.5 + 18.5 - 0.5)) < 1
    for position, word in ((2, "beta2"), (3, "beta1"), (4, "weekday"), (5, "gamma")):
        assert word in json.dumps(answers[position]["error"])
    assert "error" in answers[6]
    assert answers[7]["prediction"] == pytest.approx(answers[1]["prediction"])


def test_predictions_of_a_csv_file(workspace: Workspace, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("hour,weekday,beta2,beta1\n3,1,1.0,0.5\n19,1,1.0,0.5\n")
    ended = workspace.run("predict", str(path))
    assert ended.code == 0, ended.err
    low, high = (json.loads(line)["prediction"] for line in ended.out.splitlines())
    assert high - low == pytest.approx(8, abs=1)


def test_predictions_of_whole_files(workspace: Workspace, tmp_path):
    path, out = tmp_path / "rows.csv", tmp_path / "answers"
    path.write_text("beta1,beta2,weekday,hour,id\n" + "0.5,1.0,1,3,low\n0.5,1.0,1,19,high\n" * 100)
    ended = workspace.run("predict", "--batch", "csv", str(path), "--output", str(out))
    assert ended.code == 0
    assert "200 rows answered by version" in ended.err
    (part,) = out.glob("part-*.csv")
    rows = list(csv.DictReader(part.open()))
    assert [row["id"] for row in rows] == ["low", "high"] * 100
    assert float(rows[1]["prediction"]) - float(rows[0]["prediction"]) > 7
    ended = workspace.run("predict", "--batch", "csv", str(path))
    assert (ended.code, "--batch without an --output" in ended.err) == (2, True)


def test_a_new_span_is_trained_on_beside_the_champion(workspace: Workspace):
    assert workspace.run("new-span").code == 0
    ended = workspace.run()
    assert ended.code == 0, ended.out + ended.err
    assert ended.states()["ExampleGen"] == "done"
    assert "champion (version 1)" in ended.out
    assert workspace.published() == ([1, 2], 2)
    assert workspace.verdict()["champion_version"] == 1
    manifest = workspace.registry.manifest(2)
    assert [span["span"] for span in manifest.data["spans"]] == list(range(2, 9))
    assert manifest.champion_version == 1
    assert "no work was done" in workspace.run().out


def test_a_bad_span_is_stopped_before_training(workspace: Workspace):
    assert workspace.run("new-span", "--fault", "out_of_range").code == 0
    ended = workspace.run()
    assert ended.code == 3, ended.out + ended.err
    states = ended.states()
    assert states["ExampleValidator"] == "refused"
    assert "Trainer" not in states
    assert "The registry is untouched" in ended.out
    assert workspace.published() == ([1, 2], 2)


def test_earlier_spans_can_be_named(workspace: Workspace):
    ended = workspace.run("--spans", "2-8")
    assert ended.code == 0, ended.out + ended.err
    assert set(ended.states().values()) == {"unchanged"}


def test_without_the_cross_the_run_refuses_and_its_residuals_show_the_18_cells(workspace: Workspace):
    workspace.configure(features={"beta1": {"kind": "numeric"}, "beta2": {"kind": "numeric"}}, model={"kind": "linear"})
    ended = workspace.run("--spans", "1-7")
    assert ended.code == 3, ended.out + ended.err
    assert ended.states()["Trainer"] == "done"
    assert "Verdict: refused" in ended.out
    assert "1.444" in ended.out
    assert workspace.published() == ([1, 2], 2), "a candidate under the threshold is not pushed"
    assert workspace.verdict()["metrics"]["candidate"]["rmse"] == pytest.approx(2.85, rel=0.03)
    assert cells_with_residuals(workspace) == set(humidity.BONUS_CELLS)


def cells_with_residuals(workspace: Workspace) -> set[tuple[int, int]]:
    """Returns the cells of weekday x hour whose mean residual on all rows stands out from the others."""
    import pyarrow as pa
    import pyarrow.csv
    import tensorflow as tf

    files = sorted(workspace.data.glob("span-[1-7]/v-*/*.csv"))
    table = pa.concat_tables([pyarrow.csv.read_csv(path) for path in files])
    model = tf.saved_model.load(str(workspace.latest("Trainer", "model") / "Format-Serving"))
    raw = model.signatures["raw"]
    inputs = {
        name: tf.constant(table[name].to_numpy().astype(spec.dtype.as_numpy_dtype))
        for name, spec in raw.structured_input_signature[1].items()
    }
    residuals = table["humidity"].to_numpy() - raw(**inputs)["prediction"].numpy()
    cell = table["weekday"].to_numpy() * 24 + table["hour"].to_numpy()
    means = np.bincount(cell, weights=residuals, minlength=168) / np.bincount(cell, minlength=168)
    # The bonus is 8 in 18 of 168 cells: their mean residual is 7.1, that of the others -0.9, each give or take 0.1.
    return {(int(index) // 24, int(index) % 24) for index in np.flatnonzero(means > 3)}
