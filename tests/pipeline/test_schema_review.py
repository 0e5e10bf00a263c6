"""The schema in words; what new data would change in it; taking that over without touching the rest of the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from evergreen.errors import BadInput
from pipeline import config, schema_review

SCHEMA = """\
# Reviewed in May.
default_environment: "TRAINING"
default_environment: "SERVING"
# Metres, never negative.
feature { name: "length" type: INT int_domain { min: 0 max: 50 } presence { min_fraction: 1 } shape { dim { size: 1 }}}
# The colours of the catalogue: "red {" is none.
feature {
  name: "colour"
  type: BYTES
  domain: "colours"
  presence { min_fraction: 0.5 min_count: 1 }
}
feature {
  name: "retired"
  type: FLOAT
}
# The label.
feature {
  name: "price"
  type: FLOAT
  presence { min_fraction: 1.0 min_count: 1 }
  shape { dim { size: 1 } }
  not_in_environment: "SERVING"
}
string_domain { name: "colours" value: "blue" value: "red" }
"""
CLEAN = "length,colour,retired,price\n" + "".join(
    f"{row % 40},{('red', 'blue')[row % 2]},1.5,{row}.5\n" for row in range(200)
)


@pytest.fixture
def problem(tmp_path: Path) -> config.Config:
    (tmp_path / "schema.pbtxt").write_text(SCHEMA)
    deliver(tmp_path, 1, CLEAN)
    return configure(tmp_path)


def configure(folder: Path, *, schema: bool = True) -> config.Config:
    document = {
        "name": "prices",
        "data": {"path": f"{folder}/span-{{SPAN}}/*.csv"},
        "label": {"column": "price", "task": "regression"},
        "features": {"length": {"kind": "numeric"}, "paint": {"kind": "vocabulary", "column": "colour"}},
        "evaluation": {"metrics": ["rmse"], "slices": [["colour"]]},
        **({"schema": str(folder / "schema.pbtxt")} if schema else {}),
    }
    path = folder / "prices.yaml"
    path.write_text(yaml.safe_dump(document))
    return config.load_config(path)


def deliver(folder: Path, span: int, text: str) -> None:
    path = folder / f"span-{span}" / "data.csv"
    path.parent.mkdir()
    path.write_text(text)


def words(problem: config.Config) -> dict[str, str]:
    return {change.column: change.words for change in schema_review.diff(problem).changes}


def features(folder: Path) -> dict[str, schema_pb2.Feature]:
    schema = text_format.Parse((folder / "schema.pbtxt").read_text(), schema_pb2.Schema())
    return {feature.name: feature for feature in schema.feature}


def test_show_puts_every_column_into_words(problem: config.Config):
    lines = schema_review.show(problem).splitlines()
    cells = {line.split("  ")[0]: [cell.strip() for cell in line.split("  ") if cell.strip()][1:] for line in lines[3:]}
    assert cells == {
        "length": ["whole number", "in every row", "0 to 50", "numeric"],
        "colour": ["text", "in 50% of the rows", "blue, red", "vocabulary paint, slice"],
        "retired": ["number", "no", "any", "-"],
        "price": ["number", "in every row", "any", "the label (regression)"],
    }


def test_data_that_fit_change_nothing(problem: config.Config, tmp_path: Path):
    changes = schema_review.diff(problem)
    assert changes.told() == f"{tmp_path}/schema.pbtxt holds for 200 rows of span 1: nothing would change."
    assert schema_review.accept(problem, changes).endswith("nothing to accept.")
    assert (tmp_path / "schema.pbtxt").read_text() == SCHEMA


def test_diff_tells_every_change_of_the_newest_span(problem: config.Config, tmp_path: Path):
    rows = [f"{'' if row % 4 == 0 else row},{('red', 'green', '')[row % 3]},{row}.5,x{row}" for row in range(200)]
    deliver(tmp_path, 2, "length,colour,price,serial\n" + "\n".join(rows) + "\n")
    assert words(problem) == {
        "length": "missing in 25.0% of the rows, at most 0.0% may be; up to 199, the most was 50",
        "colour": "new value 'green' (67 rows), 50.0% of the rows",
        "retired": "no longer among the data's columns",
        "serial": "a new column of texts, 200 different values",
    }
    assert (tmp_path / "schema.pbtxt").read_text() == SCHEMA
    assert schema_review.diff(problem, spans_="1").changes == []


def test_a_wider_type_is_told_with_an_example(problem: config.Config, tmp_path: Path):
    rows = [f"{'n/a' if row == 77 else row % 40},red,1.0,{row}" for row in range(200)]
    deliver(tmp_path, 2, "length,colour,retired,price\n" + "\n".join(rows) + "\n")
    assert words(problem) == {"length": "whole number becomes text (such as 'n/a')"}


def test_accept_changes_only_what_differs(problem: config.Config, tmp_path: Path):
    rows = [f"{'' if row % 4 == 0 else row},{('red', 'green')[row % 2]},{row}.5,{row % 5}" for row in range(2_000)]
    deliver(tmp_path, 2, "length,colour,price,shelf\n" + "\n".join(rows) + "\n")
    told = schema_review.accept(problem, schema_review.diff(problem))
    assert "git diff" in told
    accepted = features(tmp_path)
    assert list(accepted) == ["length", "colour", "price", "shelf"]
    assert accepted["length"].int_domain.max == 1_999
    assert 0.5 < accepted["length"].presence.min_fraction < 0.75
    assert not accepted["length"].HasField("shape")
    assert list(accepted["colour"].string_domain.value) == ["blue", "green", "red"]
    assert accepted["shelf"].type == schema_pb2.INT
    # Comments stay, and so does every feature that is as it was; the old file lies beside.
    text = (tmp_path / "schema.pbtxt").read_text()
    assert text.startswith("# Reviewed in May.\n")
    assert "# Metres, never negative.\n" in text
    assert SCHEMA[SCHEMA.index("# The label.") : SCHEMA.index("string_domain {")] in text
    assert (tmp_path / "schema.pbtxt.bak").read_text() == SCHEMA
    # What was accepted is no change any more.
    assert schema_review.diff(problem).changes == []


def test_one_column_can_be_accepted_alone(problem: config.Config, tmp_path: Path):
    deliver(tmp_path, 2, CLEAN.replace("blue", "green").replace("\n39,", "\n390,"))
    changes = schema_review.diff(problem)
    schema_review.accept(problem, changes, columns=["length"])
    assert features(tmp_path)["length"].int_domain.max == 390
    assert not features(tmp_path)["colour"].HasField("string_domain")
    with pytest.raises(
        BadInput, match=r"--column lenght: found no change of that column; expected one of length, colour"
    ):
        schema_review.accept(problem, changes, columns=["lenght"])


def test_a_column_that_the_configuration_reads_is_not_taken_out(problem: config.Config, tmp_path: Path):
    deliver(tmp_path, 2, "\n".join(line.split(",", 1)[1] for line in CLEAN.splitlines()) + "\n")
    with pytest.raises(BadInput, match=r"no longer among the data's columns.*reads it \(numeric\)"):
        schema_review.accept(problem, schema_review.diff(problem))
    assert (tmp_path / "schema.pbtxt").read_text() == SCHEMA


def test_without_a_schema_the_first_one_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    deliver(tmp_path, 1, CLEAN)
    problem = configure(tmp_path, schema=False)
    with pytest.raises(BadInput, match="found no schema"):
        schema_review.show(problem)
    told = schema_review.accept(problem, schema_review.diff(problem))
    assert "Add `schema: schemas/prices/schema.pbtxt`" in told
    schema = text_format.Parse((tmp_path / "schemas/prices/schema.pbtxt").read_text(), schema_pb2.Schema())
    assert [feature.name for feature in schema.feature] == ["length", "colour", "retired", "price"]
    assert list(schema.feature[1].string_domain.value) == ["blue", "red"]


def test_a_file_without_a_header_has_the_columns_of_the_schema(problem: config.Config, tmp_path: Path):
    deliver(tmp_path, 2, CLEAN.replace("\n39,", "\n390,").split("\n", 1)[1])
    csv_format = problem.data.csv.model_copy(update={"header": False})
    headless = problem.model_copy(update={"data": problem.data.model_copy(update={"csv": csv_format})})
    assert words(headless) == {"length": "up to 390, the most was 50"}


def test_several_values_a_row_where_the_schema_allows_one_are_told(tmp_path: Path):
    import pyarrow as pa
    from pyarrow import parquet

    (tmp_path / "schema.pbtxt").write_text(SCHEMA)
    deliver(tmp_path, 1, CLEAN)
    problem = configure(tmp_path)
    columns = {
        "length": pa.array([[1, 2], [3]] * 100),
        "colour": pa.array(["red", "blue"] * 100),
        "retired": pa.array([1.5] * 200),
        "price": pa.array([float(row) for row in range(200)]),
    }
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    data = problem.data.model_copy(update={"path": f"{tmp_path}/t.parquet", "format": "parquet"})
    listed = problem.model_copy(update={"data": data})
    changes = schema_review.diff(listed)
    assert [(change.column, change.words) for change in changes.changes] == [
        ("length", "up to 2 values a row, the shape allows one")
    ]
    schema_review.accept(listed, changes)
    assert "shape" not in (tmp_path / "schema.pbtxt").read_text().split("colour")[0]
    assert not schema_review.diff(listed).changes


def test_a_label_that_some_rows_lack_changes_nothing(problem: config.Config, tmp_path: Path):
    deliver(tmp_path, 2, CLEAN.replace(",7.5\n", ",\n"))
    assert not schema_review.diff(problem).changes
