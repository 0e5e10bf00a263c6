"""Batch prediction beside TFX's BulkInferrer: the same model and rows, each with Beam's DirectRunner in one process.

    python -m benchmarks.predict [--rows 200000]

Measured in rows/s from the first file opened to the last answer written, the model's loading included. BulkInferrer
reads tf.Examples, which somebody has encoded before; ours reads the table itself, as CSV and as Parquet.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from benchmarks import harness, transformed, tune
from evergreen.registry import Provenance, Registry
from serving import batch

OUTPUT = Path("benchmarks/out/predict.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table and writes the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.predict", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000, help="rows to answer (default %(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        table = next(tune.tables(options.rows))[2]
        model = _train(root, table)
        registry = Registry(root / "registry", "humidity")
        registry.publish(
            model_dir=model, bundle={"schema.pbtxt": root / "schema" / "schema.pbtxt"}, provenance=Provenance()
        )
        inputs = pa.table({name: values for name, values in table.items() if name != "humidity"})
        csv.write_csv(inputs, root / "rows.csv")
        parquet.write_table(inputs, root / "rows.parquet", row_group_size=1 << 16)
        stock, expected = _stock(root, model)
        figures = []
        for source in ("rows.csv", "rows.parquet"):
            seconds, answers = _ours(root, source)
            if not np.allclose(np.sort(answers), expected, atol=1e-3):
                raise harness.Failed(f"{source} was answered otherwise than by BulkInferrer")
            figures.append(
                harness.Figure(
                    case=source, metric="answered", unit="rows/s", ours=options.rows / seconds,
                    stock=options.rows / stock, lower_is_better=False,
                )
            )  # fmt: skip
    print(f"{harness.machine()}; {options.rows:,} rows; stock is TFX's BulkInferrer on tf.Examples")
    print(harness.table(figures))
    harness.write(figures, OUTPUT)
    return 0


def _train(root: Path, table: Any) -> Path:
    """Trains the default model on the table for a moment."""
    from tfx.components.trainer.fn_args_utils import FnArgs

    from trainer import train

    files, graph = transformed.make(root, tune.REGRESSION, table)
    model = root / "model" / "Format-Serving"
    train.run_fn(
        FnArgs(
            train_files=list(files), eval_files=list(files), transform_graph_path=graph,
            schema_path=str(root / "schema" / "schema.pbtxt"), serving_model_dir=str(model),
            model_run_dir=str(root / "run"), base_model=None, hyperparameters=None,
            custom_config={"preprocessing": tune.REGRESSION, "model": {}, "training": {"max_steps": 50}},
        )
    )  # fmt: skip
    return model


def _stock(root: Path, model: Path) -> tuple[float, Any]:
    """Runs BulkInferrer's executor; returns its seconds and the answers in ascending order."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2
    from tfx.components.bulk_inferrer import executor
    from tfx.dsl.components.base import base_beam_executor
    from tfx.types import artifact_utils, standard_artifacts

    examples, artifact, result = (
        standard_artifacts.Examples(), standard_artifacts.Model(), standard_artifacts.InferenceResult()
    )  # fmt: skip
    examples.uri, artifact.uri, result.uri = str(root / "raw"), str(model.parent), str(root / "inferred")
    examples.split_names = artifact_utils.encode_split_names(["train"])
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    examples.set_string_custom_property("file_format", "tfrecords_gzip")
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=["--runner=DirectRunner", "--direct_num_workers=1"], tmp_dir=str(root / "tmp"), unique_id="1"
    )
    started = time.perf_counter()
    executor.Executor(context).Do(
        {"examples": [examples], "model": [artifact]},
        {"inference_result": [result]},
        {"data_spec": "{}", "model_spec": "{}"},
    )
    seconds = time.perf_counter() - started
    answers = []
    for path in (root / "inferred").glob("*.gz"):
        for record in tf.data.TFRecordDataset(str(path), compression_type="GZIP").as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(record)
            answers.append(tf.make_ndarray(log.predict_log.response.outputs["prediction"]).reshape(-1))
    return seconds, np.sort(np.concatenate(answers))


def _ours(root: Path, source: str) -> tuple[float, Any]:
    """Answers a file; returns the seconds and the answers in the order of the rows."""
    output = root / f"answers-{source}"
    started = time.perf_counter()
    batch.run_batch(
        registry=root / "registry", name="humidity", sources=[str(root / source)], output=str(output), log=io.StringIO()
    )
    seconds = time.perf_counter() - started
    parts = [parquet.read_table(path)["prediction"] for path in sorted(output.glob("part-*"))]
    return seconds, np.concatenate([part.to_numpy() for part in parts])


if __name__ == "__main__":
    sys.exit(main())
