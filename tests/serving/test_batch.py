"""Whole files through Beam: every row comes out, in order, with the answer that it gets when it is asked alone."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from evergreen.errors import BadInput, ExitCode
from evergreen.registry import Provenance, Registry
from serving import batch
from serving.predictor import Predictor
from serving.rows import Text
from tests import models

HEADER = "beta1,weekday,machine,pressure,note,key"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    root = tmp_path_factory.mktemp("registry")
    (root / "schema.pbtxt").write_text(models.SCHEMA)
    registry = Registry(root / "registry", "m")
    registry.publish(
        model_dir=models.save_regression(root / "model"),
        bundle={"schema.pbtxt": root / "schema.pbtxt"},
        provenance=Provenance(),
    )
    return registry


def run(registry: Registry, *sources: Path, output: Path, **options: Any) -> tuple[ExitCode, str]:
    log = io.StringIO()
    code = batch.run_batch(
        registry=Path(registry.folder).parent,
        name="m",
        sources=[str(source) for source in sources],
        output=str(output),
        log=log,
        **options,
    )
    return code, log.getvalue()


def table(output: Path, *names: str) -> pa.Table:
    parts = sorted(path for path in output.iterdir() if path.name.startswith("part-"))
    read = parquet.read_table if parts[0].suffix == ".parquet" else arrow_csv.read_csv
    tables = [read(part) for part in parts]
    return pa.concat_tables([part.select(names) if names else part for part in tables])


def test_rows_of_every_kind_are_answered_as_they_are_alone(registry: Registry, tmp_path: Path):
    cells = [
        "1.5,2,a,,,k0", "1.5,2,b,3.5,x,k1", ",2,a,,,k2", "1.5,9,a,,,k3", "x,2,a,,,k4", "1e39,2,a,,,k5", "nan,2,a,,,k6",
        "1.5,2,c,,,k7", "1.5,2,,,,k8", "1.5,2.5,a,-1,,k9", " 1.5,2,a,,other,k10", "1.5,2,a,inf,,k11",
    ]  # fmt: skip
    rows = tmp_path / "rows.csv"
    rows.write_text("\n".join([HEADER, *cells]) + "\n")
    code, _ = run(registry, rows, output=tmp_path / "out")
    found = table(tmp_path / "out").to_pylist()
    assert code is ExitCode.BAD_INPUT
    assert [row["key"] for row in found] == [f"k{n}" for n in range(len(cells))]
    predictor = Predictor.from_registry(registry)
    names = HEADER.split(",")[:-1]
    for line, row in zip(cells, found, strict=True):
        (alone,) = predictor.predict([dict(zip(names, map(Text, line.split(",")), strict=False))])
        assert row["prediction"] == (alone.outputs or {}).get("prediction"), line
        assert (row["problem"] is None) == (not alone.problems), line
        for problem in alone.problems:
            assert f"{problem.where}: found {problem.found}" in row["problem"]


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_file_that_is_dealt_out_comes_out_whole_and_in_order(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: Any
):
    monkeypatch.setattr(batch, "_PIECE_BYTES", 1000)
    numbers = range(500)
    first, second = tmp_path / "a.csv", tmp_path / "b.parquet"
    first.write_text("\n".join(["beta1,weekday,machine,key", *(f"{n}.5,1,a,{n}" for n in numbers)]))  # no last line end
    keyed = {"beta1": [n + 0.5 for n in numbers], "weekday": [1] * 500, "machine": ["b"] * 500}
    parquet.write_table(pa.table({**keyed, "key": [str(n) for n in numbers]}), second, row_group_size=200)
    code, log = run(registry, tmp_path / "[ab].*", output=tmp_path / "out", format=format)
    assert code is ExitCode.OK
    assert log == f"1,000 rows answered by version 1 of m, in {tmp_path / 'out'}\n"
    parts = [path.name for path in sorted((tmp_path / "out").iterdir())]
    assert len(parts) > 6
    found = table(tmp_path / "out", "key", "prediction").to_pydict()
    assert list(map(int, found["key"])) == [*numbers, *numbers]
    assert list(map(float, found["prediction"])) == [
        *(2 * n + 11.0 for n in numbers),
        *(2 * n + 111.0 for n in numbers),
    ]
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == {
        "model": "m", "version": 1, "rows": 1000, "refused": 0, "broken_lines": 0, "shown": [],
    }  # fmt: skip


def test_broken_lines_are_told_and_cost_no_other(registry: Registry, tmp_path: Path):
    rows = tmp_path / "rows.csv"
    rows.write_text("beta1,weekday,machine\n1.5,2,a\n1.5,2\n2.5,2,a\n")
    code, log = run(registry, rows, output=tmp_path / "out")
    assert code is ExitCode.BAD_INPUT
    assert log.startswith("2 rows answered")
    assert "1 refused" in log
    assert table(tmp_path / "out")["prediction"].to_pylist() == [23.0, 25.0]
    (shown,) = json.loads((tmp_path / "out" / "summary.json").read_text())["shown"]
    assert shown == f"{rows}: 2 fields, not 3: 1.5,2"


def test_a_csv_is_read_as_training_read_it(registry: Registry, tmp_path: Path):
    other = Registry(tmp_path / "registry", "m")
    bundle = {"schema.pbtxt": Path(registry.bundle_dir(1)) / "schema.pbtxt"}
    written = Provenance(config={"data": {"csv": {"delimiter": ";", "decimal": ",", "missing": ["?"]}}})
    other.publish(model_dir=registry.model_dir(1), bundle=bundle, provenance=written)
    rows = tmp_path / "rows.csv"
    rows.write_text("beta1;weekday;machine;pressure;note\n1,5;2;a;?;x\n1.5;2;a;2,25;?\n1,5;2;a;2,25;?\n")
    code, _ = run(other, rows, output=tmp_path / "out", format="parquet")
    found = table(tmp_path / "out")
    assert code is ExitCode.BAD_INPUT
    assert found["prediction"].to_pylist() == [1023.0, None, 25.25]  # a note counts 1,000, and the last row has none
    assert "found the text '1.5'" in found["problem"].to_pylist()[1]
    assert found["note"].to_pylist() == ["x", "?", "?"]  # what comes in comes out


def test_what_cannot_be_answered_at_all_is_told_together_and_leaves_nothing(registry: Registry, tmp_path: Path):
    (tmp_path / "a.csv").write_text("beta1,machine\n1.5,a\n")
    (tmp_path / "b.csv").write_text("beta1,weekday,machine,prediction\n1.5,2,a,7\n")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(BadInput) as caught:
        run(registry, tmp_path / "a.csv", tmp_path / "b.csv", output=tmp_path / "out")
    assert [(problem.where, problem.found) for problem in caught.value.problems] == [
        (str(tmp_path / "a.csv"), "no column weekday"),
        (str(tmp_path / "b.csv"), "the column prediction"),
    ]
    assert sorted(tmp_path.iterdir()) == before


def test_files_that_are_none_are_told_before_a_model_is_loaded(registry: Registry, tmp_path: Path):
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "twice.csv").write_text("a,a\n1,2\n")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(BadInput) as caught:
        run(registry, *(tmp_path / f for f in ("empty.csv", "twice.csv", "broken.parquet")), output=tmp_path / "out")
    assert [Path(problem.where.partition(",")[0]).name for problem in caught.value.problems] == [
        "empty.csv", "twice.csv", "broken.parquet",
    ]  # fmt: skip
    (tmp_path / "rows.xlsx").touch()
    with pytest.raises(BadInput, match=r"no file.*another kind of file|another kind"):
        run(registry, tmp_path / "none.csv", tmp_path / "rows.xlsx", output=tmp_path / "out")


def test_an_output_that_is_there_is_never_touched(registry: Registry, tmp_path: Path):
    (tmp_path / "rows.csv").write_text("beta1,weekday,machine\n1.5,2,a\n")
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match="something there already"):
        run(registry, tmp_path / "rows.csv", output=tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_classifier_answers_with_class_and_probabilities(tmp_path: Path, format: Any):
    registry = Registry(tmp_path / "registry", "m")
    (tmp_path / "schema.pbtxt").write_text('feature { name: "beta1" type: FLOAT presence { min_fraction: 1.0 } }')
    registry.publish(
        model_dir=models.save_classifier(tmp_path / "model"),
        bundle={"schema.pbtxt": tmp_path / "schema.pbtxt"},
        provenance=Provenance(),
    )
    parquet.write_table(pa.table({"beta1": [0.0, None, 3.0]}), tmp_path / "rows.parquet")
    run(registry, tmp_path / "rows.parquet", output=tmp_path / "out", format=format)
    found = table(tmp_path / "out").to_pydict()
    assert found["prediction"] == ["nö", "" if format == "csv" else None, "yes"]
    if format == "csv":
        assert found["probabilities_1"][::2] == pytest.approx([0.5, 0.9526], rel=1e-3)
        assert found["probabilities_1"][1] is None
    else:
        assert found["probabilities"][1] is None
        assert found["probabilities"][2] == pytest.approx([0.0474, 0.9526], rel=1e-2)
    assert [problem or None for problem in found["problem"]][::2] == [None, None]
