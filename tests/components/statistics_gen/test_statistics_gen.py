"""Our statistics beside those of TFX's own executor, on a table with every kind of column; and what goes to TFX's."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow_data_validation as tfdv
from pyarrow import parquet
from tfx.components.statistics_gen import executor as tfx_executor
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils, standard_artifacts

from components.example_gen import summary
from components.records import reading
from components.statistics_gen import distinct, executor
from datagen import taxi
from tests import data_nodes, tables

ROWS = {"train": 6000, "eval": 1500, "empty": 0}


def _examples(root: Path) -> standard_artifacts.Examples:
    parts = {
        split: taxi.table(rows=rows, part=part).to_pydict() for part, (split, rows) in enumerate(ROWS.items()) if rows
    }
    tables.write_examples(root, parts)
    (root / "Split-empty").mkdir()
    (root / "Split-empty" / "data_tfrecord-00000-of-00001").touch()
    examples = standard_artifacts.Examples()
    examples.uri = str(root)
    examples.span = 3
    examples.split_names = artifact_utils.encode_split_names(list(ROWS))
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    examples.set_string_custom_property("file_format", "tfrecords_gzip")
    return examples


def _run(
    kind: type[tfx_executor.Executor], examples: standard_artifacts.Examples, root: Path, **properties: Any
) -> standard_artifacts.ExampleStatistics:
    statistics = standard_artifacts.ExampleStatistics()
    statistics.uri = str(root)
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=["--runner=DirectRunner", "--direct_num_workers=1"], tmp_dir=str(root / "tmp"), unique_id="1"
    )
    kind(context).Do({"examples": [examples]}, {"statistics": [statistics]}, properties)
    return statistics


def _load(statistics: standard_artifacts.ExampleStatistics, split: str) -> Any:
    return tfdv.load_stats_binary(f"{statistics.uri}/Split-{split}/FeatureStats.pb").datasets[0]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    root = tmp_path_factory.mktemp("statistics")
    examples = _examples(root / "examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "ROWS", 700)  # so that batches, shards and merges are many
        ours = _run(executor.Executor, examples, root / "ours")
    return ours, _run(tfx_executor.Executor, examples, root / "stock")


@pytest.mark.slow
def test_artifacts_are_described_alike(both: tuple[Any, Any]) -> None:
    ours, stock = both
    assert ours.split_names == stock.split_names
    assert ours.span == stock.span == 3
    name = tfx_executor.SAMPLE_RATE_BY_SPLIT_PROPERTY_NAME
    assert ours.get_json_value_custom_property(name) == stock.get_json_value_custom_property(name)


@pytest.mark.slow
@pytest.mark.parametrize("split", ROWS)
def test_statistics_are_those_of_tfx(both: tuple[Any, Any], split: str) -> None:
    ours, stock = (_load(statistics, split) for statistics in both)
    assert ours.num_examples == stock.num_examples == ROWS[split]
    assert ours.name == stock.name
    assert len(ours.features) == (len(taxi.COLUMNS) if ROWS[split] else 0)
    data_nodes.same_statistics(ours, stock)


@pytest.mark.slow
def test_statistics_are_those_of_tfx_where_example_gen_said_which_columns_there_are(tmp_path: Path) -> None:
    """Holes, lists, a column without any value, one that a file lacks: parsed by TensorFlow as tfx-bsl decodes them."""
    random = np.random.default_rng(11)
    count = 3000
    holes = random.uniform(size=count) < 0.3
    columns = {
        "number": pa.array(random.normal(size=count), mask=holes),
        "whole": pa.array(random.integers(-5, 2**40, count), mask=np.roll(holes, 1)),
        "text": pa.array([f"t{number}" for number in random.integers(0, 900, count)], mask=np.roll(holes, 2)),
        "numbers": pa.array([list(random.normal(size=size)) for size in random.integers(0, 4, count)]),
        "wholes": pa.array([list(range(size)) for size in random.integers(0, 3, count)], pa.list_(pa.int64())),
        "texts": pa.array([["a", "b", "é"][:size] for size in random.integers(0, 4, count)], pa.list_(pa.string())),
        "never": pa.nulls(count, pa.float64()),
        "rarely": pa.array([1.5] + [None] * (count - 1), pa.float64()),
        "first_file": pa.array(random.integers(0, 3, count)),
    }
    table, data = pa.table(columns), tmp_path / "data"
    data.mkdir()
    parquet.write_table(table.slice(0, 1000), data / "1.parquet")
    parquet.write_table(table.slice(1000).drop(["first_file"]), data / "2.parquet")
    types = {
        name: "FLOAT" if name in ("number", "numbers", "never", "rarely") else "BYTES" if "text" in name else "INT"
        for name in [*columns, "nowhere"]
    }
    tables.write_schema(tmp_path / "schema" / "schema.pbtxt", types, dense=False)
    nodes = data_nodes.Nodes(tmp_path, ["--runner=DirectRunner", "--direct_num_workers=1"])
    examples = nodes.example_gen("examples", f"{data}/*.parquet", format="parquet")
    said = summary.columns(examples.uri)
    assert said is not None
    assert {feature.name for feature in said.feature} == set(columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "ROWS", 150)
        ours = _run(executor.Executor, examples, tmp_path / "ours")
    stock = _run(tfx_executor.Executor, examples, tmp_path / "stock")
    for split in ("train", "eval", "test"):
        data_nodes.same_statistics(_load(ours, split), _load(stock, split))


@pytest.mark.slow
def test_excluded_splits_and_other_options(both: tuple[Any, Any], tmp_path: Path) -> None:
    examples = _examples(tmp_path / "examples")
    ours = _run(executor.Executor, examples, tmp_path / "some", exclude_splits=json.dumps(["train", "empty"]))
    assert artifact_utils.decode_split_names(ours.split_names) == ["eval"]
    assert sorted(path.name for path in (tmp_path / "some").iterdir()) == ["Split-eval"]
    assert _load(ours, "eval").num_examples == ROWS["eval"]
    # Samples are TFX's business; it gets them. TFDV draws whole batches at random, of which there are few here.
    options = tfdv.StatsOptions(sample_rate=1e-9).to_json()
    sampled = _run(executor.Executor, examples, tmp_path / "sampled", stats_options_json=options)
    assert _load(sampled, "eval").num_examples < ROWS["eval"]


def test_counts_are_exact_however_they_are_merged() -> None:
    random = np.random.default_rng(5)
    values = [f"v{number}".encode() for number in (400_000 * random.uniform(size=300_000) ** 3).astype(int)]
    expected: dict[bytes, int] = {}
    for value in values:
        expected[value] = expected.get(value, 0) + 1
    parts = []
    for start in range(0, len(values), 30_000):
        counts = distinct.Counts()
        for batch in range(start, start + 30_000, 5_000):
            counts.add(pa.array([*values[batch : batch + 5_000], None], pa.large_binary()))
        parts.append(counts)
    merged = parts[0]
    for other in parts[1:]:
        merged.merge(pickle.loads(pickle.dumps(other)))
    assert merged.settled().num_rows == len(expected)
    ordered = sorted(expected.items(), key=lambda pair: (pair[1], pair[0]), reverse=True)
    for number in (1, 2, 1000, len(expected) - 1, len(expected), len(expected) + 1):
        assert merged.top(number) == ordered[:number]


def test_no_value_is_no_count() -> None:
    counts = distinct.Counts()
    counts.add(pa.array([None, None], pa.large_binary()))
    assert counts.settled().num_rows == 0
    assert counts.top(3) == []
