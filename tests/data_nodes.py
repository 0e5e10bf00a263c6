"""The data nodes' executors one after the other on any Beam runner, and what it means that two results are the same."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
import tensorflow_model_analysis as tfma
import tensorflow_transform as tft
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import proto_utils

from components.evaluator import executor as evaluator
from components.example_gen import component as example_gen_component
from components.example_gen import executor as example_gen
from components.statistics_gen import executor as statistics_gen
from components.transform import executor as transform
from datagen import taxi
from evergreen import settings
from pipeline import evaluation as evaluation_config
from tests import tables
from transform import preprocessing  # noqa: F401  found by its dotted path

TYPES = {
    field.name: {"string": "BYTES", "int64": "INT", "double": "FLOAT"}[str(field.type)]
    for field in taxi.table(rows=10).schema
}
FEATURES: dict[str, Any] = {
    "features": {
        **{name: {"kind": "numeric"} for name in ("trip_miles", "fare")},
        **{name: {"kind": "vocabulary", "top_k": 50, "out_of_vocabulary": 3} for name in ("company", "taxi_id")},
        "pickup_community_area": {"kind": "identity", "size": 78},
    },
    "label": {"column": taxi.LABEL, "task": "regression"},
}
EVALUATION = settings.Evaluation.model_validate(
    {"metrics": ["rmse", "mae"], "slices": [["payment_type"], ["trip_start_hour"]], "beat_trivial": False}
)
LABEL = settings.Label(column=taxi.LABEL, task=settings.Task.REGRESSION)


class Model(tf.Module):
    """A fifth of the fare, so that evaluations can be compared without a training."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        fare = tf.io.FixedLenFeature([], tf.float32, default_value=10.0)
        return {"prediction": 0.2 * tf.io.parse_example(examples, {"fare": fare})["fare"]}


@dataclasses.dataclass(frozen=True)
class Nodes:
    """A folder with a table's schema and a model, and a Beam runner; each method runs a node and returns its folder."""

    root: Path
    beam: Sequence[str]

    def prepare(self) -> None:
        tables.write_schema(self.root / "schema" / "schema.pbtxt", TYPES, dense=False)
        model = Model()
        tf.saved_model.save(
            model, str(self.root / "model" / "Format-Serving"), signatures={"serving_default": model.serve}
        )

    def example_gen(self, name: str, pattern: str, **data: Any) -> standard_artifacts.Examples:
        examples = standard_artifacts.Examples()
        examples.uri = str(self.root / name)
        node = example_gen_component.ExampleGen(
            settings.Data(path=pattern, **data), schema_path=str(self.root / "schema" / "schema.pbtxt")
        )
        example_gen.Executor(self._context()).Do({}, {"examples": [examples]}, dict(node.spec.exec_properties))
        return examples

    def statistics(self, name: str, examples: standard_artifacts.Examples) -> Path:
        statistics = standard_artifacts.ExampleStatistics()
        statistics.uri = str(self.root / name)
        statistics_gen.Executor(self._context()).Do({"examples": [examples]}, {"statistics": [statistics]}, {})
        return self.root / name

    def transform(self, name: str, examples: standard_artifacts.Examples) -> Path:
        graph, transformed = standard_artifacts.TransformGraph(), standard_artifacts.Examples()
        graph.uri, transformed.uri = (str(self.root / name / part) for part in ("graph", "examples"))
        config = settings.Preprocessing.model_validate(FEATURES).model_dump(mode="json")
        transform.Executor(self._context()).Do(
            {"examples": [examples], "schema": [self._schema()]},
            {"transform_graph": [graph], "transformed_examples": [transformed]},
            {
                "preprocessing_fn": "transform.preprocessing.preprocessing_fn",
                "custom_config": json.dumps(config),
                "disable_statistics": 1,
                "force_tf_compat_v1": 0,
            },
        )
        return self.root / name

    def evaluation(self, name: str, examples: standard_artifacts.Examples) -> Path:
        model, output = standard_artifacts.Model(), standard_artifacts.ModelEvaluation()
        blessing = standard_artifacts.ModelBlessing()
        model.uri, output.uri = str(self.root / "model"), str(self.root / name)
        blessing.uri = str(self.root / f"{name}-blessing")
        evaluator.Executor(self._context()).Do(
            {"examples": [examples], "schema": [self._schema()], "model": [model]},
            {"evaluation": [output], "blessing": [blessing]},
            {
                "eval_config": proto_utils.proto_to_json(evaluation_config.eval_config(EVALUATION, LABEL)),
                "example_splits": json.dumps(["test"]),
                "evaluation_settings": EVALUATION.model_dump_json(),
                "label": LABEL.model_dump_json(),
            },
        )
        return self.root / name

    def _schema(self) -> standard_artifacts.Schema:
        schema = standard_artifacts.Schema()
        schema.uri = str(self.root / "schema")
        return schema

    def _context(self) -> base_beam_executor.BaseBeamExecutor.Context:
        return base_beam_executor.BaseBeamExecutor.Context(
            beam_pipeline_args=list(self.beam), tmp_dir=str(self.root / "tmp"), unique_id="1"
        )


# --- the same rows ---------------------------------------------------------------------------------------------------


def rows(examples: standard_artifacts.Examples, split: str) -> Counter[bytes]:
    """Counts the rows of a split, each with its features in order; which file holds them is no part of the contract."""
    found: Counter[bytes] = Counter()
    for file in sorted(Path(artifact_utils.get_split_uri([examples], split)).iterdir()):
        for record in tf.data.TFRecordDataset(str(file), "GZIP" if file.suffix == ".gz" else "").as_numpy_iterator():
            found[tf.train.Example.FromString(record).SerializeToString(deterministic=True)] += 1
    return found


def same_rows(found: standard_artifacts.Examples, expected: standard_artifacts.Examples, count: int) -> None:
    splits = artifact_utils.decode_split_names(expected.split_names)
    assert artifact_utils.decode_split_names(found.split_names) == splits
    parts = {split: rows(expected, split) for split in splits}
    assert sum(part.total() for part in parts.values()) == count
    for split, part in parts.items():
        assert part
        assert rows(found, split) == part
    assert not list(Path(found.uri).glob("**/.*")), "nothing is left of the work"


# --- the same statistics ---------------------------------------------------------------------------------------------


def load_statistics(folder: Path, split: str) -> Any:
    return tfdv.load_stats_binary(f"{folder}/Split-{split}/FeatureStats.pb").datasets[0]


def same_statistics(ours: Any, stock: Any) -> None:
    """Compares `DatasetFeatureStatistics`: counts exactly, means and quantiles within what TFDV itself promises."""
    assert ours.num_examples == stock.num_examples
    features = {feature.path.step[0]: feature for feature in ours.features}
    assert set(features) == {feature.path.step[0] for feature in stock.features}
    for expected in stock.features:
        found = features[expected.path.step[0]]
        assert found.type == expected.type
        if expected.HasField("string_stats"):
            # Uniques, top values and ranks with their ties, lengths, counts of missing values: all of it exactly.
            assert found.string_stats == expected.string_stats
        else:
            same_numbers(found.num_stats, expected.num_stats)


def same_numbers(found: Any, expected: Any) -> None:
    assert found.common_stats == expected.common_stats
    if not expected.common_stats.tot_num_values:
        assert found == expected
        return
    for exact in ("num_zeros", "min", "max"):
        assert getattr(found, exact) == getattr(expected, exact)
    for name in ("mean", "std_dev"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-9)
    spread = expected.max - expected.min
    standard, quantiles = found.histograms
    assert sum(bucket.sample_count for bucket in standard.buckets) == pytest.approx(
        sum(bucket.sample_count for bucket in expected.histograms[0].buckets)
    )
    for bucket, other in zip(quantiles.buckets, expected.histograms[1].buckets, strict=True):
        # TFDV's own error is 0.01 of the ranks; these columns have no gap that makes more of it than this.
        assert abs(bucket.high_value - other.high_value) <= 0.05 * spread + 1e-9
    assert abs(found.median - expected.median) <= 0.02 * spread


# --- the same transformed values -------------------------------------------------------------------------------------


def transformed_rows(folder: Path, graph: Path) -> dict[str, list[Any]]:
    """Reads a split in the order of its rows' values: the order of files is no part of the contract."""
    output = tft.TFTransformOutput(str(graph))
    files = [str(file) for file in sorted(folder.iterdir())]
    records = [
        record
        for file in files
        for record in tf.data.TFRecordDataset(file, "GZIP" if file.endswith(".gz") else "").as_numpy_iterator()
    ]
    if not records:
        return {}
    parsed = tf.io.parse_example(records, output.transformed_feature_spec())
    columns = {name: values.numpy() for name, values in parsed.items()}
    order = np.lexsort([columns[name] for name in sorted(columns)])
    return {name: values[order] for name, values in columns.items()}


def _schema(path: Path) -> schema_pb2.Schema:
    return text_format.Parse((path / "schema.pbtxt").read_text(), schema_pb2.Schema())


def same_transformed(ours: Path, stock: Path, rows: Mapping[str, int]) -> None:
    for folder in ("metadata", "transformed_metadata"):
        assert _schema(ours / "graph" / folder) == _schema(stock / "graph" / folder)
    found, expected = (sorted(str(p.relative_to(s)) for p in s.glob("graph/**/*") if p.is_dir()) for s in (ours, stock))
    assert found == expected
    for asset in (stock / "graph" / "transform_fn" / "assets").iterdir():
        assert (ours / "graph" / "transform_fn" / "assets" / asset.name).read_text() == asset.read_text()
    for split, count in rows.items():
        found_rows = transformed_rows(ours / "examples" / f"Split-{split}", ours / "graph")
        expected_rows = transformed_rows(stock / "examples" / f"Split-{split}", stock / "graph")
        assert set(found_rows) == set(expected_rows)
        for name, values in expected_rows.items():
            assert len(found_rows[name]) == count
            np.testing.assert_allclose(found_rows[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
    assert not list(ours.glob("**/.*")), "nothing is left of the work"


# --- the same metrics ------------------------------------------------------------------------------------------------


def metrics(folder: Path) -> dict[tuple[Any, str], float]:
    """Returns every metric of every slice, as TFMA loads them."""
    result = tfma.load_eval_result(str(folder))
    return {
        (key, name): value["doubleValue"]
        for key, found in result.slicing_metrics
        for name, value in found[""][""].items()
        if "doubleValue" in value
    }


def same_metrics(found: Path, expected: Path, *, rel: float = 1e-6) -> None:
    ours, others = metrics(found), metrics(expected)
    assert set(ours) == set(others)
    assert len({key for key, _ in ours}) > 1, "there are slices"
    assert ours == pytest.approx(others, rel=rel, nan_ok=True)
