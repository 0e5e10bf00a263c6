"""The executor, run for real: splits, shards, quarantine, and one error that names every file that is wrong."""

from __future__ import annotations

import gzip
import json
import pathlib
import shutil
from collections import Counter

import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.types import artifact_utils, standard_artifacts

from components.example_gen import inspection, pieces, source
from components.example_gen.component import ExampleGen
from components.example_gen.executor import Executor
from datagen import humidity
from evergreen import settings, spans
from evergreen.errors import BadInput

SCHEMA = str(pathlib.Path(__file__).parents[3] / "schemas" / "humidity" / "schema.pbtxt")
PATTERN = "span-{SPAN}/v-{VERSION}/*.csv"
# The last one keeps TFX from packing itself for workers that DirectRunner does not have, which takes two seconds.
BEAM = ["--runner=DirectRunner", "--direct_running_mode=in_memory", "--sdk_container_image=unused"]


def run(root, out, pattern=PATTERN, *, schema=SCHEMA, choice=None, fingerprint=None, label=None, **options):
    """Runs the executor with what the component would give it; returns the artifact."""
    data = settings.Data(path=f"{root}/{pattern}", **{"window": 100, **options})
    node = ExampleGen(data, schema_path=schema, spans=choice, input_fingerprint=fingerprint, label=label)
    artifact = standard_artifacts.Examples()
    artifact.uri = str(out)
    context = BaseBeamExecutor.Context(beam_pipeline_args=BEAM, tmp_dir=str(out))
    Executor(context).Do({}, {"examples": [artifact]}, dict(node.spec.exec_properties))
    return artifact


def shards(artifact, split):
    return sorted(path for path in (pathlib.Path(artifact.uri) / f"Split-{split}").iterdir())


def rows(artifact, split):
    """Reads the rows of a split in order, each serialized with its features in order."""
    kind = "GZIP" if shards(artifact, split)[0].suffix == ".gz" else ""
    files = [str(path) for path in shards(artifact, split)]
    serialized = tf.data.TFRecordDataset(files, kind).as_numpy_iterator()
    return [tf.train.Example.FromString(row).SerializeToString(deterministic=True) for row in serialized]


def everything(artifact):
    return Counter(row for split in artifact.splits for row in rows(artifact, split))


def summary(artifact):
    return json.loads((pathlib.Path(artifact.uri) / "summary.json").read_text())


def quarantine(artifact):
    files = sorted((pathlib.Path(artifact.uri) / "quarantine").glob("*.jsonl"))
    # A text may hold other ends of lines than the one that ends an entry.
    return [json.loads(line) for file in files for line in file.read_text().split("\n") if line]


def write(root, name, content):
    path = pathlib.Path(root) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def value(serialized, name):
    feature = tf.train.Example.FromString(serialized).features.feature[name]
    kind = feature.WhichOneof("kind")
    return list(getattr(feature, kind).value) if kind else []


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    root = tmp_path_factory.mktemp("good")
    humidity.generate(root, spans=3, rows=2000)
    return root


@pytest.fixture(scope="module")
def artifact(good, tmp_path_factory):
    return run(good, tmp_path_factory.mktemp("out"))


def test_every_row_is_in_one_split_with_its_values(good, artifact):
    found = Counter()
    for row in everything(artifact).elements():
        found[tuple(value(row, name)[0] for name in humidity.COLUMNS)] += 1
    expected = Counter()
    for span in (1, 2, 3):
        table = humidity.table(span=span, rows=2000)
        columns = [
            table[name].cast(pa.float32()) if pa.types.is_floating(table[name].type) else table[name]
            for name in humidity.COLUMNS
        ]
        expected.update(zip(*(column.to_pylist() for column in columns), strict=True))
    assert found == expected


def test_the_kinds_of_lists_are_the_schemas(artifact):
    features = tf.train.Example.FromString(rows(artifact, "train")[0]).features.feature
    assert {name: features[name].WhichOneof("kind") for name in features} == {
        "beta1": "float_list",
        "beta2": "float_list",
        "humidity": "float_list",
        "hour": "int64_list",
        "weekday": "int64_list",
    }


def test_splits_have_their_shares(artifact):
    sizes = {split: len(rows(artifact, split)) for split in artifact.splits}
    assert sum(sizes.values()) == 6000
    assert sizes["train"] / 6000 == pytest.approx(0.8, abs=0.02)
    assert sizes["eval"] / 6000 == pytest.approx(0.1, abs=0.02)


def test_shards_are_named_and_enough(artifact):
    for split in artifact.splits:
        names = [path.name for path in shards(artifact, split)]
        assert len(names) >= 4
        assert names == [f"data_tfrecord-{index:05d}-of-{len(names):05d}" for index in range(len(names))]
    assert not list(pathlib.Path(artifact.uri).rglob("*.tmp"))
    assert not (pathlib.Path(artifact.uri) / pieces.RESULTS).exists()


def test_the_artifact_says_what_it_is(good, artifact):
    assert artifact_utils.decode_split_names(artifact.split_names) == ["train", "eval", "test"]
    assert (artifact.span, artifact.version) == (3, 1)
    assert artifact.get_string_custom_property("payload_format") == "FORMAT_TF_EXAMPLE"
    assert artifact.get_string_custom_property("file_format") == "tfrecords_gzip"
    selection = spans.resolve(settings.Data(path=f"{good}/{PATTERN}", window=100))
    assert artifact.get_string_custom_property("input_fingerprint") == selection.fingerprint


def test_the_summary_adds_up(good, artifact):
    told = summary(artifact)
    assert told["rows"] == {split: len(rows(artifact, split)) for split in artifact.splits}
    assert [(span["span"], span["version"]) for span in told["spans"]] == [(1, 1), (2, 1), (3, 1)]
    for span in told["spans"]:
        (file,) = span["files"]
        path = good / f"span-{span['span']}" / "v-1" / humidity.FILE
        assert file == {"path": str(path), "size": path.stat().st_size, "rows": 2000, "quarantined": 0, "unlabelled": 0}
    assert told["quarantined"] == 0
    assert told["fingerprint"] == artifact.get_string_custom_property("input_fingerprint")


def test_a_second_run_gives_the_same_rows_in_the_same_order(good, artifact, tmp_path):
    again = run(good, tmp_path)
    for split in artifact.splits:
        assert [path.name for path in shards(again, split)] == [path.name for path in shards(artifact, split)]
        assert rows(again, split) == rows(artifact, split)


def test_a_row_falls_into_the_same_split_whatever_surrounds_it(good, artifact, tmp_path):
    # Other order of columns and of rows, one file instead of three, compressed.
    lines = []
    for span in (3, 1, 2):
        for line in (good / f"span-{span}" / "v-1" / humidity.FILE).read_text().splitlines()[:0:-1]:
            beta1, beta2, weekday, hour, measured = line.split(",")
            lines.append(f"{measured},{hour},{beta2},{beta1},{weekday}")
    write(tmp_path, "x.csv.gz", gzip.compress(("humidity,hour,beta2,beta1,weekday\n" + "\n".join(lines)).encode()))
    other = run(tmp_path, tmp_path / "out", "x.csv.gz", compression="gzip", shards=2)
    for split in artifact.splits:
        assert Counter(rows(other, split)) == Counter(rows(artifact, split))
        assert [path.name for path in shards(other, split)] == [f"data_tfrecord-{i:05d}-of-00002.gz" for i in range(2)]


def test_copies_of_a_row_stay_together(tmp_path):
    write(tmp_path, "x.csv", "a,b\n" + "".join(f"{i},{i % 7}\n" for i in range(200)) * 3)
    artifact = run(tmp_path, tmp_path / "out", "x.csv", schema=None)
    for split in artifact.splits:
        assert set(Counter(rows(artifact, split)).values()) == {3}


@pytest.mark.slow
def test_a_large_file_is_cut_and_nothing_else_changes(good, artifact, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 20_000)
    monkeypatch.setattr(source, "BLOCK", 1000)
    monkeypatch.setattr(source.blocks, "__kwdefaults__", {"size": 1000, "length": None})
    folder = tmp_path / "data"
    shutil.copytree(good, folder)
    path = folder / "span-2" / "v-1" / humidity.FILE
    lines = path.read_text().splitlines()
    lines[1500] += ",extra"
    path.write_text("\n".join(lines))
    cut = run(folder, tmp_path / "out")
    assert len(shards(cut, "train")) >= 9
    assert [(entry["line"], entry["reason"]) for entry in quarantine(cut)] == [(1501, "6 fields instead of 5")]
    assert sum((everything(artifact) - everything(cut)).values()) == 1
    assert not everything(cut) - everything(artifact)
    assert [span["files"][0]["rows"] for span in summary(cut)["spans"]] == [2000, 1999, 2000]


def test_many_small_files_share_pieces(tmp_path):
    for index in range(30):
        write(tmp_path, f"{index:02d}.csv", "a,b\n" + "".join(f"{index},{row}\n" for row in range(10)))
    artifact = run(tmp_path, tmp_path / "out", "*.csv", schema=None, shards=3)
    assert 3 <= len(shards(artifact, "train")) <= 4
    assert sum(everything(artifact).values()) == 300


def test_the_same_piece_twice_leaves_the_same(good, tmp_path):
    """As Beam does when it repeats a bundle."""
    data = settings.Data(path=f"{good}/{PATTERN}", window=1)
    from components.example_gen import columns, executor

    known = columns.from_schema(SCHEMA)
    files, _ = executor._inspect(spans.resolve(data), data, known)
    dealt = pieces.deal(files, data)
    artifact = standard_artifacts.Examples()
    artifact.uri = str(tmp_path)
    types = columns.types_of(known)
    plan = pieces.Plan(
        uri=str(tmp_path), data=data, types=types, columns=tuple(types), pieces=len(dealt), shards_per_piece=4
    )

    def state():
        return {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    for piece in dealt:
        pieces.Converter(plan).convert(piece)
    first = state()
    for piece in dealt:
        pieces.Converter(plan).convert(piece)
    assert state() == first


def test_all_examples_have_the_columns_that_the_artifact_names(tmp_path):
    write(tmp_path, "1.csv", "n,i\n" + "".join(f"{row}.5,{row}\n" for row in range(60)))
    write(tmp_path, "2.csv", "n,s\n" + "".join(f"{row}.5,x{row}\n" for row in range(60)))
    schema = tmp_path / "schema.pbtxt"
    kinds = {"n": "FLOAT", "i": "INT", "s": "BYTES", "nowhere": "INT"}
    schema.write_text("".join(f'feature {{ name: "{name}" type: {kind} }}' for name, kind in kinds.items()))
    artifact = run(tmp_path, tmp_path / "out", "*.csv", schema=str(schema), span_column="day")
    said = {"n": "FLOAT", "i": "INT", "s": "BYTES", "day": "INT"}
    assert summary(artifact)["columns"] == said
    found = [tf.train.Example.FromString(row).features.feature for row in everything(artifact).elements()]
    assert len(found) == 120
    assert all(set(features) == set(said) for features in found)
    assert Counter(features["i"].WhichOneof("kind") for features in found) == {"int64_list": 60, None: 60}


def test_missing_values_are_missing(tmp_path):
    text = "n,i,s\n" + "".join(f"{i},,x\n,{i},\nnan,{i},é\n" for i in range(40))
    write(tmp_path, "x.csv", text)
    artifact = run(tmp_path, tmp_path / "out", "x.csv", schema=None)
    found = Counter()
    for row in everything(artifact).elements():
        found[(len(value(row, "n")), len(value(row, "i")), tuple(value(row, "s")))] += 1
    assert found == {(1, 0, (b"x",)): 40, (0, 1, ()): 40, (0, 1, ("é".encode(),)): 40}


def test_types_are_the_widest_of_all_files(tmp_path):
    for name, a, b, c in (("1", "1", "1", "1"), ("2", "2", "0.5", "x"), ("3", "", "", "")):
        write(tmp_path, f"{name}.csv", "a,b,c,d\n" + "".join(f"{a},{b},{c},{i}.csv\n" for i in range(40)))
    artifact = run(tmp_path, tmp_path / "out", "*.csv", schema=None)
    kinds = Counter()
    for row in everything(artifact).elements():
        features = tf.train.Example.FromString(row).features.feature
        kinds[tuple(features[name].WhichOneof("kind") for name in "abcd")] += 1
    assert kinds == {("int64_list", "float_list", "bytes_list", "bytes_list"): 80, (None, None, None, "bytes_list"): 40}


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (b"\xef\xbb\xbfa,b\n%s", {}),
        (b"\n\na,b\r\n%s", {}),
        ("a,b\n%s".encode("utf-16").replace(b"%\0s\0", b"") + b"%s", {"csv": {"encoding": "utf-16"}}),
        (b"a;b\n%s", {"csv": {"delimiter": ";"}}),
        (b'"a","b"\n%s', {}),
    ],
)
def test_how_a_file_is_written_may_vary(tmp_path, content, options):
    delimiter = options.get("csv", {}).get("delimiter", ",")
    body = "".join(f"{i}{delimiter}{i}.5\n" for i in range(100))
    encoding = "utf-16-le" if "csv" in options and "encoding" in options["csv"] else "utf-8"
    write(tmp_path, "x.csv", content.replace(b"%s", body.encode(encoding)))
    artifact = run(tmp_path, tmp_path / "out", "x.csv", schema=None, **options)
    pairs = {(value(row, "a")[0], value(row, "b")[0]) for row in everything(artifact)}
    assert pairs == {(i, i + 0.5) for i in range(100)}


# --- quarantine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "reason"), [("malformed_line", "4 fields instead of 5"), ("invalid_utf8", "byte 0xff is not UTF-8")]
)
def test_a_malformed_line_goes_to_quarantine(tmp_path, fault, reason):
    humidity.generate(tmp_path, spans=2, rows=500, fault=fault)
    artifact = run(tmp_path, tmp_path / "out")
    path = tmp_path / "span-2" / "v-1" / humidity.FILE
    (entry,) = quarantine(artifact)
    text = path.read_bytes().splitlines()[2].decode("utf-8", "replace")
    assert entry == {"file": str(path), "line": 3, "reason": reason, "text": text}
    assert summary(artifact)["quarantined"] == 1
    assert summary(artifact)["spans"][1]["files"][0]["rows"] == 499
    assert sum(everything(artifact).values()) == 999


def test_the_share_is_the_files_own(tmp_path):
    humidity.generate(tmp_path, spans=3, rows=500, fault="malformed_many")
    with pytest.raises(BadInput) as caught:
        run(tmp_path, tmp_path / "out")
    (problem,) = caught.value.problems
    path = tmp_path / "span-3" / "v-1" / humidity.FILE
    assert problem.where == str(path)
    assert problem.found.startswith("50 of 500 lines malformed (10.00%): line 2: 4 fields instead of 5: '")
    assert "1.00% (data.max_malformed_share)" in problem.expected
    assert sum(everything(run(tmp_path, tmp_path / "more", max_malformed_share=0.1)).values()) == 1450


# Text whose cells are never empty lines: what a row is must be countable without the code under test.
CELL = st.one_of(st.integers(-99, 99).map(str), st.sampled_from(["", "x", "1.5", "é", "inf"]))
LINES = st.lists(st.lists(CELL, min_size=1, max_size=3).map(",".join), min_size=1, max_size=40)


@pytest.mark.slow
@hypothesis_settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(files=st.lists(LINES, min_size=1, max_size=2))
def test_rows_in_are_rows_out_and_quarantined(files, tmp_path_factory):
    root = tmp_path_factory.mktemp("property")
    schema = write(root, "s.pbtxt", 'feature { name: "a" type: INT } feature { name: "b" type: FLOAT }')
    # One row in each split, whatever the rest: an empty split is refused.
    certain = [f"{i},0" for i in range(200)]
    for index, lines in enumerate(files):
        write(root, f"{index}.csv", "\n".join(["a,b", *certain, *lines]))
    artifact = run(root, root / "out", "*.csv", schema=str(schema), max_malformed_share=1.0)
    told = summary(artifact)
    filled = sum(bool(line) for lines in files for line in [*certain, *lines])
    assert sum(everything(artifact).values()) + len(quarantine(artifact)) == filled
    assert told["quarantined"] == len(quarantine(artifact))
    for entry in quarantine(artifact):
        lines = pathlib.Path(entry["file"]).read_text().split("\n")
        assert lines[entry["line"] - 1] == entry["text"]


# --- faults of whole files -------------------------------------------------------------------------------------------

FAULTS = {
    "binary": ("binary data", "Deliver the rows as CSV"),
    "duplicate_column": ("column 'beta1' 2 times", "Rename or remove"),
    "empty": ("an empty file", "Deliver the file again"),
    "extra_column": ("column 'operator', which the schema does not have", "Remove it"),
    "header_only": ("a header and no rows", "Deliver the file again"),
    "malformed_many": ("lines malformed (10.00%)", "Repair the file"),
    "missing_column": ("no column 'beta2'", "Deliver the file with this column"),
    "no_header": ("data where the header belongs", "Add the header"),
    "null_column": ("no value in any of 300 rows", "presence"),
    "renamed_column": ("column 'humidty'", "Did you mean 'humidity'?"),
    "text_in_numbers": ("300 of 300 values that are not a number (line 2: column beta1: 'high'", "Repair the column"),
    "truncated_gzip": ("compressed data that end too early", "Deliver the file again"),
    "utf16": ("text in UTF-16", "data.csv.encoding to utf-16"),
    "wrong_delimiter": ("columns separated by semicolon (';')", "data.csv.delimiter to ';'"),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_bad_file_is_named_with_what_to_do(tmp_path, fault):
    humidity.generate(tmp_path, spans=2, rows=300, fault=fault)
    with pytest.raises(BadInput) as caught:
        run(tmp_path, tmp_path / "out", choice="2")
    found, action = FAULTS[fault]
    problems = caught.value.problems
    assert all(str(tmp_path / "span-2" / "v-1" / humidity.FILE) in problem.where for problem in problems)
    assert found in problems[0].found
    assert action in problems[0].action
    assert not list((tmp_path / "out").glob("Split-*")), "nothing half done is left"


def test_the_generators_faults_are_all_covered():
    harmless = {"malformed_line", "invalid_utf8", "out_of_range"}
    assert set(FAULTS) | harmless == set(humidity.FAULTS)


def test_the_problems_of_all_files_come_in_one_error(tmp_path):
    table = humidity.table(span=1, rows=300)
    faults = sorted(FAULTS)
    for number, fault in enumerate(faults, start=1):
        write(tmp_path, f"span-{number}/v-1/x.csv", humidity.FAULTS[fault](table))
    with pytest.raises(BadInput) as caught:
        run(tmp_path, tmp_path / "out")
    wheres = [problem.where for problem in caught.value.problems]
    for number in range(1, len(faults) + 1):
        assert any(f"/span-{number}/" in where for where in wheres), faults[number - 1]


@pytest.mark.parametrize(
    ("content", "found", "action"),
    [
        ("1;2\n" * 9, "separated by semicolon", "delimiter"),
        ("1,2\n3,4\n", "data where the header belongs: '1,2'", "header"),
        ("a\tb\n1\t2\n", "separated by tab", r"'\t'"),
        (",a\n0,1\n", "no name for column 1", "index=False"),
        (b"PAR1" + bytes(100), "a Parquet file", "Set data.format to parquet"),
        (b"PK\x03\x04" + bytes(100), "a ZIP archive", "CSV"),
        ("a,b\n1,2\n".encode("utf-16-le"), "text in UTF-16-LE", "UTF-8"),
        ("a,b\n1,2\n".encode("utf-32"), "text in UTF-32", "UTF-8"),
        ("größe,b\n1,2\n".encode("latin-1"), "which is not utf-8", "cp1252"),
        ("\n\n \n", "an empty file", "again"),
        (gzip.compress(b""), "an empty file", "again"),
        (gzip.compress(b"a,b\n" + b"1,2\n" * 99)[:-9] + b"x" * 9, "damaged", "again"),
    ],
)
def test_faults_without_a_schema(tmp_path, content, found, action):
    write(tmp_path, "x.csv", content)
    with pytest.raises(BadInput) as caught:
        run(tmp_path, tmp_path / "out", "x.csv", schema=None)
    assert found in caught.value.problems[0].found
    assert action in caught.value.problems[0].action


def test_without_a_schema_most_files_are_right(tmp_path):
    for index, header in enumerate(["a,b", "b,a", "a,bb", "a"]):
        write(tmp_path, f"{index}.csv", f"{header}\n" + (",".join("1" * len(header.split(","))) + "\n") * 20)
    with pytest.raises(BadInput) as caught:
        run(tmp_path, tmp_path / "out", "*.csv", schema=None)
    assert [(problem.where[-13:], problem.found) for problem in caught.value.problems] == [
        ("2.csv, line 1", "column 'bb'"),
        ("3.csv, line 1", "no column 'b' (there are a)"),
    ]


def test_a_file_in_the_wrong_encoding_further_down(tmp_path):
    write(tmp_path, "x.csv", b"a,b\n" + b"x,1\n" * 200_000 + b"\x81,2\n")
    with pytest.raises(BadInput, match="byte 0x81, which is not cp1252"):
        run(tmp_path, tmp_path / "out", "x.csv", schema=None, csv={"encoding": "cp1252"})


def test_two_columns_of_text_are_both_told(tmp_path):
    write(tmp_path, "s.pbtxt", 'feature { name: "a" type: INT } feature { name: "b" type: FLOAT }')
    write(tmp_path, "x.csv", "a,b\n" + "x,y\n" * 50)
    with pytest.raises(BadInput) as caught:
        run(tmp_path, tmp_path / "out", "x.csv", schema=str(tmp_path / "s.pbtxt"))
    assert [problem.where[-10:] for problem in caught.value.problems] == ["column 'a'", "column 'b'"]


def test_an_optional_column_may_be_missing(tmp_path):
    write(
        tmp_path,
        "s.pbtxt",
        'feature { name: "a" type: INT presence { min_fraction: 1 } } feature { name: "b" type: INT }',
    )
    write(tmp_path, "x.csv", "a\n" + "".join(f"{i}\n" for i in range(100)))
    artifact = run(tmp_path, tmp_path / "out", "x.csv", schema=str(tmp_path / "s.pbtxt"))
    assert sum(everything(artifact).values()) == 100


def test_too_few_rows_for_the_splits(tmp_path):
    write(tmp_path, "x.csv", "a,b\n1,2\n")
    with pytest.raises(BadInput, match="no row in this split, of 1 rows in all"):
        run(tmp_path, tmp_path / "out", "x.csv", schema=None)


@pytest.mark.parametrize(
    ("schema", "found"),
    [("feature {", "Expected"), ('feature { name: "a" type: STRUCT }', "STRUCT"), (None, "no readable file")],
)
def test_a_schema_that_cannot_be_used(tmp_path, good, schema, found):
    if schema is not None:
        write(tmp_path, "s.pbtxt", schema)
    with pytest.raises(BadInput) as caught:
        run(good, tmp_path / "out", schema=str(tmp_path / "s.pbtxt"))
    assert found in caught.value.problems[0].found


# --- the component ---------------------------------------------------------------------------------------------------


def test_execution_properties_carry_what_the_cache_needs(tmp_path):
    schema = write(tmp_path, "s.pbtxt", "")
    data = settings.Data(path="x/*.csv")

    def properties(**options):
        return dict(ExampleGen(data, schema_path=str(schema), **options).spec.exec_properties)

    first = properties()
    assert settings.Data.model_validate_json(first["data"]) == data
    assert "spans" not in first
    assert properties(spans="2-3", input_fingerprint="f").items() >= {"spans": "2-3", "input_fingerprint": "f"}.items()
    schema.write_text("# changed")
    assert properties() != first


def test_explicit_spans(good, tmp_path):
    artifact = run(good, tmp_path, choice="1-2")
    assert artifact.span == 2
    assert sum(everything(artifact).values()) == 4000


def test_every_row_tells_its_span_where_that_is_asked_for(good, artifact, tmp_path):
    plain, told = artifact, run(good, tmp_path / "told", span_column="span")
    counted = Counter(value(row, "span")[0] for row in everything(told).elements())
    assert counted == {1: 2000, 2: 2000, 3: 2000}
    for split in plain.splits:  # the number of the span decides nothing
        assert len(rows(told, split)) == len(rows(plain, split))
    schema = write(
        tmp_path, "schema.pbtxt",
        pathlib.Path(SCHEMA).read_text() + 'feature { name: "span" type: INT presence { min_fraction: 1.0 } }',
    )  # fmt: skip
    known = run(good, tmp_path / "known", schema=str(schema), span_column="span")
    assert everything(known) == everything(told)
    with pytest.raises(BadInput, match="hour") as caught:
        run(good, tmp_path / "taken", schema=None, span_column="hour")
    assert [problem.action for problem in caught.value.problems] == ["Choose another name for data.span_column."]


def test_a_file_that_changed_between_planning_and_reading_is_an_error(tmp_path):
    humidity.generate(tmp_path, spans=2, rows=300)
    planned = spans.resolve(settings.Data(path=f"{tmp_path}/{PATTERN}", window=100)).fingerprint
    artifact = run(tmp_path, tmp_path / "out", fingerprint=planned)
    assert artifact.get_string_custom_property("input_fingerprint") == planned
    growing = tmp_path / "span-2" / "v-1" / humidity.FILE
    with growing.open("a") as file:
        file.write("1.0,2.0,3,4,20.5\n")
    with pytest.raises(BadInput) as caught:
        run(tmp_path, tmp_path / "late", fingerprint=planned)
    (problem,) = caught.value.problems
    assert problem.where == f"{tmp_path}/{PATTERN}"
    assert problem.found == (
        "files that changed between the planning of the run and their reading; the last to change was "
        f"{growing}, now {growing.stat().st_size:,} bytes"
    )
    assert "*.tmp" in problem.action
    assert not list((tmp_path / "late").glob("Split-*"))


def test_a_file_that_went_away_is_told():
    gone = spans.DataFile(path="/nowhere/x.csv", relative="x.csv", size=1, modified=0)
    (problem,) = inspection.inspect(gone, settings.Data(path="/nowhere/*.csv"), None).problems
    assert problem.where == "/nowhere/x.csv"
    assert "No such file" in problem.found
