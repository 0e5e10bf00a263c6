"""Parquet, TFRecord and CSV without a header: the same rows whatever the format, and what is said of bad files."""

from __future__ import annotations

import datetime
import gzip
import json
import math
import os
import pathlib
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pyarrow import parquet

from components.example_gen import columns, executor, inspection, pieces, reading, tfrecord
from components.example_gen.table import ColumnType
from evergreen import settings, spans
from evergreen.errors import BadInput
from tests.components.example_gen.test_executor import everything, quarantine, rows, run, shards, summary, value, write

ROWS = 200
SUFFIX = {"csv": "csv", "parquet": "parquet", "tfrecord": "tfrecord"}


def table(**overrides):
    """Every kind of value; `n` has holes."""
    made = {
        "n": pa.array([None if i % 5 == 0 else i + 0.5 for i in range(ROWS)], pa.float64()),
        "i": pa.array([2**53 + 1 + i for i in range(ROWS)], pa.int64()),
        "s": pa.array([f"é{i % 7}" for i in range(ROWS)], pa.string()),
    }
    return pa.table({**made, **overrides})


def example(**values):
    features = {}
    for name, value_ in values.items():
        items = value_ if isinstance(value_, list) else [] if value_ is None else [value_]
        if not items:
            features[name] = tf.train.Feature()
        elif isinstance(items[0], float):
            features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=items))
        elif isinstance(items[0], int):
            features[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=items))
        else:
            data = [item if isinstance(item, bytes) else item.encode() for item in items]
            features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=data))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_records(path, records, *, kind=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), kind) as writer:
        for record in records:
            writer.write(record)
    return path


def write_table(root, name, made, **options):
    """Writes a table in the format that the name's ending says."""
    path = pathlib.Path(root) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".parquet"):
        parquet.write_table(made, path, **options)
    elif name.endswith(".csv"):
        lines = [",".join("" if v is None else str(v) for v in row.values()) for row in made.to_pylist()]
        path.write_text("\n".join([",".join(made.column_names), *lines]) + "\n")
    else:
        write_records(path, [example(**row) for row in made.to_pylist()], kind="GZIP" if name.endswith("gz") else "")
    return path


def refused(root, pattern, **options):
    with pytest.raises(BadInput) as caught:
        run(root, pathlib.Path(root) / "out", pattern, **{"schema": None, **options})
    assert not list((pathlib.Path(root) / "out").glob("Split-*")), "nothing half done is left"
    return caught.value.problems


# --- the same rows ---------------------------------------------------------------------------------------------------


def test_a_row_is_the_same_and_in_the_same_split_whatever_its_format(tmp_path):
    found = {}
    for name, format_ in (("x.csv", "csv"), ("x.parquet", "parquet"), ("x.tfrecord", "tfrecord"), ("x.gz", "tfrecord")):
        write_table(tmp_path, name, table(), **({"row_group_size": 37} if format_ == "parquet" else {}))
        artifact = run(tmp_path, tmp_path / f"out-{name}", name, schema=None, format=format_)
        found[name] = {split: Counter(rows(artifact, split)) for split in artifact.splits}
        assert summary(artifact)["rows"] == {split: sum(rows_.values()) for split, rows_ in found[name].items()}
    assert found["x.csv"] == found["x.parquet"] == found["x.tfrecord"] == found["x.gz"]
    (row, _), *_ = found["x.csv"]["train"].items()
    assert value(row, "i")[0] > 2**53, "whole numbers are kept to the last digit"


def test_row_groups_are_dealt_out(tmp_path):
    write_table(tmp_path, "x.parquet", table(), row_group_size=50)
    assert len(shards(run(tmp_path, tmp_path / "out", "x.parquet", schema=None, format="parquet"), "train")) == 4
    data = settings.Data(path=f"{tmp_path}/x.parquet", format="parquet")
    files, problems = executor._inspect(spans.resolve(data), data, None)
    units = [unit for piece in pieces.deal(files, data) for unit in piece.units]
    assert problems == []
    assert [(unit.start, unit.length, unit.line) for unit in units] == [(0, 1, 1), (1, 1, 51), (2, 1, 101), (3, 1, 151)]


def test_lists_stay_lists(tmp_path):
    several = pa.array([[], [1], [1, 2], None, [3, 2, 1]] * 40, pa.list_(pa.int32()))
    words = pa.array([["a"], ["b", ""], [""], ["c", "d", "e"], []] * 40, pa.list_(pa.string()))
    write_table(tmp_path, "x.parquet", pa.table({"k": pa.array(range(200)), "l": several, "w": words}))
    found = {value(r, "k")[0]: (value(r, "l"), value(r, "w")) for r in everything(
        run(tmp_path, tmp_path / "out", "x.parquet", schema=None, format="parquet"))}  # fmt: skip
    expected = [([], [b"a"]), ([1], [b"b", b""]), ([1, 2], []), ([], [b"c", b"d", b"e"]), ([3, 2, 1], [])]
    assert found == {i: expected[i % 5] for i in range(200)}


def test_booleans_moments_decimals_and_categories_become_what_an_example_has(tmp_path):
    import decimal

    moment = datetime.datetime(2024, 2, 29, 13, 45, tzinfo=datetime.timezone.utc)
    made = pa.table(
        {
            "k": pa.array(range(ROWS)),
            "boolean": pa.array([True] * ROWS),
            "moment": pa.array([moment] * ROWS, pa.timestamp("ms", "Europe/Berlin")),
            "naive": pa.array([moment.replace(tzinfo=None)] * ROWS, pa.timestamp("us")),
            "day": pa.array([moment.date()] * ROWS),
            "decimal": pa.array([decimal.Decimal("1.25")] * ROWS),
            "category": pa.array(["x"] * ROWS).dictionary_encode(),
            "nothing": pa.nulls(ROWS),
        }
    )
    write_table(tmp_path, "x.parquet", made)
    artifact = run(tmp_path, tmp_path / "out", "x.parquet", schema=None, format="parquet")
    found = {tuple(value(row, name)[0] for name in made.column_names[1:-1]) for row in everything(artifact)}
    assert found == {(1, b"2024-02-29T13:45:00.000000Z", b"2024-02-29T13:45:00.000000", b"2024-02-29", 1.25, b"x")}
    assert all(value(row, "nothing") == [] for row in everything(artifact))


def test_the_schema_decides_between_kinds_of_numbers(tmp_path):
    schema = write(tmp_path, "s.pbtxt", "".join(f'feature {{ name: "{n}" type: {t} }}' for n, t in [
        ("a", "INT"), ("b", "FLOAT"), ("c", "BYTES"), ("d", "INT")]))  # fmt: skip
    made = {"a": pa.array([1.0, None] * 100), "b": pa.array(range(ROWS)), "c": pa.array(range(ROWS)),
            "d": pa.array([86_400] * ROWS, pa.timestamp("s"))}  # fmt: skip
    write_table(tmp_path, "x.parquet", pa.table(made), coerce_timestamps="ms")
    artifact = run(tmp_path, tmp_path / "out", "x.parquet", schema=str(schema), format="parquet")
    found = {tuple(tuple(value(row, name)) for name in "abcd") for row in everything(artifact)}
    assert found == {((1,) if i % 2 == 0 else (), (float(i),), (str(i).encode(),), (86_400_000,)) for i in range(ROWS)}


def test_a_file_without_a_header_has_the_schemas_columns(tmp_path):
    schema = write(tmp_path, "s.pbtxt", 'feature { name: "b" type: INT } feature { name: "a" type: FLOAT }')
    write(tmp_path, "x.csv", "".join(f"{i},{i}.5\n" for i in range(ROWS)) + "x,1\n")
    artifact = run(tmp_path, tmp_path / "out", "x.csv", schema=str(schema), csv={"header": False})
    assert {(value(row, "b")[0], value(row, "a")[0]) for row in everything(artifact)} == {
        (i, i + 0.5) for i in range(200)
    }
    assert [(entry["line"], entry["text"]) for entry in quarantine(artifact)] == [(ROWS + 1, "x,1")]


def test_zstd_is_read_as_gzip_is(tmp_path):
    plain = write_table(tmp_path, "x.csv", table()).read_bytes()
    write(tmp_path, "x.csv.zst", pa.compress(plain, "zstd", asbytes=True))
    write(tmp_path, "x.csv.gz", gzip.compress(plain))
    made = [everything(run(tmp_path, tmp_path / name, f"x.csv.{name}", schema=None)) for name in ("zst", "gz")]
    assert made[0] == made[1]
    assert sum(made[0].values()) == ROWS


@pytest.mark.parametrize("name", ["x.csv", "x.csv.zst", "x.parquet", "x.tfrecord", "x.gz"])
def test_a_filesystem_of_tensorflows_is_read_as_the_local_one_is(tmp_path, name):
    made = pa.table({"a": pa.array(range(ROWS)), "s": pa.array([f"é{i % 7}" for i in range(ROWS)])})
    format_ = {"csv": "csv", "parquet": "parquet"}.get(name.split(".")[1], "tfrecord")
    path = write_table(tmp_path, name.removesuffix(".zst"), made, **({"row_group_size": 9} if "parq" in name else {}))
    if name.endswith(".zst"):
        write(tmp_path, name, pa.compress(path.read_bytes(), "zstd", asbytes=True))
    local = run(tmp_path, tmp_path / "out", name, schema=None, format=format_)
    far = run(f"file://{tmp_path}", tmp_path / "far", name, schema=None, format=format_)
    assert everything(far) == everything(local)
    assert sum(everything(far).values()) == ROWS


# --- rows that cannot be ---------------------------------------------------------------------------------------------

FLOAT = 'feature { name: "a" type: FLOAT }'
INT = 'feature { name: "a" type: INT }'
PAST = "column a: 1.8014398509481984e+16 is past 2^53, where floating-point numbers skip whole numbers"
BYTES = 'feature { name: "a" type: BYTES }'


@pytest.mark.parametrize(
    ("schema", "column", "reason"),
    [
        (FLOAT, pa.array([math.inf]), "column a: inf is not a finite number"),
        (FLOAT, pa.array([1e308]), "column a: 1e+308 is too large for a number of 32 bits"),
        (INT, pa.array([1.5]), "column a: 1.5 is not a whole number"),
        (INT, pa.array([2.0**54]), PAST),
        (INT, pa.array([2**63], pa.uint64()), f"column a: {2**63} is too large for a whole number of 64 bits"),
        (BYTES, pa.array([b"\xff"]), "column a: byte 0xff is not UTF-8"),
        (INT, pa.array([[1, None]], pa.list_(pa.int64())), "column a: a missing value within a list"),
        (FLOAT, pa.array([[1.0, math.nan]], pa.list_(pa.float64())), "column a: a missing value within a list"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_in_quarantine_with_its_row(tmp_path, schema, column, reason):
    path = write(tmp_path, "s.pbtxt", schema + ' feature { name: "k" type: INT }')
    good = {"list": [[1]], "double": [1.0], "uint64": [1], "binary": [b"x"]}[str(column.type).split("<")[0]] * ROWS
    made = pa.table({"a": pa.concat_arrays([pa.array(good, column.type), column]), "k": pa.array(range(ROWS + 1))})
    write_table(tmp_path, "x.parquet", made, row_group_size=90)
    artifact = run(tmp_path, tmp_path / "out", "x.parquet", schema=str(path), format="parquet")
    (entry,) = quarantine(artifact)
    assert (entry["line"], entry["reason"]) == (ROWS + 1, reason)
    assert json.loads(entry["text"])["k"] == ROWS
    assert sum(everything(artifact).values()) == ROWS


def test_nan_and_empty_text_are_missing_in_every_format(tmp_path):
    made = table(n=pa.array([math.nan, 1.0] * 100), s=pa.array(["", "x", None, "y"] * 50))
    for name, format_ in (("x.parquet", "parquet"), ("x.tfrecord", "tfrecord"), ("x.csv", "csv")):
        write_table(tmp_path, name, made)
        artifact = run(tmp_path, tmp_path / f"out-{format_}", name, schema=None, format=format_)
        counted = Counter((len(value(r, "n")), tuple(value(r, "s"))) for r in everything(artifact))
        assert counted == {(0, ()): 100, (1, (b"x",)): 50, (1, (b"y",)): 50}, format_


def test_required_columns_send_rows_without_them_to_quarantine(tmp_path):
    made = table(label=pa.array([1.0] * 57 + [None] + [2.0] * 142))
    for name, format_, line in (("x.csv", "csv", 59), ("x.parquet", "parquet", 58), ("x.tfrecord", "tfrecord", 58)):
        write_table(tmp_path, name, made)
        artifact = run(
            tmp_path, tmp_path / f"out-{format_}", name, schema=None, format=format_, required=["label"]
        )  # fmt: skip
        (entry,) = quarantine(artifact)
        assert (entry["line"], entry["reason"]) == (line, "column label: no value (data.required)"), format_
        assert sum(everything(artifact).values()) == ROWS - 1
    problems = refused(tmp_path, "x.csv", required=["label"], max_malformed_share=0.001)
    assert problems[0].found.startswith("1 of 200 lines malformed (0.50%): line 59: column label: no value")
    assert [p.found for p in refused(tmp_path, "x.csv", required=["labl"])] == ["column 'labl', which there is not"]


def test_rows_without_a_label_are_set_aside_and_are_not_malformed(tmp_path):
    made = table(label=pa.array([1.0] * 57 + [None] * 3 + [math.nan] + [2.0] * 139))
    for name, format_, line in (("x.csv", "csv", 59), ("x.parquet", "parquet", 58), ("x.tfrecord", "tfrecord", 58)):
        write_table(tmp_path, name, made)
        artifact = run(
            tmp_path, tmp_path / f"out-{format_}", name, schema=None, format=format_, label="label",
            max_malformed_share=0.0,
        )  # fmt: skip
        assert [(entry["line"], entry["reason"]) for entry in quarantine(artifact)] == [
            (line + row, "column label: no label") for row in range(4)
        ], format_
        assert sum(everything(artifact).values()) == ROWS - 4
        told = summary(artifact)
        assert (told["quarantined"], told["unlabelled"], told["spans"][0]["files"][0]["unlabelled"]) == (4, 4, 4)
        # Without them every other row stays where it was.
        kept = run(tmp_path, tmp_path / f"all-{format_}", name, schema=None, format=format_)
        for split in artifact.splits:
            assert not Counter(rows(artifact, split)) - Counter(rows(kept, split))


@pytest.mark.parametrize(("labels", "share"), [([None] * ROWS, 0.05), ([1.0] * 189 + [None] * 11, 0.05)])
def test_a_span_without_labels_is_refused(tmp_path, labels, share):
    write_table(tmp_path, "day-1.parquet", table(label=pa.array([1.0] * ROWS)))
    write_table(tmp_path, "day-2.parquet", table(label=pa.array(labels, pa.float64())))
    asked = {"format": "parquet", "label": "label"}
    (problem,) = refused(tmp_path, "day-{SPAN}.parquet", **asked, max_unlabelled_share=share)
    count = labels.count(None)
    assert problem.where == "span 2, column 'label'"
    assert problem.found == (
        f"{count} of 200 rows without a label ({count / 200:.2%}), the first of them {tmp_path}/day-2.parquet, "
        f"row {labels.index(None) + 1}"
    )
    assert problem.expected == "at most 5.00% of a span's rows (data.max_unlabelled_share)"
    assert "when its labels have come" in problem.action
    artifact = run(
        tmp_path, tmp_path / "out", "day-{SPAN}.parquet", schema=None, **asked, max_unlabelled_share=1.0
    )  # fmt: skip
    assert summary(artifact)["unlabelled"] == count
    assert sum(everything(artifact).values()) == 400 - count


def test_a_label_that_is_required_makes_a_row_malformed(tmp_path):
    write_table(tmp_path, "x.csv", table(label=pa.array([1.0] * 57 + [None] + [2.0] * 142)))
    artifact = run(tmp_path, tmp_path / "out", "x.csv", schema=None, label="label", required=["label"])
    assert [entry["reason"] for entry in quarantine(artifact)] == ["column label: no value (data.required)"]
    assert summary(artifact)["unlabelled"] == 0
    (problem,) = refused(tmp_path, "x.csv", label="lable")
    assert (problem.where, problem.found) == ("label.column", "column 'lable', which there is not")


# --- records ---------------------------------------------------------------------------------------------------------


def damaged_at(path, number, *, offset):
    """Flips a byte of a record's frame (offset 0 to 11) or of its data."""
    data = bytearray(path.read_bytes())
    position = 0
    for _ in range(number - 1):
        position += 16 + int.from_bytes(data[position : position + 8], "little")
    data[position + offset] ^= 0xFF
    path.write_bytes(bytes(data))


def test_a_large_record_file_is_cut_and_nothing_else_changes(tmp_path, monkeypatch):
    records = [example(a=i, b=float(i)) for i in range(3000)]
    records[2500] = b"\xff\xff no example"
    write_records(tmp_path / "x.tfrecord", records)
    whole = run(tmp_path, tmp_path / "whole", "x.tfrecord", schema=None, format="tfrecord")
    monkeypatch.setattr("components.example_gen.source.BLOCK", 1 << 12)
    cut = run(tmp_path, tmp_path / "cut", "x.tfrecord", schema=None, format="tfrecord", shards=8)
    assert len(shards(cut, "train")) > len(shards(whole, "train"))
    for split in whole.splits:
        assert Counter(rows(cut, split)) == Counter(rows(whole, split))
    # The range that holds it has to find out how many records are before it.
    assert [line["line"] for line in quarantine(cut)] == [line["line"] for line in quarantine(whole)] == [2501]


def test_a_record_file_that_cannot_be_cut_is_told(tmp_path):
    inner = tmp_path / "inner"
    write_records(inner, [example(a=i) for i in range(300)])
    path = write_records(tmp_path / "x.tfrecord", [example(a=inner.read_bytes()), example(a="b")])
    with pytest.raises(inspection.Unreadable) as caught:
        list(tfrecord.read(str(path), {"a": ColumnType.STRING}, start=0, length=1000))
    assert caught.value.problem.found.startswith("a record that holds a TFRecord file itself")
    assert len(list(tfrecord.read(str(path), {"a": ColumnType.STRING}))) == 1


def test_a_corrupt_record_costs_itself_only(tmp_path):
    path = write_table(tmp_path, "x.tfrecord", table())
    damaged_at(path, 123, offset=20)
    artifact = run(tmp_path, tmp_path / "out", "x.tfrecord", schema=None, format="tfrecord")
    (entry,) = quarantine(artifact)
    assert (entry["file"], entry["line"], entry["reason"]) == (str(path), 123, "its checksum is wrong")
    assert sum(everything(artifact).values()) == ROWS - 1


@pytest.mark.parametrize("kind", ["length", "end"])
def test_a_broken_frame_names_file_and_record(tmp_path, kind):
    path = write_table(tmp_path, "x.tfrecord", table())
    if kind == "length":
        damaged_at(path, 123, offset=1)
    else:
        path.write_bytes(path.read_bytes()[:-5])
    (problem,) = refused(tmp_path, "x.tfrecord", format="tfrecord")
    number, found = (123, "a damaged length") if kind == "length" else (ROWS, "the end of the file within a record")
    assert problem.where == f"{path}, record {number}"
    assert found in problem.found
    assert "Deliver the file again" in problem.action


def test_records_that_are_no_examples_or_of_another_kind(tmp_path):
    records = [example(a=1, b=float(i)) for i in range(ROWS)]
    records[7] = b"\xff\xff no example"
    records[9] = example(a="text", b=1.0)
    write_records(tmp_path / "x.tfrecord", records)
    artifact = run(tmp_path, tmp_path / "out", "x.tfrecord", schema=None, format="tfrecord")
    assert [(entry["line"], entry["reason"]) for entry in quarantine(artifact)] == [
        (8, "no tf.Example"),
        (10, "column a: bytes_list is not a whole number"),
    ]
    assert sum(everything(artifact).values()) == ROWS - 2


def test_a_feature_that_the_beginning_lacks_is_told_and_not_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr("components.example_gen.tfrecord.SAMPLED", 50)
    write_records(tmp_path / "x.tfrecord", [example(a=i) for i in range(150)] + [example(a=1, late=2)])
    (problem,) = refused(tmp_path, "x.tfrecord", format="tfrecord")
    assert problem.found == "feature 'late' within records 1 to 151"
    assert "Add it to the schema" in problem.action


# --- files that cannot be --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format_", "content", "found", "action"),
    [
        ("parquet", b"", "an empty file", "Deliver the file again"),
        ("parquet", b"a,b\n1,2\n", "no Parquet file (it begins with b'a,b\\n1,2\\n')", "Set data.format"),
        ("parquet", b"PK\x03\x04....", "a ZIP archive", "Set data.format"),
        ("parquet", "truncated", "a Parquet file that ends too early", "still going on"),
        ("parquet", "footer", "a Parquet file that is damaged", "Deliver the file again"),
        ("parquet", "body", "a Parquet file that is damaged", "Deliver the file again"),
        ("parquet", "rows", "columns and no rows", "Deliver the file again with its rows"),
        ("tfrecord", b"", "an empty file", "Deliver the file again"),
        (
            "tfrecord",
            b"a,b\n1,2\n3,4\n5,6\n",
            "no TFRecord file (a damaged length of a record; it begins",
            "data.format",
        ),
        ("tfrecord", b"a,b\n1,2\n", "no TFRecord file (the end of the file within a record", "Set data.format"),
        ("tfrecord", b"PAR1" * 9, "a Parquet file", "Set data.format"),
        ("tfrecord", "gzip", "compressed data that end too early", "Deliver the file again"),
        ("tfrecord", "nothing", "no tf.Example in the first 5 records", "Write every record as a tf.Example"),
        ("tfrecord", gzip.compress(b""), "an empty file", "Deliver the file again"),
    ],
)
def test_a_bad_file_is_named_with_what_to_do(tmp_path, format_, content, found, action):
    path = tmp_path / "x"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "gzip":
        write_records(path, [example(a=i) for i in range(ROWS)], kind="GZIP")
        path.write_bytes(path.read_bytes()[:-20])
    elif content == "nothing":
        write_records(path, [b"\xff\xff"] * 5)
    else:
        parquet.write_table(table().slice(0, 0 if content == "rows" else ROWS), path, compression="none")
        data = bytearray(path.read_bytes())
        length = int.from_bytes(data[-8:-4], "little")
        if content == "footer":
            data[-8 - length : -8] = b"\xff" * length
        elif content == "body":
            data[4:60] = b"\xff" * 56
        path.write_bytes(bytes(data[:-100] if content == "truncated" else data))
    problems = refused(tmp_path, "x", format=format_)
    assert problems[0].where == str(path)
    assert found in problems[0].found
    assert action in problems[0].action


def test_a_file_with_another_schema_than_its_siblings(tmp_path):
    for index in range(3):
        write_table(tmp_path, f"{index}.parquet", table())
    write_table(tmp_path, "3.parquet", table(n=pa.array(["1.5"] * ROWS)))
    write_table(tmp_path, "4.parquet", table(i=pa.array([{"x": 1}] * ROWS)))
    write_table(tmp_path, "5.parquet", table().rename_columns(["n", "i", "ss"]))
    told = [(p.where, p.found, p.expected) for p in refused(tmp_path, "*.parquet", format="parquet")]
    assert told == [
        (f"{tmp_path}/4.parquet, column 'i'", "the type struct<x: int64>",
         "numbers, text, booleans, moments, or lists of them"),
        (f"{tmp_path}/3.parquet, column 'n'", "the type string", f"double, as in {tmp_path}/0.parquet"),
        (f"{tmp_path}/5.parquet", "column 'ss'", f"column 's', as in {tmp_path}/0.parquet"),
    ]  # fmt: skip


def test_a_file_with_another_type_than_the_schema(tmp_path):
    schema = write(tmp_path, "s.pbtxt", FLOAT)
    write_table(tmp_path, "x.parquet", pa.table({"a": pa.array(["1"] * 9)}))
    (problem,) = refused(tmp_path, "x.parquet", format="parquet", schema=str(schema))
    assert (problem.where, problem.found) == (f"{tmp_path}/x.parquet, column 'a'", "the type string")
    assert problem.expected == "a number in every row, as in the schema"
    write_records(tmp_path / "x.tfrecord", [example(a="one") for _ in range(9)])
    (problem,) = refused(tmp_path, "x.tfrecord", format="tfrecord", schema=str(schema))
    assert problem.found.startswith("9 of 9 values that are not a number (record 1: column a: 'one' is not a number")


def test_mixed_types_between_and_within_files(tmp_path):
    for name, a in (("0", 1), ("1", 2), ("2", "text")):
        write_records(tmp_path / f"{name}.tfrecord", [example(a=a)] * 20)
    (problem,) = refused(tmp_path, "*.tfrecord", format="tfrecord")
    assert problem.where == f"{tmp_path}/2.tfrecord, column 'a'"
    assert problem.found == "the type text in most records"
    schema = write(tmp_path, "s.pbtxt", FLOAT)
    write(tmp_path, "x.csv", "a\n" + "1.5\nthree\n" * 100)
    (problem,) = refused(tmp_path, "x.csv", schema=str(schema))
    assert problem.found.startswith("100 of 200 lines malformed (50.00%): line 3: column a: 'three' is not a number")


def test_a_column_that_comes_twice(tmp_path):
    made = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    parquet.write_table(made, tmp_path / "x.parquet")
    (problem,) = refused(tmp_path, "x.parquet", format="parquet")
    assert (problem.where, problem.found) == (f"{tmp_path}/x.parquet", "column 'a' 2 times")


def test_a_header_that_should_not_be_there_or_be_known(tmp_path):
    schema = write(tmp_path, "s.pbtxt", INT + 'feature { name: "b" type: INT }')
    for content, found in (("b,a\n1,2\n", "a header: 'b,a'"), ("1,2,3\n", "3 fields: '1,2,3'")):
        write(tmp_path, "x.csv", content)
        (problem,) = refused(tmp_path, "x.csv", csv={"header": False}, schema=str(schema))
        assert (problem.where, problem.found) == (f"{tmp_path}/x.csv, line 1", found)
    (problem,) = refused(tmp_path, "x.csv", csv={"header": False})
    assert (problem.where, problem.found) == ("data.csv.header", "false, and no schema")


@pytest.mark.parametrize("format_", ["csv", "parquet", "tfrecord"])
def test_a_file_that_grows_while_it_is_read_is_an_error(tmp_path, format_, monkeypatch):
    path = write_table(tmp_path, f"x.{SUFFIX[format_]}", table())
    read = reading.read

    def growing(unit, data, types):
        yield from read(unit, data, types)
        os.utime(path, (1, 1))

    monkeypatch.setattr(reading, "read", growing)
    (problem,) = refused(tmp_path, path.name, format=format_)
    assert problem.where == str(path)
    assert problem.found.startswith("another size or modification time than before it was read")
    assert "*.tmp" in problem.action


@pytest.mark.slow
@pytest.mark.parametrize("format_", ["csv", "parquet", "tfrecord"])
def test_a_wide_table_and_a_large_cell(tmp_path, format_):
    wide = {f"c{i}": pa.array([i + row for row in range(60)]) for i in range(2000)}
    path = write_table(
        tmp_path, f"x.{SUFFIX[format_]}", pa.table({**wide, "big": pa.array(["x" * (1 << 20)] + ["y"] * 59)})
    )
    artifact = run(tmp_path, tmp_path / "out", path.name, schema=None, format=format_)
    found = everything(artifact)
    assert sum(found.values()) == 60
    assert max(len(value(row, "big")[0]) for row in found) == 1 << 20
    assert len(tf.train.Example.FromString(next(iter(found))).features.feature) == 2001


# --- nothing is lost -------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(st.none(), st.floats(width=64), st.integers(-(2**63), 2**63 - 1).map(float))
WHOLE = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))
TEXTS = st.one_of(st.none(), st.binary(max_size=3), st.text(max_size=3).map(str.encode))
LISTS = st.one_of(st.none(), st.lists(WHOLE, max_size=3))
SCHEMA = "".join(
    f'feature {{ name: "{name}" type: {type_} }}'
    for name, type_ in [("k", "INT"), ("n", "FLOAT"), ("i", "INT"), ("s", "BYTES"), ("l", "INT")]
)  # fmt: skip


@pytest.mark.slow
@hypothesis_settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(generated=st.lists(st.tuples(NUMBERS, WHOLE, TEXTS, LISTS), min_size=1, max_size=30))
def test_rows_in_are_rows_out_and_quarantined(generated, tmp_path_factory):
    root = tmp_path_factory.mktemp("property")
    made = pa.table(
        {
            "k": pa.array(range(len(generated))),
            "n": pa.array([row[0] for row in generated], pa.float64()),
            "i": pa.array([row[1] for row in generated], pa.int64()),
            "s": pa.array([row[2] for row in generated], pa.binary()),
            "l": pa.array([row[3] for row in generated], pa.list_(pa.int64())),
        }
    )
    parquet.write_table(made, root / "x.parquet", row_group_size=7)
    lists = [None if row[3] is None else [v for v in row[3] if v is not None] for row in generated]
    write_records(
        root / "x.tfrecord",
        [
            example(k=k, n=row[0], i=row[1], s=row[2], l=values)
            for k, (row, values) in enumerate(zip(generated, lists, strict=True))
        ],
    )
    known = columns.from_schema(str(write(root, "s.pbtxt", SCHEMA)))
    for format_ in ("parquet", "tfrecord"):
        data = settings.Data(path=f"{root}/x.{format_}", format=format_)
        (file,), problems = executor._inspect(spans.resolve(data), data, known)
        assert problems == []
        good: dict[int, dict] = {}
        bad: dict[int, str] = {}
        for unit, _ in pieces.units(file, data):
            for block in reading.read(unit, data, columns.types_of(known)):
                for (line, _), row in zip(
                    block.locate(range(block.rows.num_rows)), block.rows.to_pylist(), strict=True
                ):
                    assert row["k"] == line - 1
                    good[line - 1] = row
                bad.update({entry.line - 1: entry.reason for entry in block.bad})
        assert sorted([*good, *bad]) == list(range(len(generated)))
        for k, row in good.items():
            n, i, s, l = generated[k]  # noqa: E741
            with np.errstate(over="ignore"):
                assert row["n"] == (None if n is None or math.isnan(n) else float(np.float32(n)))
            assert row["i"] == i
            assert row["s"] == (s.decode() if s else None)
            kept = lists[k] if format_ == "tfrecord" or l != [None] else []
            shown = row["l"] if isinstance(row["l"], list) or row["l"] is None else [row["l"]]
            assert (shown or []) == (kept or [])
        for k, reason in bad.items():
            n, _i, s, l = generated[k]  # noqa: E741
            with np.errstate(over="ignore"):
                assert ("column n" in reason) == (n is not None and bool(np.isinf(np.float32(n))))
            assert ("column l" in reason) == (format_ == "parquet" and l is not None and len(l) > 1 and None in l)
            try:
                (s or b"").decode()
            except UnicodeDecodeError:
                assert "is not UTF-8" in reason
            else:
                assert "UTF-8" not in reason
