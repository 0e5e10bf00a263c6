"""Our Evaluator beside TFX's own on the same rows and model: the same metrics of the same slices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tensorflow_model_analysis as tfma
from tfx.components.evaluator import executor as tfx_executor
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import proto_utils

from datagen import taxi
from tests import data_nodes, tables

BEAM = ["--runner=DirectRunner", "--direct_running_mode=in_memory", "--sdk_container_image=none"]
TFMA = {"rmse": "RootMeanSquaredError", "mae": "MeanAbsoluteError"}


@pytest.mark.slow
def test_metrics_are_those_of_tfx(tmp_path: Path) -> None:
    nodes = data_nodes.Nodes(tmp_path, BEAM)
    nodes.prepare()
    # TFMA, asked itself, fails on a row without a label; ours leaves it out, which other tests hold.
    parts = {
        split: taxi.table(rows=rows, part=part) for part, (split, rows) in enumerate((("train", 500), ("test", 2000)))
    }
    labelled = {split: table.filter(table.column(taxi.LABEL).is_valid()) for split, table in parts.items()}
    tables.write_examples(tmp_path / "examples", {split: table.to_pydict() for split, table in labelled.items()})
    examples = standard_artifacts.Examples()
    examples.uri = str(tmp_path / "examples")
    examples.split_names = artifact_utils.encode_split_names(["train", "test"])
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    examples.set_string_custom_property("file_format", "tfrecords_gzip")
    ours = nodes.evaluation("ours", examples)

    config = tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(signature_name="serving_default", label_key=taxi.LABEL, prediction_key="prediction")
        ],
        slicing_specs=[
            tfma.SlicingSpec(), *(tfma.SlicingSpec(feature_keys=keys) for keys in data_nodes.EVALUATION.slices)
        ],
        metrics_specs=[
            tfma.MetricsSpec(
                metrics=[
                    tfma.MetricConfig(class_name="ExampleCount"),
                    *(
                        tfma.MetricConfig(class_name=TFMA[name], config=json.dumps({"name": name}))
                        for name in data_nodes.EVALUATION.metrics
                    ),
                ]
            )
        ],
    )  # fmt: skip
    model, output = standard_artifacts.Model(), standard_artifacts.ModelEvaluation()
    blessing, schema = standard_artifacts.ModelBlessing(), standard_artifacts.Schema()
    model.uri, schema.uri = str(tmp_path / "model"), str(tmp_path / "schema")
    output.uri, blessing.uri = str(tmp_path / "stock"), str(tmp_path / "stock-blessing")
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=BEAM, tmp_dir=str(tmp_path / "tmp"), unique_id="1"
    )
    tfx_executor.Executor(context).Do(
        {"examples": [examples], "schema": [schema], "model": [model]},
        {"evaluation": [output], "blessing": [blessing]},
        {"eval_config": proto_utils.proto_to_json(config), "example_splits": json.dumps(["test"])},
    )
    found, expected = data_nodes.metrics(ours), data_nodes.metrics(tmp_path / "stock")
    assert len(expected) > 3 * 20
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-5)
    assert {key for key, _ in found} == {key for key, _ in expected}
