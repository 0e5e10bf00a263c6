"""StatisticsGen, Transform and the Trainer's input, all of them stock, read the splits as they are."""

from __future__ import annotations

import pathlib

import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.components.statistics_gen import executor as statistics_gen
from tfx.components.transform import executor as transform
from tfx.components.util import tfxio_utils
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.types import artifact_utils, standard_artifacts
from tfx_bsl.tfxio import dataset_options

from components.example_gen.component import ExampleGen
from components.example_gen.executor import Executor
from evergreen import settings

SCHEMA = """
feature { name: "n" type: FLOAT }
feature { name: "i" type: INT }
feature { name: "s" type: BYTES }
"""
BEAM = ["--runner=DirectRunner", "--direct_running_mode=in_memory", "--sdk_container_image=unused"]


def preprocessing_fn(inputs, custom_config):
    """Tells of each row whether it has a number."""
    n = inputs["n"]
    numbers = tf.sparse.to_dense(tf.SparseTensor(n.indices, n.values, [n.dense_shape[0], 1]), default_value=-1.0)
    return {"has_number": tf.cast(numbers >= 0.0, tf.int64)}


def made(artifact_type, uri, **properties):
    artifact = artifact_type()
    artifact.uri = str(uri)
    for name, value in properties.items():
        setattr(artifact, name, value)
    return artifact


def run(executor, root, inputs, outputs, properties):
    context = BaseBeamExecutor.Context(beam_pipeline_args=BEAM, tmp_dir=str(root / "tmp"), unique_id="1")
    executor(context).Do(
        {name: [artifact] for name, artifact in inputs.items()},
        {name: [artifact] for name, artifact in outputs.items()},
        properties,
    )


@pytest.fixture(scope="module", params=["none", "gzip"])
def examples(request, tmp_path_factory):
    """600 rows; every third lacks `n`, every third `i`, and every third has all."""
    root = tmp_path_factory.mktemp("readers")
    (root / "schema").mkdir()
    schema = root / "schema" / "schema.pbtxt"
    schema.write_text(SCHEMA)
    (root / "x.csv").write_text("n,i,s\n" + "".join(f"{k},,a\n,{k},b\n{k},{k},c\n" for k in range(200)))
    data = settings.Data(path=f"{root}/x.csv", compression=request.param, shards=3)
    artifact = made(standard_artifacts.Examples, root / "examples")
    run(
        Executor, root, {}, {"examples": artifact}, dict(ExampleGen(data, schema_path=str(schema)).spec.exec_properties)
    )
    return artifact


@pytest.mark.slow
def test_statistics_gen(examples, tmp_path):
    statistics = made(standard_artifacts.ExampleStatistics, tmp_path / "statistics")
    run(
        statistics_gen.Executor,
        tmp_path,
        {"examples": examples},
        {"statistics": statistics},
        {"exclude_splits": "[]", "stats_options_json": None, "sharded_stats_output": False},
    )
    rows, present = 0, {"n": 0, "i": 0, "s": 0}
    for split in examples.splits:
        (dataset,) = tfdv.load_stats_binary(
            f"{artifact_utils.get_split_uri([statistics], split)}/FeatureStats.pb"
        ).datasets
        rows += dataset.num_examples
        for feature in dataset.features:
            present[feature.path.step[0]] += getattr(feature, feature.WhichOneof("stats")).common_stats.num_non_missing
    assert rows == 600
    assert present == {"n": 400, "i": 400, "s": 600}


@pytest.mark.slow
def test_transform(examples, tmp_path):
    schema = made(standard_artifacts.Schema, pathlib.Path(examples.uri).parent / "schema")
    outputs = {
        "transform_graph": made(standard_artifacts.TransformGraph, tmp_path / "graph"),
        "transformed_examples": made(standard_artifacts.Examples, tmp_path / "transformed"),
        "updated_analyzer_cache": made(standard_artifacts.TransformCache, tmp_path / "cache"),
    }
    properties = {
        "preprocessing_fn": f"{__name__}.preprocessing_fn",
        "module_path": None,
        "custom_config": "{}",
        "force_tf_compat_v1": 0,
        "disable_statistics": 1,
        "splits_config": '{"analyze": ["train"], "transform": ["train", "eval", "test"]}',
    }
    run(transform.Executor, tmp_path, {"examples": examples, "schema": schema}, outputs, properties)
    values = []
    for split in examples.splits:
        for path in (tmp_path / "transformed" / f"Split-{split}").iterdir():
            for row in tf.data.TFRecordDataset(str(path), "GZIP").as_numpy_iterator():
                values += tf.train.Example.FromString(row).features.feature["has_number"].int64_list.value
    assert sorted(values) == [0] * 200 + [1] * 400


def test_the_trainers_input(examples):
    schema = text_format.Parse(SCHEMA, schema_pb2.Schema())
    factory = tfxio_utils.get_tf_dataset_factory_from_artifact([examples], [])
    patterns = [f"{examples.uri}/Split-{split}/*" for split in examples.splits]
    options = dataset_options.TensorFlowDatasetOptions(batch_size=64, num_epochs=1, shuffle=False)
    rows = present = 0
    for batch in factory(patterns, options, schema):
        rows += int(batch["n"].dense_shape[0])
        present += int(tf.size(batch["n"].values))
    assert (rows, present) == (600, 400)
