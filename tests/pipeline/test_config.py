"""Configuration: every mistake at once, with file, line and key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from evergreen.errors import BadInput
from evergreen.revision import ROOT
from pipeline import config as config_module

GOOD = """\
name: taxi
data: {path: data/x/*.csv, generator: datagen.humidity}
schema: SCHEMA
label: {column: tip, task: regression}
features:
  miles: {kind: numeric}
  area: {kind: identity, size: 77}
evaluation: {metrics: [rmse]}
"""

SCHEMA = """\
feature {name: "miles" type: FLOAT}
feature {name: "area" type: INT}
feature {name: "company" type: BYTES}
feature {name: "tip" type: FLOAT}
"""


@pytest.fixture
def write(tmp_path: Path):
    schema = tmp_path / "schema.pbtxt"
    schema.write_text(SCHEMA)

    def writer(text: str) -> Path:
        path = tmp_path / "taxi.yaml"
        path.write_text(text.replace("SCHEMA", str(schema)))
        return path

    return writer


def problems_of(path: Path) -> dict[str, str]:
    with pytest.raises(BadInput) as caught:
        config_module.load_config(path)
    return {problem.where.removeprefix(f"{path}, "): str(problem) for problem in caught.value.problems}


def test_a_sound_configuration_loads(write):
    config = config_module.load_config(write(GOOD))
    assert config.name == "taxi"
    assert config.preprocessing().features.keys() == {"miles", "area"}
    assert config.data.splits == {"train": 8, "eval": 1, "test": 1}


def test_the_committed_configurations_load(monkeypatch):
    monkeypatch.chdir(ROOT)
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        config_module.load_config(path)
    for path in sorted((ROOT / "configs" / "environments").glob("*.yaml")):
        config_module.load_environment(path)


def test_mistakes_of_every_kind_are_told_together(write):
    found = problems_of(
        write(
            GOOD.replace("generator", "genrator")
            .replace("task: regression", "task: regresion")
            .replace("miles: {kind: numeric}", "mile: {kind: numeric}")
            .replace("kind: identity", "kind: identty")
            .replace("[rmse]", "[rmse, f2]")
        )
    )
    assert set(found) == {
        "line 2, data.genrator",
        "line 4, label.task",
        "line 6, features.mile",
        "line 7, features.area",
        "line 8, evaluation.metrics.1",
    }
    assert "Did you mean 'generator'?" in found["line 2, data.genrator"]
    assert "lacks" in found["line 6, features.mile"]
    assert "Did you mean 'miles'?" in found["line 6, features.mile"]


def test_a_missing_key_is_named(write):
    found = problems_of(write(GOOD.replace("label: {column: tip, task: regression}\n", "")))
    assert set(found) == {"label"}


def test_a_key_that_stands_twice_is_refused(write):
    found = problems_of(write(GOOD + "name: other\n"))
    assert set(found) == {"line 9, name"}
    assert "line 1" in found["line 9, name"]


def test_a_feature_whose_column_has_another_type(write):
    found = problems_of(write(GOOD.replace("miles: {kind: numeric}", "company: {kind: numeric}")))
    assert "type BYTES" in found["line 6, features.company"]


def test_the_label_is_no_feature(write):
    found = problems_of(write(GOOD.replace("miles: {kind: numeric}", "x: {kind: numeric, column: tip}")))
    assert "copy its answer" in found["line 6, features.x"]


def test_a_feature_whose_name_keras_refuses(write):
    found = problems_of(write(GOOD.replace("miles: {kind: numeric}", "a/b: {kind: numeric, column: miles}")))
    assert set(found) == {"line 6, features.a/b"}


def test_metrics_have_to_fit_the_task(write):
    found = problems_of(write(GOOD.replace("[rmse]", "[auc]")))
    assert "a metric of regression" in found["line 8, evaluation.metrics.0"]


def test_a_bound_needs_its_metric_and_a_limit(write):
    found = problems_of(write(GOOD.replace("{metrics: [rmse]}", "{metrics: [rmse], bounds: {mae: {}}}")))
    assert "line 8, evaluation.bounds.mae" in found


def test_a_schema_that_is_not_there(write):
    found = problems_of(write(GOOD.replace("schema: SCHEMA", "schema: nowhere.pbtxt")))
    assert "no file nowhere.pbtxt" in found["line 3, schema"]


def test_data_that_are_not_there(write):
    found = problems_of(write(GOOD.replace(", generator: datagen.humidity", "")))
    assert any("data/x/*.csv" in text for text in found.values())


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "an empty file"), ("- a\n", "a list"), ("a: [1\n", "valid YAML"), ("a: !!python/object:os.x {}\n", "YAML")],
)
def test_files_that_are_no_configuration(write, text, said):
    assert said in "".join(problems_of(write(text)).values())


def test_a_mistake_is_told_without_loading_tensorflow(write):
    path = write(GOOD.replace("kind: identity", "kind: identty"))
    program = (
        "import sys, pathlib\n"
        "from pipeline import config\n"
        "from evergreen.errors import BadInput\n"
        "try:\n    config.load_config(pathlib.Path(sys.argv[1]))\n"
        "except BadInput:\n    sys.exit(10 + ('tensorflow' in sys.modules or 'tfx' in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, check=False)
    assert done.returncode == 10


def test_a_mistake_in_a_check_of_the_data_is_told_with_key_and_position(write):
    checks = """\
validation:
  checks:
    - row: miles <= mils
    - column: share(company == 3) < 0.1
      where: area >
"""
    path = write(GOOD + checks)
    with pytest.raises(BadInput) as caught:
        config_module.load_config(path)
    first, second, third = caught.value.problems
    line = (GOOD + checks).splitlines().index("    - row: miles <= mils") + 1
    assert first.where == f"{path}, line {line}, validation.checks.0.row, position 10"
    assert "column 'mils'" in first.found
    assert first.action == "Did you mean 'miles'?"
    assert f"line {line + 1}, validation.checks.1.column, position 18" in second.where
    assert f"line {line + 2}, validation.checks.1.where" in third.where


def test_mistakes_in_features_and_weights_are_told_with_their_keys(write):
    features = """
  area: {kind: buckets, quantiles: 4, boundaries: [1, 2]}
  company: {kind: calendar, formats: ["%Q"]}
  miles: {kind: calendar, formats: [epoch_seconds]}
  miles_missing: {kind: numeric, column: miles}
  far: {kind: numeric, column: miles, indicator: true}
  far_missing: {kind: numeric, column: area}
  when: {kind: cyclical, column: company, period: 24}
  own: {kind: custom, function: no.such.module, columns: [mile]}
  cell: {kind: cross, parts: [{column: company, boundaries: [1]}, {column: area, buckets: 5}]}
"""
    start, end = GOOD.index("\n  miles"), GOOD.index("evaluation")
    found = problems_of(
        write(f"{GOOD[:start]}{features}weights: {{column: company, half_life_spans: 2}}\n{GOOD[end:]}")
    )
    said = {where.rpartition(", ")[2]: text for where, text in found.items()}
    assert "exactly one of quantiles, boundaries, not quantiles and boundaries" in said["features.area"]
    assert "%Q is not known" in said["features.company.formats.0"]
    assert "found column 'miles' of type FLOAT" in said["features.miles"]
    assert "the column 'far_missing', which feature 'far' makes too" in said["features.far_missing"]
    assert "expected type INT or FLOAT" in said["features.when.column"]
    assert "module cannot be imported" in said["features.own.function"]
    assert "Did you mean 'miles'?" in said["features.own.columns.0"]
    assert "expected type INT or FLOAT" in said["features.cell.parts.0.column"]
    assert "column 'company' of type BYTES" in said["weights.column"]
    assert "found no data.span_column" in said["weights.half_life_spans"]
    assert len(said) == 10


def test_a_mistake_in_a_search_space_is_told_with_its_own_line(write):
    found = problems_of(
        write(
            GOOD
            + """\
tuning:
  space:
    training.learning_rat: {kind: log, min: 0.001, max: 0.1}
    training.gradient_clip: {kind: log, min: 0, max: 0.1}
    model.hidden_units: {kind: choice, values: [[4], 3], when: {model.knd: [deep]}}
    training.batch_size: {kind: int, min: 32, max: 16}
    speed: {kind: int, min: 1, max: 2}
"""
        )
    )
    assert set(found) == {
        "line 11, tuning.space.training.learning_rat",
        "line 12, tuning.space.training.gradient_clip",
        "line 13, tuning.space.model.hidden_units",
        "line 14, tuning.space.training.batch_size",
        "line 15, tuning.space.speed",
    }
    assert "the key training.learning_rate" in found["line 11, tuning.space.training.learning_rat"]
    assert "a condition on a choice of this space" in found["line 13, tuning.space.model.hidden_units"]
    assert "a min below the max of 16" in found["line 14, tuning.space.training.batch_size"]
