"""The SavedModel's three signatures: they agree with Transform and Keras, need no label, and bear what is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from tests import tables
from tests.trainer.conftest import Run, train_on
from trainer import export, train

pytestmark = pytest.mark.slow


def _example(row: dict[str, Any]) -> bytes:
    features = tf.train.Features()
    for name, value in row.items():
        if isinstance(value, (bytes, str)):
            features.feature[name].bytes_list.value.append(value.encode() if isinstance(value, str) else value)
        elif isinstance(value, (int, np.integer)):
            features.feature[name].int64_list.value.append(int(value))
        else:
            features.feature[name].float_list.value.append(float(value))
    return tf.train.Example(features=features).SerializeToString()


def _rows(table: dict[str, Any], *, without: str) -> list[dict[str, Any]]:
    names = [name for name in table if name != without]
    return [dict(zip(names, row, strict=True)) for row in zip(*(table[name] for name in names), strict=True)]


@pytest.fixture(scope="module")
def served(humidity_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The SavedModel alone in another place, with no file of the run beside it."""
    moved = tmp_path_factory.mktemp("elsewhere") / "1"
    shutil.copytree(humidity_run.model, moved)
    return tf.saved_model.load(str(moved))


def test_all_ways_agree_on_10_000_rows(humidity: tables.Transformed, humidity_run: Run, served: Any) -> None:
    table = tables.humidity_table(10_000, 4)
    columns = {name: values for name, values in table.items() if name != "humidity"}
    raw = served.signatures["raw"](**{name: tf.constant(values) for name, values in columns.items()})
    examples = tf.constant([_example(row) for row in _rows(table, without="humidity")])
    by_example = served.signatures["serving_default"](examples=examples)
    transform = tft.TFTransformOutput(str(humidity.graph)).transform_features_layer()
    transformed = transform({name: tf.constant(values[:, None]) for name, values in columns.items()})
    model = keras.models.load_model(humidity_run.folder / train.MODEL_FILE, compile=False)
    keras_prediction = model.predict(dict(transformed), batch_size=1000, verbose=0)[:, 0]
    assert raw["prediction"].dtype == tf.float32
    assert raw["prediction"].shape == (10_000,)
    np.testing.assert_allclose(raw["prediction"], by_example["prediction"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(raw["prediction"], keras_prediction, rtol=0, atol=1e-5)
    assert np.std(keras_prediction) > 5  # they do not agree on a constant
    again = served.signatures["transform_features"](examples=examples)
    assert set(again) == {"beta1", "beta2", "week_hour"}
    for name, values in again.items():
        np.testing.assert_array_equal(values, transformed[name])


def test_signatures_name_the_raw_columns_and_never_the_label(served: Any) -> None:
    inputs = served.signatures["raw"].structured_input_signature[1]
    assert {name: (spec.dtype, spec.shape.as_list()) for name, spec in inputs.items()} == {
        "beta1": (tf.float32, [None]),
        "beta2": (tf.float32, [None]),
        "hour": (tf.int64, [None]),
        "weekday": (tf.int64, [None]),
    }
    for name in ("serving_default", "transform_features"):
        inputs = served.signatures[name].structured_input_signature[1]
        assert {key: (spec.dtype, spec.shape.as_list()) for key, spec in inputs.items()} == {
            "examples": (tf.string, [None])
        }


def test_what_is_missing_is_missing_in_both_ways(served: Any) -> None:
    full = {"beta1": 1.0, "beta2": 1.0, "weekday": 0, "hour": 19}
    rows = [full, *({k: v for k, v in full.items() if k != name} for name in full), {}]
    marker = {"beta1": np.nan, "beta2": np.nan, "weekday": tf.int64.min, "hour": tf.int64.min}
    raw = {
        name: tf.constant([row.get(name, marker[name]) for row in rows], tf.float32 if "beta" in name else tf.int64)
        for name in full
    }
    by_column = served.signatures["raw"](**raw)["prediction"].numpy()
    by_example = served.signatures["serving_default"](examples=tf.constant([_example(row) for row in rows]))
    np.testing.assert_allclose(by_column, by_example["prediction"].numpy(), atol=1e-5)
    assert np.isfinite(by_column).all()
    alone = served.signatures["raw"](**{name: column[:1] for name, column in raw.items()})["prediction"].numpy()
    np.testing.assert_allclose(by_column[:1], alone, atol=1e-5)  # the rows beside it change nothing


def test_the_model_is_small(humidity_run: Run) -> None:
    size = sum(path.stat().st_size for path in humidity_run.model.rglob("*") if path.is_file())
    assert size < 4 * humidity_run.report["parameters"] + 200_000


TYPES = {"home town": "BYTES", "x": "FLOAT", "unused": "FLOAT", "answer": "BYTES", "grade": "INT"}
CITIES = {"bern": 0, "oslo": 1, "rome": 2, "": 0}


def _classified(rows: int, seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    city = random.choice(["bern", "oslo", "rome"], rows)
    x = random.normal(size=rows).astype(np.float32)
    return {
        "home town": [None if name == "bern" and x[n] > 2 else name for n, name in enumerate(city)],
        "x": x,
        "unused": x,
        "answer": np.where(x > 0.5, "yes", "no"),
        "grade": np.array([1, 3, 5])[[CITIES[name] for name in city]],
    }


@pytest.mark.parametrize(("label", "task"), [("answer", "binary"), ("grade", "multiclass")])
def test_classes_are_answered_as_the_data_name_them(tmp_path: Path, label: str, task: str) -> None:
    config = {
        "features": {"home town": {"kind": "vocabulary"}, "x": {"kind": "numeric"}},
        "label": {"column": label, "task": task},
    }
    splits = {"train": _classified(4000, 1), "eval": _classified(500, 2)}
    transformed = tables.run_transform(tmp_path / "transform", splits, TYPES, config, dense=False)
    run = train_on(transformed, tmp_path, training={"epochs": 8, "batch_size": 64, "learning_rate": 0.01})
    shutil.move(run.model, tmp_path / "moved")
    shutil.rmtree(transformed.graph)
    served = tf.saved_model.load(str(tmp_path / "moved"))
    test = _classified(1000, 3)
    raw = {"home_town": tf.constant([city or "" for city in test["home town"]]), "x": tf.constant(test["x"])}
    answer = {name: values.numpy() for name, values in served.signatures["raw"](**raw).items()}
    expected = np.array([str(value).encode() for value in test[label]]) if label == "answer" else test[label]
    assert (answer["prediction"] == expected).mean() > 0.95
    if task == "binary":
        assert set(answer) == {"prediction", "probability"}
        np.testing.assert_array_equal(answer["prediction"] == b"yes", answer["probability"] >= 0.5)
    else:
        assert answer["probabilities"].shape == (1000, 3)
        np.testing.assert_array_equal(np.array([1, 3, 5])[answer["probabilities"].argmax(1)], answer["prediction"])
    examples = tf.constant([_example({"home town": "rome", "x": 2.0}), _example({})])
    by_example = served.signatures["serving_default"](examples=examples)["prediction"].numpy()
    assert by_example[0] == (b"yes" if task == "binary" else 5)


def test_the_warm_up_requests_are_answered(humidity_run: Run, served: Any) -> None:
    from tensorflow_serving.apis import prediction_log_pb2

    records = tf.data.TFRecordDataset(str(humidity_run.model / "assets.extra" / "tf_serving_warmup_requests"))
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records.as_numpy_iterator()]
    requests = [log.predict_log.request for log in logs]
    assert [request.model_spec.signature_name for request in requests] == ["serving_default", "raw"] * 2
    for request, rows in zip(requests, (1, 1, 32, 32), strict=True):
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        answer = served.signatures[request.model_spec.signature_name](**inputs)
        assert answer["prediction"].shape == (rows,)
        assert np.isfinite(answer["prediction"]).all()


def test_the_input_example_is_a_request_and_its_answer(humidity_run: Run, served: Any) -> None:
    example = json.loads((humidity_run.model / export.INPUT_EXAMPLE).read_text())
    assert example["request"]["signature_name"] == "raw"
    inputs = served.signatures["raw"].structured_input_signature[1]
    assert example["request"]["inputs"].keys() == inputs.keys()
    tensors = {name: tf.constant(example["request"]["inputs"][name], inputs[name].dtype) for name in inputs}
    answer = served.signatures["raw"](**tensors)["prediction"].numpy()
    assert answer == pytest.approx(example["response"]["outputs"]["prediction"], rel=1e-5)


def test_an_example_keeps_to_the_domains_of_the_schema() -> None:
    schema = text_format.Parse(
        """
        feature { name: "a" type: INT int_domain { min: 5 max: 9 } }
        feature { name: "b" type: INT int_domain { min: 5 } }
        feature { name: "c" type: FLOAT float_domain { min: -inf max: -3.0 } }
        feature { name: "d" type: FLOAT }
        feature { name: "e" type: BYTES domain: "cities" }
        feature { name: "f" type: BYTES string_domain { value: "x" value: "y" } }
        feature { name: "g" type: BYTES }
        string_domain { name: "cities" value: "ulm" }
        """,
        schema_pb2.Schema(),
    )
    types = {"a": tf.int64, "b": tf.int64, "c": tf.float32, "d": tf.float32} | dict.fromkeys("efg", tf.string)
    values = {name: export._admitted(schema, name, dtype) for name, dtype in types.items()}
    assert values == {"a": 7, "b": 5, "c": -3.0, "d": 0.0, "e": "ulm", "f": "x", "g": "a"}


def test_quantised_variants_are_measured_and_recorded(humidity: tables.Transformed, tmp_path: Path) -> None:
    kinds = ["float16", "int8", "int8_calibrated"]
    run = train_on(humidity, tmp_path, training={"epochs": 1, "tflite": kinds})
    report = run.report["tflite"]
    assert list(report) == kinds
    saved_model = sum(
        path.stat().st_size for path in run.model.rglob("*") if path.is_file() and path.suffix != ".tflite"
    )
    for kind, told in report.items():
        content = (run.model / told["file"]).read_bytes()
        assert len(content) == told["bytes"]
        assert told["saved_model_bytes"] == pytest.approx(saved_model, rel=0.05)
        rmse = told["metrics"]["rmse"]
        assert rmse["keras"] == pytest.approx(run.report["history"]["val_rmse"][-1], rel=1e-4)
        assert rmse["difference"] == pytest.approx(rmse["tflite"] - rmse["keras"])
        assert 0 < abs(rmse["difference"]) < 0.05, kind  # another model, and nearly as good
    # 1 x 11,000 + 2,080 + 170 weights: of four bytes, of two, and of one in the large matrix.
    assert report["int8"]["bytes"] < report["float16"]["bytes"] < 4 * run.report["parameters"]
