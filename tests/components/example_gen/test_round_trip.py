"""Generated tables through the real executor and back out of its shards, in every format: nothing is lost or changed.

What has to come out is worked out here from the generated values, without the code under test: which rows are good, the
value of each cell, and the number of each line in quarantine.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pyarrow import parquet

from tests.components.example_gen.test_executor import everything, quarantine, rows, run, summary, value, write
from tests.components.example_gen.test_formats import example, write_records

Row = Mapping[str, Any]
FORMATS = {"csv": "csv", "parquet": "parquet", "tfrecord": "tfrecord", "gz": "tfrecord"}
"""The format that a file's ending stands for."""
SCHEMA = "".join(
    f'feature {{ name: "{name}" type: {type_} }}'
    for name, type_ in {"k": "INT", "n": "FLOAT", "i": "INT", "s": "BYTES", "y": "FLOAT"}.items()
)
COLUMNS = ("k", "n", "i", "s", "y")
CERTAIN: Sequence[Row] = [{"k": k, "n": k / 7, "i": -k, "s": f"row {k}", "y": 0.5} for k in range(80)]
"""Rows that fill every split, for an empty one is refused."""

NUMBERS = st.one_of(
    st.none(), st.floats(width=64), st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308, 3.4e38, 1e-46, -0.0])
)
WHOLE = st.one_of(
    st.none(), st.integers(-(2**63), 2**63 - 1), st.sampled_from([2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)])
)
TEXTS = st.one_of(
    st.none(),
    st.sampled_from(["", " ", "é", "a,b", 'say "x"', "two\nlines", "two\r\nlines", "null", "NaN", "0", "x" * 5_000]),
    st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6),
)
LABELS = st.one_of(st.none(), st.just(math.nan), st.floats(-1e30, 1e30))
TABLES = st.lists(
    st.fixed_dictionaries({"n": NUMBERS, "i": WHOLE, "s": TEXTS, "y": LABELS}), min_size=1, max_size=25
)  # fmt: skip


def write_csv(path: Path, table: Sequence[Row]) -> None:
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
    writer.writerow(COLUMNS)
    writer.writerows(["" if row[name] is None else row[name] for name in COLUMNS] for row in table)
    path.write_text(sink.getvalue(), encoding="utf-8", newline="")


def write_parquet(path: Path, table: Sequence[Row]) -> None:
    types = {"k": pa.int64(), "n": pa.float64(), "i": pa.int64(), "s": pa.string(), "y": pa.float64()}
    columns = {name: pa.array([row[name] for row in table], type_) for name, type_ in types.items()}
    parquet.write_table(pa.table(columns), path, row_group_size=17)


def write_tfrecord(path: Path, table: Sequence[Row]) -> None:
    write_records(path, [example(**row) for row in table], kind="GZIP" if path.suffix == ".gz" else "")


WRITERS = {"csv": write_csv, "parquet": write_parquet, "tfrecord": write_tfrecord, "gz": write_tfrecord}


def single(number: float | None) -> float | None:
    """Returns a number as a tf.Example holds it: 32 bits, NaN missing."""
    with np.errstate(over="ignore"):
        narrow = None if number is None else float(np.float32(number))
    return None if narrow is None or math.isnan(narrow) else narrow


def expected(row: Row) -> tuple[str | None, dict[str, Any]]:
    """Returns why a row has to be in quarantine (None: it is good), and its values."""
    values = {**row, "n": single(row["n"]), "y": single(row["y"]), "s": (row["s"] or "").encode() or None}
    if values["n"] is not None and math.isinf(values["n"]):
        return "column n: ", values
    return ("column y: no label" if values["y"] is None else None), values


def line_numbers(ending: str, table: Sequence[Row]) -> list[int]:
    """Returns the number of every row in its file; of CSV the physical line, and a text may have several."""
    if ending != "csv":
        return list(range(1, len(table) + 1))
    numbers, line = [], 2
    for row in table:
        numbers.append(line)
        line += 1 + len(re.findall(r"\r\n|\r|\n", row["s"] or ""))
    return numbers


@pytest.mark.slow
@hypothesis_settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    # An example takes seconds: what fails is told as it was found.
    phases=[Phase.explicit, Phase.generate],
)
@given(generated=TABLES)
def test_rows_in_are_rows_out_and_quarantine_in_every_format(generated: list[Row], tmp_path_factory):
    root = tmp_path_factory.mktemp("round-trip")
    schema = write(root, "s.pbtxt", SCHEMA)
    table = [*CERTAIN, *({"k": 1_000 + place, **row} for place, row in enumerate(generated))]
    fates = [expected(row) for row in table]
    good = {row["k"]: values for row, (reason, values) in zip(table, fates, strict=True) if reason is None}
    splits: dict[str, dict[str, list[bytes]]] = {}
    for ending, format_ in FORMATS.items():
        WRITERS[ending](root / f"t.{ending}", table)
        artifact = run(
            root, root / f"out-{ending}", f"t.{ending}", schema=str(schema), format=format_, label="y",
            max_malformed_share=1.0, max_unlabelled_share=1.0,
        )  # fmt: skip
        told, bad, out = summary(artifact), quarantine(artifact), list(everything(artifact).elements())
        assert len(out) + len(bad) == len(table) == sum(told["rows"].values()) + told["quarantined"]
        found = {
            value(row, "k")[0]: {name: (value(row, name) or [None])[0] for name in good[0]} for row in out
        }  # fmt: skip
        assert found == good, ending
        numbers = line_numbers(ending, table)
        wrong = {
            number: reason for number, (reason, _) in zip(numbers, fates, strict=True) if reason is not None
        }  # fmt: skip
        assert sorted(entry["line"] for entry in bad) == sorted(wrong), ending
        for entry in bad:
            assert entry["reason"].startswith(wrong[entry["line"]]), (ending, entry)
            assert entry["file"].endswith(f"t.{ending}")
        assert told["unlabelled"] == sum(reason == "column y: no label" for reason in wrong.values())
        splits[ending] = {split: sorted(rows(artifact, split)) for split in artifact.splits}
    # The same row is in the same split, whatever format it came in.
    assert splits["csv"] == splits["parquet"] == splits["tfrecord"] == splits["gz"]


EXTREMES: Sequence[tuple[str, Any, Any]] = [
    ("n", math.nan, None),
    ("n", math.inf, "column n: "),
    ("n", -math.inf, "column n: "),
    ("n", 1e308, "column n: "),
    ("n", 1e-320, 0.0),
    ("n", 2.0**53 + 2, float(np.float32(2.0**53 + 2))),
    ("i", 2**53 + 1, 2**53 + 1),
    ("i", 2**63 - 1, 2**63 - 1),
    ("i", -(2**63), -(2**63)),
    ("s", "", None),
    ("s", None, None),
    ("s", "NULL", b"NULL"),
    ("s", "x" * (1 << 20), b"x" * (1 << 20)),
]
"""Column, value, and what becomes of it: a value, or (a text) why the row is in quarantine."""


@pytest.mark.parametrize("ending", ["csv", "parquet", "tfrecord"])
def test_extreme_values_are_kept_or_told_in_every_format(tmp_path: Path, ending: str):
    schema = write(tmp_path, "s.pbtxt", SCHEMA)
    table = [*CERTAIN, *({**CERTAIN[1], "k": 100 + at, name: cell} for at, (name, cell, _) in enumerate(EXTREMES))]
    WRITERS[ending](tmp_path / f"t.{ending}", table)
    artifact = run(
        tmp_path, tmp_path / "out", f"t.{ending}", schema=str(schema), format=FORMATS[ending], max_malformed_share=0.1
    )  # fmt: skip
    found = {value(row, "k")[0]: row for row in everything(artifact)}
    reasons = {entry["line"]: entry["reason"] for entry in quarantine(artifact)}
    first = len(CERTAIN) + (2 if ending == "csv" else 1)
    for at, (name, _, fate) in enumerate(EXTREMES):
        if isinstance(fate, str):
            assert 100 + at not in found
            assert reasons[first + at].startswith(fate)
        else:
            assert (value(found[100 + at], name) or [None])[0] == fate, EXTREMES[at]
    assert len(reasons) == sum(isinstance(fate, str) for _, _, fate in EXTREMES)
    said = [reasons[first + at] for at, (_, cell, _) in enumerate(EXTREMES) if cell in (math.inf, 1e308)]
    expected_words = {
        "csv": ["'inf' is not a number", "'1e+308' is too large for a number of 32 bits"],
        "parquet": ["inf is not a finite number", "1e+308 is too large for a number of 32 bits"],
        # A tf.Example holds 32 bits: 1e308 was infinite when it was written.
        "tfrecord": ["inf is not a finite number", "inf is not a finite number"],
    }[ending]
    assert said == [f"column n: {words}" for words in expected_words]


@pytest.mark.parametrize("ending", ["parquet", "tfrecord"])
def test_columns_that_are_not_the_schemas_are_told_in_typed_formats(tmp_path: Path, ending: str):
    from evergreen.errors import BadInput

    schema = write(
        tmp_path, "s.pbtxt",
        'feature { name: "price" type: FLOAT presence { min_fraction: 1 } } feature { name: "n" type: INT }',
    )  # fmt: skip

    def told(table: Sequence[Row]) -> list[tuple[str, str]]:
        path = tmp_path / f"t.{ending}"
        if ending == "parquet":
            parquet.write_table(
                pa.Table.from_pylist(list(table), pa.schema({k: _type(v) for k, v in table[0].items()})), path
            )
        else:
            write_records(path, [example(**row) for row in table])
        with pytest.raises(BadInput) as caught:
            run(tmp_path, tmp_path / "out", path.name, schema=str(schema), format=ending)
        assert all(problem.where.startswith(str(path)) for problem in caught.value.problems)
        return [(problem.found, problem.action) for problem in caught.value.problems]

    renamed = told([{"prize": 1.5, "n": row} for row in range(60)])
    if ending == "parquet":
        assert renamed == [("column 'prize'", "Did you mean 'price'? Rename it in the file.")]
    else:  # a feature may come later in the file: only the unknown one is told
        ((found, action),) = renamed
        assert found == "column 'prize', which the schema does not have"
        assert action.startswith("Did you mean 'price'? Remove it from the file")
    ((found, action),) = told([{"price": None, "n": row} for row in range(60)])
    assert found == "no value in any of 60 rows"
    assert action.startswith("Deliver the file again with this column")
    ((found, _),) = told([{"price": "dear", "n": row} for row in range(60)])
    assert found == "the type string" if ending == "parquet" else "60 of 60 values that are not a number" in found


def _type(cell: object) -> Any:
    return {float: pa.float64(), int: pa.int64(), str: pa.string()}.get(type(cell), pa.float64())
