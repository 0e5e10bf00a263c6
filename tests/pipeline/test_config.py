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


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join(['*' + before] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "more than 100,000 values, its aliases unfolded"),
        ("x: &x [*x]\n", "line 9: found an alias of what it stands in"),
        ("x: &x {y: *x}\n", "line 9: found an alias of what it stands in"),
        ("x: " + "[" * 900 + "]" * 900 + "\n", "brackets within brackets, too many"),
        ("x: 2024-13-41\n", "a value that YAML cannot read (month must be in 1..12)"),
        (f"x: {'9' * 5000}\n", "a value that YAML cannot read"),
        (f"x: [0x{'f' * 5000}]\n", "a number of thousands of digits"),
        ("x: *nobody\n", "line 9, column 4: found undefined alias"),
        ("\tx: 1\n", "line 9, column 1: found character that cannot start any token"),
        ("x: 1\0\n", "control characters are not allowed"),
        ("---\nname: two\n", "another document"),
        ("1: x\n", "expected keys that are texts"),
    ],
)
def test_yaml_that_no_configuration_is_made_of(write, text, said):
    found = problems_of(write(GOOD + text))
    assert said in "".join(found.values())


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_bytes(GOOD.encode() + "# größe".encode("latin-1"))
    assert "line 9: found byte 0xf6, which is not UTF-8" in "".join(problems_of(path).values())
    path.write_bytes(b"a" * (5 << 20))
    assert "more than 4 MiB" in "".join(problems_of(path).values())
    assert "Is a directory" in "".join(problems_of(tmp_path).values())


def test_aliases_may_save_writing(write):
    shared = "features:\n  miles: &number {kind: numeric, clip: {min: 0}}\n  far: {<<: *number, column: miles}\n"
    start, end = GOOD.index("features"), GOOD.index("evaluation")
    config = config_module.load_config(write(GOOD[:start] + shared + GOOD[end:]))
    assert config.features["far"].clip.min == 0


def test_numbers_are_meant_as_numbers(write):
    found = problems_of(
        write(
            GOOD.replace("path:", f"window: yes, splits: {{train: true, eval: 1, test: {2**70}}}, path:")
            + "training: {learning_rate: .inf, epochs: 1.5}\nmodel: {hidden_units: [true]}\n"
            "validation: {max_drift: .nan, max_value_change: on}\n"
        )
    )
    assert {where.rpartition(", ")[2]: text.partition("expected ")[2] for where, text in found.items()} == {
        "data.window": "a number. Correct the value.",
        "data.splits.train": "a number. Correct the value.",
        "data.splits.test": "a whole number of 64 bits. Correct the value.",
        "training.learning_rate": "a finite number. Correct the value.",
        "training.epochs": "a whole number. Correct the value.",
        "model.hidden_units.0": "a number. Correct the value.",
        "validation.max_drift": "a finite number. Correct the value.",
        "validation.max_value_change": "a number. Correct the value.",
    }


def test_on_and_off_are_words_where_words_are_asked_for(write):
    config = config_module.load_config(
        write(GOOD + "training: {xla: on}\nvalidation: {severity: {span_drift: off, rows: warning}}\n")
    )
    assert config.training.xla == "on"
    assert config.validation.severity == {"span_drift": "off", "rows": "warning"}


def test_how_a_csv_cannot_be_written(write):
    csv = "csv: {delimiter: ö, quote: xx, encoding: rot13}"
    found = problems_of(write(GOOD.replace("path:", f"{csv}, path:")))
    assert "one ASCII character" in found["line 2, data.csv.delimiter"]
    assert "a text of 1 or fewer characters" in found["line 2, data.csv.quote"]
    assert "an encoding of text that Python knows" in found["line 2, data.csv.encoding"]
    found = problems_of(write(GOOD.replace("path:", "csv: {delimiter: ';', quote: ';'}, path:")))
    assert "that differ" in found["line 2, data.csv"]


def test_columns_that_decide_on_rows_are_the_schemas(write):
    found = problems_of(write(GOOD.replace("path:", "required: [tipp], split_by: {columns: [aria]}, path:")))
    assert "Did you mean 'tip'?" in found["line 2, data.required.0"]
    assert "Did you mean 'area'?" in found["line 2, data.split_by.columns.0"]
    found = problems_of(write(GOOD.replace("path:", "split_by: {time: when}, path:")))
    assert "column 'when', which the schema" in found["line 2, data.split_by.time"]


def test_a_constant_that_nothing_uses(write):
    found = problems_of(write(GOOD.replace("{kind: numeric}", "{kind: numeric, constant: -1}")))
    assert "`missing: constant`" in found["line 6, features.miles"]


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


def test_folders_that_tensorflow_would_take_for_patterns_are_refused(tmp_path: Path):
    path = tmp_path / "environment.yaml"
    path.write_text('workspace: "/data/[a] b"\nregistry: ""\n')
    with pytest.raises(BadInput) as caught:
        config_module.load_environment(path)
    first, second = map(str, caught.value.problems)
    assert first.startswith(f"{path}, line 1, workspace: found '/data/[a] b'; expected a folder without * ? [ ] ")
    assert second.startswith(f"{path}, line 2, registry: found ''; expected a text of 1 or more characters")
    path.write_text('workspace: "/data/größe 2, (b)"\n')
    assert config_module.load_environment(path).workspace == "/data/größe 2, (b)"
