"""Our ExampleGen beside TFX's own on the same CSV: every row with the same values, types and holes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import tensorflow as tf
from tfx.components.example_gen.csv_example_gen import executor as tfx_executor
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import proto_utils

from datagen import taxi
from tests import data_nodes

ROWS = 3000
BEAM = ["--runner=DirectRunner", "--direct_running_mode=in_memory", "--sdk_container_image=none"]


def _values(examples: standard_artifacts.Examples) -> Counter[bytes]:
    """Counts the rows of all splits; TFX writes a hole as a feature without values, we leave it out."""
    found: Counter[bytes] = Counter()
    for split in artifact_utils.decode_split_names(examples.split_names):
        for row, count in data_nodes.rows(examples, split).items():
            parsed = tf.train.Example.FromString(row)
            for name, feature in list(parsed.features.feature.items()):
                kind = feature.WhichOneof("kind")
                if not kind or not getattr(feature, kind).value:
                    del parsed.features.feature[name]
            found[parsed.SerializeToString(deterministic=True)] += count
    return found


@pytest.mark.slow
def test_rows_are_those_of_tfx(tmp_path: Path) -> None:
    taxi.write(tmp_path / "data", rows=ROWS)
    folder = tmp_path / "data" / "span-1" / "v-1"
    nodes = data_nodes.Nodes(tmp_path, BEAM)
    nodes.prepare()
    ours = nodes.example_gen("ours", f"{folder}/*.csv")
    stock = standard_artifacts.Examples()
    stock.uri = str(tmp_path / "stock")
    stock.split_names = artifact_utils.encode_split_names(["train", "eval"])
    inputs = example_gen_pb2.Input(splits=[example_gen_pb2.Input.Split(name="single_split", pattern="*")])
    buckets = [("train", 2), ("eval", 1)]
    outputs = example_gen_pb2.Output(
        split_config=example_gen_pb2.SplitConfig(
            splits=[example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=count) for name, count in buckets]
        )
    )
    tfx_executor.Executor(BaseBeamExecutor.Context(beam_pipeline_args=BEAM, tmp_dir=str(tmp_path / "tmp"))).Do(
        {},
        {"examples": [stock]},
        {
            "input_base": str(folder),
            "input_config": proto_utils.proto_to_json(inputs),
            "output_config": proto_utils.proto_to_json(outputs),
            "output_data_format": example_gen_pb2.FORMAT_TF_EXAMPLE,
        },
    )
    found = _values(ours)
    assert found.total() == ROWS
    assert found == _values(stock)
