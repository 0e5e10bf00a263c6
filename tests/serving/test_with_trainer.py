"""The predictor and the trainer's export agree on raw columns: a row is answered as its tf.Example is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


@pytest.mark.slow
def test_lists_are_answered_as_their_examples_are(tmp_path: Path):
    import tensorflow as tf

    types = {"tags": "BYTES", "rooms": "INT", "tips": "FLOAT"}
    config = {
        "features": {
            "tags": {"kind": "vocabulary", "max_values": 3},
            "rooms": {"kind": "identity", "size": 6, "max_values": 2},
            "first": {"kind": "hash", "column": "tags", "buckets": 40},
        },
        "label": {"column": "tips", "task": "regression"},
    }
    table = {
        "tags": [["a", "b"], ["c"], None, ["b", "c", "a", "d"]] * 5,
        "rooms": [[1, 2], None, [5], [0]] * 5,
        "tips": [1.0, 2.0, 3.0, 4.0] * 5,
    }
    predictor, model = _published(tmp_path, {"train": table, "eval": table}, types, config)
    rows: list[dict[str, object]] = [
        {"tags": ["a", "b"], "rooms": [1, 2]},
        {"tags": ["b", "a"], "rooms": [2, 1, 5]},
        {"tags": "a", "rooms": 1},
        {"tags": ["b", "c", "a", "d"]},
        {"rooms": [5]},
        {},
    ]
    answers = [answer.outputs["prediction"] for answer in predictor.predict(rows) if answer.outputs]
    signature = tf.saved_model.load(str(model)).signatures["serving_default"]
    expected = signature(examples=tf.constant([_example(row) for row in rows]))["prediction"].numpy()
    assert answers == pytest.approx(expected.tolist(), abs=1e-5)
    assert len(set(answers)) == len(rows)


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "task"), [((-5, 9, 10), "multiclass"), ((0, 1), "binary"), ((9, 10), "binary")])
def test_whole_number_labels_come_back_as_they_are_in_the_order_of_numbers(
    tmp_path: Path, classes: tuple[int, ...], task: str
):
    """As texts 10 would come before 9, and -5 last: probabilities go by the numbers."""
    config = {"features": {"town": {"kind": "vocabulary"}}, "label": {"column": "grade", "task": task}}
    towns = [f"town {place}" for place in range(len(classes))]
    # The most frequent class is the last one, so that the vocabulary's own order is another one.
    drawn = [place for place in range(len(classes)) for _ in range(20 + 20 * place)]
    table = {"town": [towns[place] for place in drawn], "grade": [classes[place] for place in drawn]}
    table["grade"][0] = None
    predictor, _ = _published(
        tmp_path, {"train": table, "eval": table}, {"town": "BYTES", "grade": "INT"}, config, trained=True
    )
    answers = [answer.outputs for answer in predictor.predict([{"town": town} for town in towns])]
    for place, answer in enumerate(answers):
        assert answer is not None
        assert answer["prediction"] == classes[place]
        assert type(answer["prediction"]) is int
        if task == "multiclass":
            assert max(range(len(classes)), key=answer["probabilities"].__getitem__) == place
        else:
            assert (answer["probability"] > 0.5) == (place == 1)


def _published(
    folder: Path, splits: dict[str, Any], types: dict[str, str], config: dict[str, Any], *, trained: bool = False
) -> tuple[Predictor, Path]:
    """Puts tables through Transform, exports a model (trained or fresh) and loads it as `predict` does."""
    import tensorflow_transform as tft

    from tests.trainer.conftest import train_on
    from trainer import export, features, model

    made = tables.run_transform(folder / "transform", splits, types, config, dense=False)
    if trained:
        run = train_on(made, folder, training={"epochs": 30, "batch_size": 16, "learning_rate": 0.05})
        return Predictor.load(run.model, bundle_dir=made.schema_path.parent), run.model
    transform = tft.TFTransformOutput(str(made.graph))
    read = features.read(transform, made.config)
    keras = model.build(settings.Model(hidden_units=[4]), read, label_mean=2.5, label_deviation=1.0, seed=1)
    export.export(str(folder / "model"), keras, transform, read, made.config)
    return Predictor.load(folder / "model", bundle_dir=made.schema_path.parent), folder / "model"


def _example(row: dict[str, object]) -> bytes:
    """Serializes a row; what is missing is absent."""
    import tensorflow as tf

    def feature(value: Any) -> tf.train.Feature:
        values = value if isinstance(value, list) else [value]
        if isinstance(values[0], str):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode() for text in values]))
        if isinstance(values[0], int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    present = {name: feature(value) for name, value in row.items() if value not in (None, "")}
    return tf.train.Example(features=tf.train.Features(feature=present)).SerializeToString()
