"""Every problem of a bad row is told, good rows beside it are answered, a missing value reaches the model as such."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evergreen.errors import BadInput, ExitCode
from evergreen.registry import Provenance, Registry
from serving.predictor import Predictor, run_predict
from serving.rows import Text
from tests import models

GOOD: dict[str, object] = {"beta1": 1.5, "weekday": 2, "machine": "a"}
"""Only what is required; the model answers 23."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save_regression(tmp_path_factory.mktemp("regression") / "model")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "schema.pbtxt").write_text(models.SCHEMA)
    return folder


@pytest.fixture(scope="module")
def predictor(model: Path, bundle: Path) -> Predictor:
    return Predictor.load(model, bundle_dir=bundle)


@pytest.fixture(scope="module")
def registry(model: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    registry = Registry(tmp_path_factory.mktemp("registry"), "m")
    registry.publish(model_dir=model, bundle={"schema.pbtxt": bundle / "schema.pbtxt"}, provenance=Provenance())
    return registry


def answered(predictor: Predictor, *rows: dict[str, object], **options: int) -> list[Any]:
    """Returns each row's prediction, or the columns and findings of its problems."""
    return [
        answer.outputs["prediction"]
        if answer.outputs
        else [(problem.where, problem.found) for problem in answer.problems]
        for answer in predictor.predict(rows, **options)
    ]


def refusal(predictor: Predictor, **change: object) -> tuple[str, str, str]:
    """Returns where, found and expected of the one problem of a row that is good but for `change`."""
    (answer,) = predictor.predict([{**GOOD, **change}])
    (problem,) = answer.problems
    return problem.where, problem.found, problem.expected


def test_importing_it_brings_in_no_tensorflow():
    code = "import sys, serving.predictor; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_rows_are_answered_in_order_over_several_batches(predictor: Predictor):
    rows = [{**GOOD, "beta1": float(number)} for number in range(50)]
    assert answered(predictor, *rows, batch_size=7) == [20.0 + 2.0 * number for number in range(50)]


def test_every_column_reaches_the_model(predictor: Predictor):
    row = {"beta1": 1, "weekday": 2.0, "pressure": 0.25, "count": 3, "machine": "b", "note": "z", "hot": True}
    assert answered(predictor, row) == [2 + 20 + 0.25 + 3 + 100 + 1000 + 10_000]


@pytest.mark.parametrize("nothing", [None, float("nan"), "absent"])
def test_what_is_missing_is_missing_to_the_model_too(nothing: object, predictor: Predictor):
    row = {**GOOD, "pressure": nothing, "count": nothing} if nothing != "absent" else GOOD
    assert answered(predictor, row, {**GOOD, "note": "", "pressure": 1.0, "count": 1}) == [23.0, 25.0]


def test_the_label_and_columns_that_only_the_schema_knows_are_ignored(predictor: Predictor):
    assert answered(predictor, {**GOOD, "humidity": "whatever", "id": 7}) == [23.0]


@pytest.mark.parametrize(
    ("change", "where", "found", "expected"),
    [
        ({"beta1": "1.5"}, "column 'beta1'", "the text '1.5'", "a number"),
        ({"beta1": None}, "column 'beta1'", "no value", "a number"),
        ({"beta1": True}, "column 'beta1'", "the truth value True", "a number"),
        ({"beta1": [1.5]}, "column 'beta1'", "the array [1.5]", "a number"),
        ({"beta1": {"x": 1}}, "column 'beta1'", "the object {'x': 1}", "a number"),
        ({"beta1": float("inf")}, "column 'beta1'", "inf", "a number that fits the model"),
        ({"beta1": 1e300}, "column 'beta1'", "1e+300", "a number that fits the model"),
        ({"beta1": 10**400}, "column 'beta1'", f"1{'0' * 36}...", "a number that fits the model"),
        ({"weekday": 7}, "column 'weekday'", "7", "a whole number from 0 to 6"),
        ({"weekday": -1}, "column 'weekday'", "-1", "a whole number from 0 to 6"),
        ({"weekday": 2.5}, "column 'weekday'", "2.5", "a whole number from 0 to 6"),
        ({"weekday": "2"}, "column 'weekday'", "the text '2'", "a whole number from 0 to 6"),
        ({"count": 2**63}, "column 'count'", str(2**63), "a whole number that fits the model"),
        ({"count": -(2**63)}, "column 'count'", str(-(2**63)), "a whole number that fits the model"),
        ({"pressure": -0.5}, "column 'pressure'", "-0.5", "a number of at least 0"),
        ({"machine": "c"}, "column 'machine'", "the text 'c'", "one of 'a', 'b'"),
        ({"machine": ""}, "column 'machine'", "no value", "one of 'a', 'b'"),
        ({"machine": 3}, "column 'machine'", "the number 3", "one of 'a', 'b'"),
        ({"note": "\ud800"}, "column 'note'", "half a character", "a text"),
        ({"hot": 2}, "column 'hot'", "2", "a whole number from 0 to 1"),
        ({"beta3": 1.0}, "column 'beta3'", "a column that the schema does not know", ""),
    ],
)
def test_a_bad_value_is_told(change: dict[str, object], where: str, found: str, expected: str, predictor: Predictor):
    told = refusal(predictor, **change)
    assert told[:2] == (where, found)
    assert told[2] == expected or not expected
    # The same value between good ones: only its row is refused.
    assert answered(predictor, GOOD, {**GOOD, **change}, GOOD) == [23.0, [(where, found)], 23.0]


def test_every_problem_of_a_row_is_told_at_once(predictor: Predictor):
    bad = {"beta1": "x", "weekday": 9, "colour": "red", "machine": None}
    assert answered(predictor, bad, GOOD) == [
        [
            ("column 'colour'", "a column that the schema does not know"),
            ("column 'beta1'", "the text 'x'"),
            ("column 'machine'", "no value"),
            ("column 'weekday'", "9"),
        ],
        23.0,
    ]


def test_an_empty_row_lacks_every_required_column(predictor: Predictor):
    (answer,) = predictor.predict([{}])
    assert [problem.where for problem in answer.problems] == ["column 'beta1'", "column 'machine'", "column 'weekday'"]


def test_text_stands_for_numbers_where_the_format_knows_only_text(predictor: Predictor):
    text = {"beta1": Text("1.5"), "weekday": Text("2"), "pressure": Text(""), "count": Text("4"), "machine": Text("a")}
    assert answered(predictor, text, text) == [27.0, 27.0]
    for column, value in [("beta1", "abc"), ("beta1", "1_0"), ("weekday", "2.0"), ("weekday", "\u0663")]:
        found = f"the text {value!r}"
        assert answered(predictor, text, {**text, column: Text(value)}) == [27.0, [(f"column {column!r}", found)]]
    assert answered(predictor, {**text, "beta1": Text("")}) == [[("column 'beta1'", "no value")]]


def test_a_classifier_answers_with_text_and_probabilities(tmp_path: Path):
    model = models.save_classifier(tmp_path / "model")
    (tmp_path / "schema.pbtxt").write_text('feature { name: "beta1" type: FLOAT }')
    yes, no = Predictor.load(model, bundle_dir=tmp_path).predict([{"beta1": 2.0}, {"beta1": -2.0}])
    assert yes.outputs is not None
    assert no.outputs is not None
    assert (yes.outputs["prediction"], no.outputs["prediction"]) == ("yes", "nö")
    assert yes.outputs["probability"] == pytest.approx(0.8808, abs=1e-4)
    assert no.outputs["probabilities"] == pytest.approx([0.8808, 0.1192], abs=1e-4)


def test_an_answer_that_is_no_number_is_told_for_its_row(tmp_path: Path):
    model = models.save_classifier(tmp_path / "model")
    (tmp_path / "schema.pbtxt").write_text('feature { name: "beta1" type: FLOAT }')
    good, bad = Predictor.load(model, bundle_dir=tmp_path).predict([{"beta1": 2.0}, {}])
    assert good.outputs is not None
    assert [problem.where for problem in bad.problems] == ["the model"]


def test_a_model_without_raw_columns_and_a_schema_that_is_broken_are_told(tmp_path: Path, model: Path, bundle: Path):
    import tensorflow as tf

    tf.saved_model.save(tf.Module(), str(tmp_path / "bare"))
    with pytest.raises(BadInput, match="signature 'raw'"):
        Predictor.load(tmp_path / "bare", bundle_dir=bundle)
    with pytest.raises(BadInput, match=r"schema\.pbtxt"):
        Predictor.load(model, bundle_dir=tmp_path)
    (tmp_path / "schema.pbtxt").write_text("feature {")
    with pytest.raises(BadInput, match=r"schema\.pbtxt"):
        Predictor.load(model, bundle_dir=tmp_path)


# --- several values a row ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    folder = tmp_path_factory.mktemp("lists")
    (folder / "schema.pbtxt").write_text(models.LISTS)
    return Predictor.load(models.save_lists(folder / "model"), bundle_dir=folder)


def test_lists_of_any_length_are_answered_row_by_row(lists: Predictor):
    rows: list[dict[str, object]] = [
        {"tags": ["a", "b"], "sizes": [1.5, 2]},
        {"tags": "a", "sizes": 4},
        {"tags": [], "sizes": [1, 2, 3, 4]},
        {"sizes": [0.25]},
        {"tags": ["", "b"], "sizes": (8.0,)},
        {"tags": None, "sizes": Text("2.5")},
    ]
    expected = [203.5, 104.0, 10.0, 0.25, 108.0, 2.5]
    assert answered(lists, *rows) == expected
    # Alone, too: a batch is as wide as its longest list.
    assert [answered(lists, row) for row in rows] == [[value] for value in expected]


@pytest.mark.parametrize(
    ("change", "where", "found"),
    [
        ({"tags": ["a", "c"]}, "column 'tags'", "the text 'c'"),
        ({"tags": ["a", None]}, "column 'tags'", "nothing within a list"),
        ({"tags": ["a", 3]}, "column 'tags'", "the number 3"),
        ({"tags": {"a": 1}}, "column 'tags'", "the object {'a': 1}"),
        ({"sizes": [1.0, "2"]}, "column 'sizes'", "the text '2'"),
        ({"sizes": [1.0, float("nan")]}, "column 'sizes'", "nothing within a list"),
        ({"sizes": [1.0, -2.0]}, "column 'sizes'", "-2.0"),
        ({"sizes": [[1.0]]}, "column 'sizes'", "the array [1.0]"),
        ({"sizes": []}, "column 'sizes'", "no value"),
        ({"sizes": None}, "column 'sizes'", "no value"),
    ],
)
def test_a_bad_value_within_a_list_costs_its_row_only(
    change: dict[str, object], where: str, found: str, lists: Predictor
):
    good: dict[str, object] = {"tags": ["b"], "sizes": [1.0]}
    assert answered(lists, good, {**good, **change}, good) == [101.0, [(where, found)], 101.0]


def test_a_list_where_one_value_belongs_is_still_refused(predictor: Predictor):
    assert answered(predictor, {**GOOD, "machine": ["a"]}) == [[("column 'machine'", "the array ['a']")]]


# --- the verb --------------------------------------------------------------------------------------------------------


def ask(registry: Registry, content: str, **options: Any) -> tuple[ExitCode, list[dict[str, Any]], str]:
    out, log = io.StringIO(), io.StringIO()
    root = Path(registry.folder).parent
    code = run_predict(registry=root, name="m", source=io.StringIO(content), out=out, log=log, **options)
    return code, [json.loads(line) for line in out.getvalue().splitlines()], log.getvalue()


def test_each_line_is_answered_in_order_with_its_number(registry: Registry):
    good = '{"beta1": 1.5, "weekday": 2, "machine": "a"}'
    bad = '{"beta1": "1.5", "weekday": 8, "machine": "a"}'
    code, answers, log = ask(registry, f"{good}\n\nnot json\n{bad}\n{good}\n")
    assert code is ExitCode.BAD_INPUT
    assert [answer["line"] for answer in answers] == [1, 3, 4, 5]
    assert [answer.get("prediction") for answer in answers] == [23.0, None, None, 23.0]
    assert [problem["where"] for problem in answers[1]["error"]] == ["standard input, line 3"]
    assert [problem["where"] for problem in answers[2]["error"]] == ["column 'beta1'", "column 'weekday'"]
    assert set(answers[2]["error"][0]) == {"where", "found", "expected", "action"}
    assert log == "2 of 4 rows answered by version 1 of m; 2 refused\n"


def test_good_csv_is_answered_and_says_so(registry: Registry):
    rows = "".join(f"{number},2,a,0\n" for number in range(3000))
    code, answers, log = ask(registry, f"beta1,weekday,machine,humidity\n{rows}", format="csv", version=1)
    assert code is ExitCode.OK
    assert answers == [{"line": number + 2, "prediction": 20.0 + 2 * number} for number in range(3000)]
    assert log == "3,000 of 3,000 rows answered by version 1 of m\n"


def test_csv_is_read_as_training_read_it(registry: Registry, model: Path, bundle: Path, tmp_path: Path):
    other = Registry(tmp_path, "m")
    provenance = Provenance(config={"data": {"csv": {"delimiter": ";", "quote": "'", "encoding": "utf-8"}}})
    other.publish(model_dir=model, bundle={"schema.pbtxt": bundle / "schema.pbtxt"}, provenance=provenance)
    code, answers, _ = ask(other, "beta1;weekday;machine\n1.5;2;'a'\n")
    assert (code, answers) == (ExitCode.OK, [{"line": 2, "prediction": 23.0}])


def test_numbers_and_what_is_missing_are_written_as_in_training(model: Path, bundle: Path, tmp_path: Path):
    other = Registry(tmp_path, "m")
    provenance = Provenance(config={"data": {"csv": {"delimiter": ";", "decimal": ",", "missing": ["?"]}}})
    other.publish(model_dir=model, bundle={"schema.pbtxt": bundle / "schema.pbtxt"}, provenance=provenance)
    header = "beta1;weekday;machine;pressure\n"
    good, missing, pointed = "1,5;2;a;2,25", "1,5;2;a;?", "1.5;2;a;?"
    _, answers, _ = ask(other, f"{header}{good}\n{missing}\n{pointed}\n")
    assert [answer.get("prediction") for answer in answers] == [pytest.approx(25.25), 23.0, None]
    assert answers[2]["error"][0]["found"] == "the text '1.5'"
    _, all_good, _ = ask(other, f"{header}{good}\n{missing}\n")  # no value has to be looked at on its own
    assert all_good == answers[:2]
    _, as_json, _ = ask(other, '{"beta1": 1.5, "weekday": 2, "machine": "a", "pressure": 2.25}\n')
    assert as_json[0]["prediction"] == answers[0]["prediction"]


@pytest.mark.slow
def test_the_command_reads_standard_input(registry: Registry):
    code = (
        "import sys; from serving.predictor import run_predict; "
        "sys.exit(run_predict(registry=sys.argv[1], name='m', out=sys.stdout))"
    )
    command = [sys.executable, "-c", code, str(Path(registry.folder).parent)]
    row = b'{"beta1": 1.5, "weekday": 2, "machine": "a"}'
    ended = subprocess.run(command, input=row, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, b'{"line": 1, "prediction": 23.0}\n')
    assert ended.stderr.decode().endswith("1 of 1 rows answered by version 1 of m\n")


def test_nothing_published_and_a_version_that_is_not_there_are_told(registry: Registry, tmp_path: Path):
    with pytest.raises(BadInput, match="no published model"):
        ask(Registry(tmp_path, "m"), "{}")
    with pytest.raises(BadInput, match="no version 7"):
        ask(registry, "{}", version=7)


def test_a_file_that_cannot_be_used_is_told(registry: Registry, tmp_path: Path):
    root = Path(registry.folder).parent
    with pytest.raises(BadInput, match="No such file"):
        run_predict(registry=root, name="m", source=tmp_path / "none", out=io.StringIO())
