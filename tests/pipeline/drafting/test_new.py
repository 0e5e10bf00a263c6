"""`new`: what it says of a table is so, what it writes runs, and what it cannot use it refuses in words."""

from __future__ import annotations

import bz2
import decimal
import gzip
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from evergreen.errors import BadInput
from evergreen.settings import Task
from pipeline import config
from pipeline.drafting import leaks, new, profile, table_source

ROWS = 4_000


def write(path: Path, columns: Mapping[str, Sequence[Any]], *, delimiter: str = ",") -> Path:
    """Writes a CSV; None is an empty cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = zip(*columns.values(), strict=True)
    lines = [delimiter.join(columns)]
    lines += [delimiter.join("" if cell is None else str(cell) for cell in row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def create(folder: Path, data: Path | str, label: str, **options: Any) -> new.Made:
    """Runs `new`; everything that it writes goes below `folder`."""
    return new.create(new.Request(data=str(data), label=label, **options), called_from=folder, root=folder)


def problems(folder: Path, data: Path | str, label: str, **options: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        create(folder, data, label, **options)
    return [str(problem) for problem in caught.value.problems]


def nasty() -> dict[str, list[Any]]:
    """Makes a table as real life does: holes, identifiers, two ways to write a date, a column known only afterwards."""
    random = np.random.default_rng(7)
    age = random.integers(18, 90, ROWS)
    income = np.exp(random.normal(10, 1.5, ROWS)).round(2)
    cities = [f"city-{place}" for place in random.integers(0, 12, ROWS)]
    left = (age / 90 + random.normal(0, 0.3, ROWS)) > 0.8
    dates = [f"2024-{1 + row % 12:02d}-{1 + row % 28:02d}" for row in range(ROWS)]
    dates[::3] = [f"{1 + row % 28:02d}.{1 + row % 12:02d}.2024" for row in range(0, ROWS, 3)]
    return {
        "customer_id": [f"c{row:06d}" for row in random.permutation(ROWS)],
        "row": list(range(ROWS)),
        "age": [None if row % 10 == 0 else value for row, value in enumerate(age)],
        "income": list(income),
        "city": [None if row % 7 == 0 else city for row, city in enumerate(cities)],
        "weekday": list(random.integers(0, 7, ROWS)),
        "signed up": dates,
        "newsletter": ["yes" if value else "no" for value in random.integers(0, 2, ROWS)],
        "remark": [f"called on line {row} about bill {row % 977}" for row in range(ROWS)],
        "country": ["DE"] * ROWS,
        "nothing": [None] * ROWS,
        "balance": ["n/a" if row % 20 == 0 else row % 313 / 7 for row in range(ROWS)],
        "exit code": [f"X{int(value)}" for value in left],
        "left": ["gone" if value else "stayed" for value in left],
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> new.Made:
    folder = tmp_path_factory.mktemp("nasty")
    return create(folder, write(folder / "Some Customers.csv", nasty()), "left")


def test_every_column_becomes_what_it_is(made: new.Made):
    kinds = {feature.column: feature.body for feature in made.choices.features}
    assert kinds == {
        "age": {"kind": "numeric", "missing": "median", "indicator": True},
        "income": {"kind": "numeric", "log": "log"},
        "city": {"kind": "vocabulary"},
        "weekday": {"kind": "identity", "size": 7},
        "signed up": {"kind": "calendar", "parts": ["weekday", "month"], "formats": ["iso", "%d.%m.%Y"]},
        "newsletter": {"kind": "boolean"},
        "balance": {"kind": "numeric", "missing": "median", "indicator": True},
        "remark": {"kind": "text", "buckets": 2048},
    }


def test_what_is_no_feature_has_its_reason(made: new.Made):
    reasons = {left.column: left.reason for left in made.choices.left_out}
    assert "an identifier: 100% of its values are different" in reasons["customer_id"]
    assert "an identifier" in reasons["row"]
    assert reasons["country"] == "constant: 'DE' in every row that has a value"
    assert reasons["nothing"] == "no value in any row"
    assert "gives the label away (score 1.000 of 1" in reasons["exit code"]


def test_leaks_and_identifiers_are_warned_of(made: new.Made):
    warned = {warning.split(":")[0] for warning in made.choices.warnings}
    assert warned == {"customer_id", "row", "exit code"}
    told = made.told()
    assert "Warning: exit code: left out, alone it gives the label away" in told
    assert told.endswith(f"Next: {made.command}")


def test_the_files_load_and_say_why(made: new.Made):
    loaded = config.load_config(made.config)
    assert loaded.name == made.name == "some-customers"
    assert loaded.label.task is Task.BINARY
    assert loaded.evaluation.beat_trivial
    assert not loaded.evaluation.bounds
    text = made.config.read_text()
    assert "# exit code: alone it gives the label away" in text
    assert all("#" in line for line in text.splitlines() if "{kind:" in line)
    document = yaml.safe_load(text)
    assert document["features"]["signed_up"]["column"] == "signed up"


def test_the_schema_holds_every_column(made: new.Made):
    schema = text_format.Parse(made.schema.read_text(), schema_pb2.Schema())
    features = {feature.name: feature for feature in schema.feature}
    assert list(features) == list(nasty())
    assert features["left"].not_in_environment == ["SERVING"]
    assert list(features["left"].string_domain.value) == ["gone", "stayed"]
    assert features["income"].presence.min_fraction == 1.0
    # A tenth of the ages is missing; the smallest split has a tenth of the rows.
    assert 0.75 < features["age"].presence.min_fraction < 0.9
    assert not features["age"].HasField("shape")
    assert features["weekday"].int_domain.max == 6
    assert len(features["city"].string_domain.value) == 12
    assert not features["customer_id"].HasField("string_domain")


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["no", "yes"], Task.BINARY),
        (["a", "b", "c"], Task.MULTICLASS),
        ([0, 1], Task.BINARY),
        ([1, 2, 5], Task.MULTICLASS),
        ([0.5, 1.25, 7.0], Task.REGRESSION),
        (list(range(40)), Task.REGRESSION),
    ],
)
def test_the_label_tells_the_task(tmp_path: Path, values: list[Any], task: Task):
    rows = 400
    random = np.random.default_rng(1)
    data = write(
        tmp_path / "table.csv",
        {"x": list(random.normal(size=rows)), "y": [values[place] for place in random.integers(0, len(values), rows)]},
    )
    made = create(tmp_path, data, "y")
    assert made.choices.task is task
    assert config.load_config(made.config).label.task is task


def test_a_task_that_is_asked_for_counts(tmp_path: Path):
    data = write(tmp_path / "table.csv", {"x": list(np.random.default_rng(1).normal(size=60)), "y": [1, 2, 3] * 20})
    assert create(tmp_path, data, "y", task=Task.REGRESSION).choices.task is Task.REGRESSION


def test_small_tables_get_small_batches_and_larger_parts_to_measure_on(tmp_path: Path):
    random = np.random.default_rng(1)
    small, large = (
        create(
            tmp_path,
            write(tmp_path / f"{name}.csv", {"x": random.normal(size=rows), "y": random.normal(size=rows)}),
            "y",
        )
        for name, rows in (("small", 150), ("large", 30_000))
    )
    assert config.load_config(small.config).data.splits == {"train": 6, "eval": 2, "test": 2}
    assert config.load_config(small.config).training.batch_size == 8
    assert config.load_config(small.config).model.kind == "linear"
    # About 90 rows of the train split; scikit-learn's penalty would be 0.0056.
    assert config.load_config(small.config).model.l2 == 0.003
    assert config.load_config(small.config).training.keep == "last"
    assert config.load_config(small.config).training.early_stopping_patience is None
    assert config.load_config(large.config).training.keep == "best"
    assert config.load_config(small.config).validation.min_rows == 45
    assert config.load_config(large.config).data.splits == {"train": 8, "eval": 1, "test": 1}
    assert config.load_config(large.config).training.batch_size == 256
    assert config.load_config(large.config).model.kind == "wide_deep"


# --- reading ---------------------------------------------------------------------------------------------------------


def test_the_way_a_csv_is_written_is_seen(tmp_path: Path):
    text = "größe;wert\n" + "".join(f"{row % 7};{row / 3:.3f}\n" for row in range(100))
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text.encode("cp1252")))
    made = create(tmp_path, "t.csv.gz", "wert")
    loaded = config.load_config(made.config)
    assert (loaded.data.csv.delimiter, loaded.data.csv.encoding) == (";", "cp1252")
    assert list(made.profile.columns) == ["größe", "wert"]


PLAIN = "x,town,y\n" + "".join(
    f"{row % 37 / 3:.4f},{'bonn' if row % 2 else 'ulm'},{row % 91}.5\n" for row in range(200)
)
ONLY = "It is the only column: are the fields separated by something else than ','"


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("t.csv", PLAIN.encode(), {}),
        ("t.tsv", PLAIN.replace(",", "\t").encode(), {"delimiter": "\t"}),
        ("t.csv", PLAIN.replace(",", "|").encode(), {"delimiter": "|"}),
        ("t.csv", PLAIN.replace(",", "^").encode(), {"delimiter": "^"}),
        ("t.csv", PLAIN.replace(",", "~").encode(), {"delimiter": "~"}),
        ("t.csv", PLAIN.replace("bonn", "'b,n'").replace("town", "'to,wn'").encode(), {"quote": "'"}),
        ("t.csv", PLAIN.replace("bonn", '"b,\nn"').encode(), {}),
        ("t.csv", b"\xef\xbb\xbf" + PLAIN.encode(), {}),
        ("t.csv", PLAIN.encode("utf-16"), {"encoding": "utf-16"}),
        ("t.csv", PLAIN.encode("utf-16-le"), {"encoding": "utf-16-le"}),
        ("t.csv", PLAIN.encode("utf-32"), {"encoding": "utf-32"}),
        ("t.csv", PLAIN.replace("ulm", "köln").encode("latin-1"), {"encoding": "cp1252"}),
        ("t.csv", PLAIN.replace("\n", "\r\n").encode(), {}),
        ("t.csv", PLAIN.replace("\n", "\r").encode(), {}),
        ("t.csv.gz", gzip.compress(PLAIN.encode()), {}),
        ("without-ending", gzip.compress(PLAIN.encode()), {}),
        ("t.csv.bz2", bz2.compress(PLAIN.encode()), {}),
        ("t[1].csv", PLAIN.encode(), {}),
        ("what?.csv", PLAIN.encode(), {}),
    ],
)
def test_a_csv_may_be_written_in_many_ways(tmp_path: Path, name: str, content: bytes, found: dict[str, str]):
    (tmp_path / name).write_bytes(content)
    made = create(tmp_path, name, "y", name="t")
    assert config.load_config(made.config).data.csv.model_dump(exclude_defaults=True) == found
    assert made.profile.rows == 200
    assert len(made.profile.columns) == 3
    assert made.profile.columns["x"].type is profile.Type.FLOAT
    assert made.profile.columns["y"].range() == (0.5, 90.5)


def test_zstd_and_a_filesystem_url_are_read(tmp_path: Path):
    import pyarrow as pa

    (tmp_path / "t.csv.zst").write_bytes(pa.compress(PLAIN.encode(), "zstd", asbytes=True))
    made = create(tmp_path, f"file://{tmp_path}/t.csv.zst", "y", name="t")
    assert made.profile.rows == 200
    assert config.load_config(made.config).data.path == f"file://{tmp_path}/t.csv.zst"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "t.csv: found an empty file; expected rows"),
        (b"\n \n", "t.csv: found an empty file; expected rows"),
        (b"x,town,y\n", "t.csv: found a header and no rows"),
        (PLAIN.partition("\n")[2].encode(), "line 1: found data where the header belongs: '0.0000,ulm,0.5'"),
        (PLAIN.replace("town", "x").encode(), "line 1: found column 'x' 2 times; expected every column once"),
        (PLAIN.replace("x,", ",", 1).encode(), "line 1: found no name for column 1"),
        (b'[{"x": 1}]', "t.csv: found JSON; expected CSV text"),
        (b'{"x": 1, "y": 2}\n' * 50, "t.csv: found JSON; expected CSV text"),
        (b"PK\x03\x04" + bytes(99), "t.csv: found a ZIP archive (an Excel workbook is one)"),
        (b"\xfd7zXZ\x00" + bytes(99), "t.csv: found an xz archive"),
        (bytes(range(256)) * 9, "t.csv: found binary data; expected CSV text"),
        (gzip.compress(PLAIN.encode())[:-30], "t.csv: found compressed data that end too early"),
        (PLAIN.replace(",", ":").encode(), ONLY),
        (PLAIN.replace(",y", ",Y").encode(), "--label y: found no such column; expected one of x, town, Y. Did you"),
        (PLAIN.replace(".5", "").encode() + b"1,a,\n", None),
        (b"x,y\n" + b"1.5,\n" * 50, "--label y: found no value in any row; expected at least two different values"),
        (b"x,y\n" + b"1.5,nan\n" * 50, "--label y: found no value in any row; expected at least two different values"),
        (b"x,y\n" + b"1.5,no\n" * 50, "--label y: found the same value in every row: 'no'"),
        (
            b"x;y\n" + "".join(f"{row % 7};{row} %\n" for row in range(90)).encode(),
            "--label y: found text that looks like numbers, such as '0 %'; expected classes, or numbers as CSV has",
        ),
    ],
)  # fmt: skip
def test_a_csv_that_cannot_be_used_is_refused_in_words(tmp_path: Path, content: bytes, told: str | None):
    (tmp_path / "t.csv").write_bytes(content)
    if told is None:  # what is close to a refusal and is none
        assert create(tmp_path, "t.csv", "y").profile.columns["y"].missing == 1
        return
    assert any(told in line for line in problems(tmp_path, "t.csv", "y")), problems(tmp_path, "t.csv", "y")


def test_decimal_commas_are_seen_and_are_numbers(tmp_path: Path):
    random = np.random.default_rng(1)
    numbers = {name: [f"{value:.4f}".replace(".", ",") for value in random.normal(5, 1, 300)] for name in ("x", "y")}
    columns = {**numbers, "whole": list(range(300)), "point": [f"{row % 9}.5" for row in range(300)]}
    made = create(tmp_path, write(tmp_path / "t.csv", columns, delimiter=";"), "y")
    loaded = config.load_config(made.config)
    assert (loaded.data.csv.delimiter, loaded.data.csv.decimal) == (";", ",")
    types = {name: column.type.value for name, column in made.profile.columns.items()}
    assert types == {"x": "FLOAT", "y": "FLOAT", "whole": "INT", "point": "BYTES"}
    assert made.profile.columns["x"].range() == pytest.approx((2.0, 8.0), abs=1.0)
    assert made.choices.task is Task.REGRESSION


def test_numbers_that_are_written_otherwise_are_told(tmp_path: Path):
    random = np.random.default_rng(1)
    written = {"comma": "{:.4f}", "percent": "{:.4f}%", "dollars": "${:.3f}"}
    columns = {name: [form.format(value) for value in random.normal(5, 1, 300)] for name, form in written.items()}
    columns["comma"] = [value.replace(".", ",") for value in columns["comma"]]
    columns |= {"x": list(random.normal(size=300)), "y": list(random.normal(size=300))}
    made = create(tmp_path, write(tmp_path / "t.csv", columns, delimiter=";"), "y")
    assert {warning.split(":")[0] for warning in made.choices.warnings} == set(written)
    assert all("is a number, write it with a point" in warning for warning in made.choices.warnings)


def test_numbers_past_32_bits_are_told(tmp_path: Path):
    huge = [f"{row}e306" if row in (1, 101) else row / 7 for row in range(300)]
    data = write(tmp_path / "t.csv", {"x": huge, "y": np.random.default_rng(1).normal(size=300)})
    (warning,) = create(tmp_path, data, "y").choices.warnings
    assert warning == "x: numbers such as 1.01e+308 do not fit 32 bits; a run puts their rows into quarantine"


def test_a_folder_with_one_bad_file_names_it(tmp_path: Path):
    for name, content in (("a", PLAIN), ("b", PLAIN.replace("town", "city")), ("c", ""), ("d", PLAIN)):
        (tmp_path / "many" / f"{name}.csv").parent.mkdir(exist_ok=True)
        (tmp_path / "many" / f"{name}.csv").write_text(content)
    assert [line.split(";")[0] for line in problems(tmp_path, "many", "y")] == [
        f"{tmp_path}/many/c.csv: found an empty file",
        f"{tmp_path}/many/b.csv, line 1: found no column 'town' (there are x, city, y)",
        f"{tmp_path}/many/b.csv, line 1: found column 'city', which {tmp_path}/many/a.csv does not have",
    ]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("none*.csv", "none*.csv: found no file that matches;"),
        ("span-{SPAN}/*.csv", "span-{SPAN}/*.csv: found no file that matches;"),
        ("span-{DAY}/*.csv", "data.path: found {DAY} in "),
        ("empty", "--data empty: found a folder with nothing in it; expected files that end in .csv,"),
        ("file:///nowhere/t.csv", "file:///nowhere/t.csv: found no folder file:///nowhere"),
        ("foo://bucket/t.csv", "foo://bucket/t.csv: found the filesystem foo://, which TensorFlow does not open"),
    ],
)
def test_paths_that_lead_nowhere_are_told(tmp_path: Path, data: str, told: str):
    (tmp_path / "empty").mkdir()
    (tmp_path / "t.csv").write_text(PLAIN)
    (line,) = problems(tmp_path, data, "y")
    assert told in line


def test_parquet_keeps_the_types_of_the_file(tmp_path: Path):
    import pyarrow as pa
    from pyarrow import parquet

    random = np.random.default_rng(1)
    columns = {
        "x": pa.array(random.normal(size=300)),
        "whole": pa.array(np.round(random.normal(size=300) * 9)),
        "flag": pa.array(random.integers(0, 2, 300).astype(bool)),
        "when": pa.array(random.integers(1_600_000_000, 1_700_000_000, 300), pa.timestamp("s")),
        "y": pa.array(random.integers(0, 3, 300), pa.int8()),
    }
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    made = create(tmp_path, "t.parquet", "y")
    loaded = config.load_config(made.config)
    assert loaded.data.format == "parquet"
    assert loaded.label.task is Task.MULTICLASS
    assert {name: column.type.value for name, column in made.profile.columns.items()} == {
        "x": "FLOAT",
        "whole": "FLOAT",
        "flag": "INT",
        "when": "BYTES",
        "y": "INT",
    }
    assert {name: feature.kind for name, feature in loaded.features.items()} == {
        "x": "numeric",
        "whole": "numeric",
        "flag": "identity",
        "when": "calendar",
    }


def typed_table(rows: int) -> Any:
    """Makes a table with types of its own: NaN and empty text are holes, rows with several tags, sizes and rooms."""
    import pyarrow as pa

    random = np.random.default_rng(5)
    tags = [[f"t{place}" for place in sorted(random.choice(6, row % 4, replace=False))] for row in range(rows)]
    return pa.table(
        {
            "x": pa.array([np.nan if row % 10 == 0 else row / 7 for row in range(rows)]),
            "town": pa.array(["" if row % 8 == 0 else f"town {row % 5}" for row in range(rows)]),
            "tags": pa.array(tags),
            "rooms": pa.array([[row % 3, 3 + row % 2] for row in range(rows)], pa.list_(pa.int64())),
            "sizes": pa.array([[1.5, float(row)] for row in range(rows)], pa.list_(pa.float64())),
            "one": pa.array([[float(row % 11)] for row in range(rows)], pa.list_(pa.float64())),
            "y": pa.array([len(tag) + 0.01 * (row % 13) for row, tag in enumerate(tags)]),
        }
    )


def write_typed(path: Path, table: Any) -> Path:
    """Writes a table as Parquet, or as TFRecord of tf.Examples as whoever writes them does."""
    from pyarrow import parquet

    if path.suffix == ".parquet":
        parquet.write_table(table, path)
        return path
    import tensorflow as tf

    kinds = {str: "bytes_list", int: "int64_list", float: "float_list"}
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in table.to_pylist():
            example = tf.train.Example()
            for name, value in row.items():
                values = value if isinstance(value, list) else [value]
                if values:
                    feature = getattr(example.features.feature[name], kinds[type(values[0])]).value
                    feature.extend(one.encode() if isinstance(one, str) else one for one in values)
            writer.write(example.SerializeToString())
    return path


@pytest.mark.parametrize("ending", ["parquet", "tfrecord"])
def test_typed_files_are_looked_at_as_a_run_reads_them(tmp_path: Path, ending: str):
    made = create(tmp_path, write_typed(tmp_path / f"t.{ending}", typed_table(400)), "y")
    loaded = config.load_config(made.config)
    assert loaded.data.format == ending
    # NaN, the empty text and an empty list are holes there too: a schema without them would refuse this very table.
    assert {name: column.missing for name, column in made.profile.columns.items() if column.missing} == {
        "x": 40,
        "town": 50,
        "tags": 100,
    }
    assert {name: feature.body for name, feature in ((one.column, one) for one in made.choices.features)} == {
        "x": {"kind": "numeric", "missing": "median", "indicator": True},
        "town": {"kind": "vocabulary"},
        "tags": {"kind": "vocabulary", "max_values": 3},
        "rooms": {"kind": "vocabulary", "max_values": 2},
        "one": {"kind": "numeric"},
    }
    assert made.profile.columns["tags"].distinct == 6
    (sizes,) = [left for left in made.choices.left_out if left.column == "sizes"]
    assert sizes.reason == "up to 2 values a row, of which no kind of feature takes more than the first"
    schema = text_format.Parse(made.schema.read_text(), schema_pb2.Schema())
    shaped = {feature.name for feature in schema.feature if feature.HasField("shape")}
    assert shaped == {"one", "y"}
    assert "up to 3 a row" in made.schema.read_text()


def test_types_that_only_parquet_has_are_looked_at_as_a_run_reads_them(tmp_path: Path):
    rows = 300
    table = pa.table(
        {
            "pair": pa.array([[row % 5, 1] for row in range(rows)], pa.list_(pa.int64(), 2)),
            "large": pa.array([2**63 + row for row in range(rows)], pa.uint64()),
            "price": pa.array([decimal.Decimal(row) / 4 for row in range(rows)], pa.decimal128(9, 2)),
            "y": np.random.default_rng(1).normal(size=rows),
        }
    )
    made = create(tmp_path, write_typed(tmp_path / "t.parquet", table), "y")
    columns = made.profile.columns
    assert (columns["pair"].most_values, columns["pair"].missing, columns["pair"].distinct) == (2, 0, 5)
    assert columns["large"].type == "BYTES"  # 64 bits of a tf.Example have a sign
    assert columns["price"].type == "FLOAT"


def test_bytes_that_are_no_text_are_refused_before_a_run_does(tmp_path: Path):
    table = typed_table(400).append_column("picture", pa.array([b"\xff\xd8"] * 400))
    (told,) = problems(tmp_path, write_typed(tmp_path / "t.parquet", table).name, "y")
    assert told.startswith(
        f"{tmp_path}/t.parquet, column 'picture': found 400 of 400 values that are bytes and no text; expected"
    )


def test_a_folder_of_spans_becomes_a_pattern(tmp_path: Path):
    columns = {"x": list(np.random.default_rng(1).normal(size=60)), "y": list(range(60))}
    for span in (1, 2):
        write(tmp_path / "taxi" / f"span-{span}" / "v-1" / "part.csv", columns)
    made = create(tmp_path, "taxi", "y")
    assert config.load_config(made.config).data.path.endswith("taxi/span-{SPAN}/v-{VERSION}/*.csv")
    assert made.profile.rows == 60  # the newest span, as a run would read it


def test_a_line_that_is_no_row_is_counted_and_told(tmp_path: Path):
    path = write(tmp_path / "t.csv", {"x": list(np.random.default_rng(1).normal(size=60)), "y": list(range(60))})
    path.write_text(path.read_text() + "1,2,3\n")
    made = create(tmp_path, path, "y")
    assert made.profile.rows == 60
    assert any(warning.startswith("one line is no row of this table") for warning in made.choices.warnings)
    assert config.load_config(made.config).data.max_malformed_share == 0.1  # 1 of 61, chance, and a hundredth


def test_memory_is_bounded_and_the_counts_stay_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = 5_000
    path = write(
        tmp_path / "t.csv", {"x": [row % 100 for row in range(rows)], "key": [f"k{row}" for row in range(rows)]}
    )
    monkeypatch.setattr(profile, "_SAMPLE_ROWS", 300)
    monkeypatch.setattr(table_source.source, "BLOCK", 4096)
    found = table_source.find(str(path), called_from=tmp_path, root=tmp_path)
    looked = profile.look(found)
    assert looked.rows == rows
    assert looked.columns["x"].distinct == 100
    assert looked.columns["x"].counts["17"] == 50
    sample = looked.columns["x"].sample
    assert 100 < len(sample) <= 300
    # Evenly over the whole table, and the same rows in every column.
    assert [f"k{int(text[1:])}" for text in looked.columns["key"].sample.to_pylist()][-1] > "k4"


def test_only_so_many_rows_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "t.csv", {"x": list(range(3_000)), "y": [row / 7 for row in range(3_000)]})
    found = table_source.find(str(path), called_from=tmp_path, root=tmp_path)
    monkeypatch.setattr(
        table_source, "batches", lambda _: ((table.slice(0, 1_000), 0) for table, _ in [next(real(found))] * 3)
    )
    looked = profile.look(found, max_rows=1_500)
    assert (looked.rows, looked.complete) == (2_000, False)


real = table_source.batches


# --- leaks -----------------------------------------------------------------------------------------------------------


def test_a_leak_scores_one_and_chance_scores_nothing():
    import pyarrow as pa

    random = np.random.default_rng(3)
    label = random.normal(size=2_000)
    classes = pa.array(np.where(label > 0.3, "up", "down"))
    assert leaks.score(label * 1.8 + 32, label) > 0.999
    assert leaks.score(label, classes) > leaks.LEAK
    assert leaks.score(random.normal(size=2_000), label) < 0.05
    assert leaks.score(random.normal(size=2_000), classes) < 0.05
    # An identifier knows every row that it has seen, and no other.
    assert leaks.score(pa.array([f"id{row}" for row in range(2_000)]), classes) < 0.05
    # A good column is no leak.
    assert 0.5 < leaks.score(label + 0.5 * random.normal(size=2_000), label) < leaks.LEAK


def test_a_hole_that_tells_the_label_is_a_leak():
    import pyarrow as pa

    random = np.random.default_rng(3)
    gone = random.integers(0, 2, 500) == 1
    closed_on = np.where(gone, random.normal(size=500), np.nan)
    assert leaks.score(closed_on, pa.array(gone.astype(str))) == 1.0


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    random = np.random.default_rng(1)
    return write(
        tmp_path / "t.csv", {"width": random.normal(size=60), "price": random.normal(size=60), "same": [4] * 60}
    )


def test_a_label_that_is_not_there_names_the_close_one(tmp_path: Path, plain: Path):
    assert problems(tmp_path, plain, "prise") == [
        "--label prise: found no such column; expected one of width, price, same. Did you mean 'price'?"
    ]


def test_a_constant_label_is_refused(tmp_path: Path, plain: Path):
    assert problems(tmp_path, plain, "same")[0] == (
        "--label same: found the same value in every row: '4'; expected at least two different values. "
        "Name another column; a constant needs no model."
    )


def test_an_empty_file_is_refused(tmp_path: Path):
    (tmp_path / "t.csv").write_text("")
    assert problems(tmp_path, "t.csv", "y")[0].startswith(f"{tmp_path}/t.csv: found an empty file")


def test_a_header_alone_is_refused(tmp_path: Path):
    (tmp_path / "t.csv").write_text("x,y\n")
    assert "found a header and no rows" in problems(tmp_path, "t.csv", "y")[0]


def test_too_few_rows_and_a_wrong_label_are_told_together(tmp_path: Path):
    found = problems(tmp_path, write(tmp_path / "t.csv", {"x": [1, 2, 3], "y": [1, 2, 3]}), "z")
    assert [line.split(";")[0] for line in found] == [
        f"{tmp_path}/t.csv: found 3 rows",
        "--label z: found no such column",
    ]


def test_a_path_that_is_not_there_shows_what_is(tmp_path: Path, plain: Path):
    assert problems(tmp_path, "u.csv", "y")[0] == (
        "--data u.csv: found no such file or folder; expected a file, a folder, a glob or a pattern with {SPAN}. "
        f"Did you mean {plain.name!r}?"
    )
    (tmp_path / "gone.csv").symlink_to("nowhere.csv")
    assert "found a link to nowhere.csv, where nothing is;" in problems(tmp_path, "gone.csv", "y")[0]
    os.mkfifo(tmp_path / "pipe.csv")
    assert "found a pipe or a device;" in problems(tmp_path, "pipe.csv", "y")[0]
    assert f"{tmp_path} holds gone.csv, pipe.csv, {plain.name}." in problems(tmp_path, "else/where.parquet", "y")[0]


def test_a_name_that_begins_with_a_digit_is_made_legal(tmp_path: Path, plain: Path):
    plain.rename(tmp_path / "2024 sales.csv")
    assert create(tmp_path, "2024 sales.csv", "price").name == "table-2024-sales"


def test_nothing_is_overwritten_unless_asked_for(tmp_path: Path, plain: Path):
    made = create(tmp_path, plain, "price")
    made.config.write_text("mine")
    found = problems(tmp_path, plain, "price")
    assert [line.split(":")[0] for line in found] == [str(made.config), str(made.schema)]
    assert "--force" in found[0]
    assert made.config.read_text() == "mine"
    create(tmp_path, plain, "price", force=True)
    assert made.config.with_name("t.yaml.bak").read_text() == "mine"
    assert config.load_config(made.config).name == "t"


def test_words_that_stand_for_a_missing_number_are_missing_values(made: new.Made, tmp_path: Path):
    assert config.load_config(made.config).data.csv.missing == ["n/a"]
    assert made.profile.columns["balance"].missing == ROWS / 20
    values = ["?" if row % 30 == 0 else row / 7 for row in range(300)]
    unknown = create(
        tmp_path, write(tmp_path / "t.csv", {"x": list(np.random.default_rng(1).normal(size=300)), "y": values}), "y"
    )
    assert unknown.choices.task is Task.REGRESSION
    assert any("the label is missing in 3.3% of the rows" in warning for warning in unknown.choices.warnings)
    # What is seen, and a twentieth more: 3.3 % + 4.2 % by chance + 5 %.
    assert config.load_config(unknown.config).data.max_unlabelled_share == 0.13


def test_a_table_without_a_feature_is_refused(tmp_path: Path, plain: Path):
    columns = {"id": [f"k{row}" for row in range(60)], "y": list(np.random.default_rng(1).normal(size=60))}
    found = problems(tmp_path, write(tmp_path / "u.csv", columns), "y")
    assert "no column to predict from (id: an identifier" in found[0]


def test_names_and_values_that_yaml_would_misread_stay_what_they_are(tmp_path: Path):
    random = np.random.default_rng(1)
    columns = {
        'a "b": #c': list(random.normal(size=60)),
        "no": ["on" if value else "off" for value in random.integers(0, 2, 60)],
        "null": list(random.normal(size=60)),
        "y": list(random.normal(size=60)),
    }
    path = tmp_path / "t.csv"
    write(path, columns)
    path.write_text(path.read_text().replace('a "b": #c', '"a ""b"": #c"', 1))
    loaded = config.load_config(create(tmp_path, path, "y").config)
    read = {column for name, feature in loaded.features.items() for column in new.settings.raw_columns(name, feature)}
    assert read == {'a "b": #c', "no", "null"}
