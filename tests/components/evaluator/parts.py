"""Hand-made SavedModels, examples and artifacts for the Evaluator: real ones, of which every metric is known."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tfx.components.evaluator import constants
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import proto_utils

from components.evaluator import executor
from evergreen import settings
from pipeline import evaluation as evaluation_config
from tests import tables

REGRESSION = settings.Label(column="y", task=settings.Task.REGRESSION)
REGRESSION_TYPES = {"x": "FLOAT", "group": "INT", "y": "FLOAT"}
_DTYPES = {"INT": tf.int64, "FLOAT": tf.float32, "BYTES": tf.string}


def regression_table(rows: int, seed: int) -> dict[str, Any]:
    """y = 3 x + noise of standard deviation 1; three groups; the last row has no label."""
    random = np.random.default_rng(seed)
    x = random.normal(0, 2, rows).astype(np.float32)
    y: list[float | None] = [float(v) for v in np.float32(3 * x + random.normal(0, 1, rows))]
    y[-1] = None
    return {"x": x, "group": np.arange(rows) % 3, "y": y}


class Regression(tf.Module):
    """prediction = slope * x, with the serving signature of the project."""

    def __init__(self, slope: float, offset_of_group_2: float = 0.0) -> None:
        super().__init__()
        self.slope = tf.Variable(slope)
        self.offset = tf.Variable(offset_of_group_2)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = tf.io.parse_example(
            examples,
            {"x": tf.io.FixedLenFeature([], tf.float32), "group": tf.io.FixedLenFeature([], tf.int64)},
        )
        extra = tf.where(parsed["group"] == 2, self.offset, 0.0)
        return {"prediction": self.slope * parsed["x"] + extra}


class Binary(tf.Module):
    """The chance of the second class is the logistic function of slope * x."""

    def __init__(self, slope: float, classes: list[str]) -> None:
        super().__init__()
        self.slope = tf.Variable(slope)
        self.classes = tf.constant(classes)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        x = tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([], tf.float32)})["x"]
        probability = tf.sigmoid(self.slope * x)
        return {
            "prediction": tf.gather(self.classes, tf.cast(probability >= 0.5, tf.int32)),
            "probability": probability,
        }


class Multiclass(tf.Module):
    """Three classes by where x lies; knows integer labels 10, 20, 30."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        x = tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([], tf.float32)})["x"]
        probabilities = tf.nn.softmax(tf.stack([-2 * x, tf.zeros_like(x), 2 * x], axis=1))
        return {
            "prediction": tf.gather(tf.constant([10, 20, 30], tf.int64), tf.argmax(probabilities, axis=1)),
            "probabilities": probabilities,
        }


def save(module: Any, uri: Path) -> Path:
    """Exports a module as TFX's model artifact."""
    tf.saved_model.save(module, str(uri / "Format-Serving"), signatures={"serving_default": module.serve})
    return uri


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the executor left."""

    verdict: dict[str, Any]
    evaluation: Path
    blessing: standard_artifacts.ModelBlessing

    @property
    def blessed_file(self) -> bool:
        folder = Path(self.blessing.uri)
        files = {path.name for path in folder.iterdir()}
        assert len(files) == 1
        return files == {constants.BLESSED_FILE_NAME}

    @property
    def places(self) -> list[str]:
        return [reason["where"] for reason in self.verdict["reasons"]]


@dataclasses.dataclass(frozen=True)
class Data:
    """Examples with a train and a test split, and their schema."""

    examples: Path
    schema: Path


def write_data(root: Path, splits: Mapping[str, Any], types: Mapping[str, str]) -> Data:
    tables.write_examples(root / "examples", splits)
    (root / "schema").mkdir()
    lines = [f'feature {{ name: "{name}" type: {kind} }}' for name, kind in types.items()]
    (root / "schema" / "schema.pbtxt").write_text("\n".join(lines))
    return Data(root / "examples", root / "schema")


def evaluate(
    root: Path,
    data: Data,
    model: Path,
    *,
    evaluation: settings.Evaluation,
    label: settings.Label,
    champion: Path | None = None,
) -> Outcome:
    """Runs the executor; `champion` is an artifact's folder, which may hold no model."""
    examples, schema = standard_artifacts.Examples(), standard_artifacts.Schema()
    candidate, blessing = standard_artifacts.Model(), standard_artifacts.ModelBlessing()
    output = standard_artifacts.ModelEvaluation()
    examples.uri, schema.uri, candidate.uri = str(data.examples), str(data.schema), str(model)
    blessing.uri, output.uri = str(root / "blessing"), str(root / "evaluation")
    examples.split_names = artifact_utils.encode_split_names(sorted(p.name[6:] for p in data.examples.iterdir()))
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    examples.set_string_custom_property("file_format", "tfrecords_gzip")
    candidate.id = 7
    inputs = {"examples": [examples], "schema": [schema], "model": [candidate]}
    if champion:
        baseline = standard_artifacts.Model()
        baseline.uri, baseline.id = str(champion), 8
        inputs["baseline_model"] = [baseline]
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=["--runner=DirectRunner", "--direct_running_mode=in_memory"],
        tmp_dir=str(root / "tmp"),
        unique_id="1",
    )
    executor.Executor(context).Do(
        inputs,
        {"evaluation": [output], "blessing": [blessing]},
        {
            "eval_config": proto_utils.proto_to_json(evaluation_config.eval_config(evaluation, label)),
            "example_splits": json.dumps(["test"]),
            "evaluation_settings": evaluation.model_dump_json(),
            "label": label.model_dump_json(),
        },
    )
    verdict = json.loads((root / "evaluation" / "verdict.json").read_text())
    return Outcome(verdict, root / "evaluation", blessing)
