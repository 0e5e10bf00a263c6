"""The predictor and the trainer's export agree on raw columns: a row is answered as its tf.Example is."""

from __future__ import annotations

from pathlib import Path

import pytest

from evergreen import settings
from serving.predictor import Predictor
from tests import tables

TYPES = {"trip_miles": "FLOAT", "hour": "INT", "company": "BYTES", "tips": "FLOAT"}
CONFIG = {
    "features": {
        "miles": {"kind": "numeric", "column": "trip_miles"},
        "hour": {"kind": "identity", "size": 24},
        "company": {"kind": "vocabulary", "top_k": 10},
    },
    "label": {"column": "tips", "task": "regression"},
}
ROWS: list[dict[str, object]] = [
    {"trip_miles": 1.5, "hour": 3, "company": "blue"},
    {"trip_miles": None, "hour": 3, "company": "blue"},
    {"trip_miles": 1.5, "hour": None, "company": "red"},
    {"trip_miles": 1.5, "hour": 23, "company": ""},
    {},
]


@pytest.mark.slow
def test_rows_with_missing_values_are_answered_as_their_examples_are(tmp_path: Path):
    import tensorflow as tf
    import tensorflow_transform as tft

    from trainer import export, features, model

    table = {
        "trip_miles": [1.0, 2.0, None, 4.0] * 5,
        "hour": [1, None, 3, 23] * 5,
        "company": [b"blue", b"red", b"blue", None] * 5,
        "tips": [1.0, 2.0, 3.0, 4.0] * 5,
    }
    made = tables.run_transform(tmp_path, {"train": table, "eval": table}, TYPES, CONFIG, dense=False)
    transform = tft.TFTransformOutput(str(made.graph))
    read = features.read(transform, made.config)
    keras = model.build(settings.Model(hidden_units=[4]), read, label_mean=2.5, label_deviation=1.0, seed=1)
    export.export(str(tmp_path / "model"), keras, transform, read, made.config)

    predictor = Predictor.load(tmp_path / "model", bundle_dir=made.schema_path.parent)
    answers = [
        answer.outputs["prediction"] if answer.outputs else answer.problems for answer in predictor.predict(ROWS)
    ]

    serving_default = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    expected = serving_default(examples=tf.constant([_example(row) for row in ROWS]))["prediction"].numpy()
    assert answers == pytest.approx(expected.tolist(), abs=1e-5)
    assert len(set(answers)) == len(ROWS)


def _example(row: dict[str, object]) -> bytes:
    """Serializes a row; what is missing is absent."""
    import tensorflow as tf

    def feature(value: object) -> tf.train.Feature:
        if isinstance(value, str):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
        if isinstance(value, int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))

    present = {name: feature(value) for name, value in row.items() if value not in {None, ""}}
    return tf.train.Example(features=tf.train.Features(feature=present)).SerializeToString()
