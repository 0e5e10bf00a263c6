"""Every kind of feature through TFX's own Transform executor, from dense and from sparse columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from evergreen import errors
from tests import tables
from trainer import data, features
from transform import preprocessing

TYPES = {
    "number": "FLOAT", "ranged": "FLOAT", "plain": "INT", "day": "INT", "hour": "INT", "city": "BYTES", "code": "INT",
    "label": "FLOAT",
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "features": {
        "number": {"kind": "numeric"},
        "ranged": {"kind": "numeric", "scale": "min_max"},
        "plain": {"kind": "numeric", "scale": "none"},
        "weekday": {"kind": "identity", "column": "day", "size": 7},
        "week_hour": {"kind": "cross", "parts": [{"column": "day", "size": 7}, {"column": "hour", "size": 24}]},
        "city": {"kind": "vocabulary", "top_k": 2, "out_of_vocabulary": 2},
        "code": {"kind": "vocabulary"},
    },
    "label": {"column": "label", "task": "regression"},
}
TABLE: dict[str, list[Any]] = {
    "number": [1.0, 2.0, 3.0, 6.0, 3.0],
    "ranged": [-1.0, 0.0, 1.0, 3.0, 2.0],
    "plain": [10, 20, 30, 40, 50],
    "day": [0, 6, 3, 0, 2],
    "hour": [0, 23, 5, 1, 7],
    "city": ["bern", "bern", "bern", "oslo", "oslo"],
    "code": [7, 7, 900, 7, 900],
    "label": [0.5, 1.5, 2.5, 3.5, 4.5],
}
ODD: dict[str, list[Any]] = {  # what training never saw; the last row is the border of every range
    "number": [float("nan"), float("inf"), 3.0],
    "ranged": [float("nan"), 7.0, 3.0],
    "plain": [int(tf.int64.min), 0, 1],
    "day": [7, -1, 6],
    "hour": [3, 24, 23],
    "city": ["", "rome", "oslo"],
    "code": [int(tf.int64.min), 8, 900],
    "label": [1.0, 1.0, 1.0],
}


@pytest.fixture(scope="module", params=["dense", "sparse"])
def transformed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tables.Transformed:
    odd: dict[str, list[Any]] = ODD
    if request.param == "sparse":  # the same rows, with missing values absent instead of marked
        odd = {name: [None if _is_marker(value) else value for value in values] for name, values in ODD.items()}
    root = tmp_path_factory.mktemp(request.param)
    return tables.run_transform(root, {"train": TABLE, "odd": odd}, TYPES, CONFIG, dense=request.param == "dense")


def _is_marker(value: Any) -> bool:
    return value in ("", int(tf.int64.min)) or value != value


def _columns(transformed: tables.Transformed, split: str) -> tuple[features.Features, data.Columns]:
    read = features.read(tft.TFTransformOutput(str(transformed.graph)), transformed.config)
    files = sorted(str(file) for file in (transformed.examples / f"Split-{split}").iterdir())
    columns = data.read_columns(files, read)
    order = np.argsort(columns["label"], kind="stable")
    return read, {name: values[order] for name, values in columns.items()}


@pytest.mark.slow
def test_features_and_their_sizes(transformed: tables.Transformed) -> None:
    read, columns = _columns(transformed, "train")
    assert read.numeric == ("number", "ranged", "plain")
    assert read.categories == {"weekday": 7, "week_hour": 168, "city": 2 + 2, "code": 2 + 1}
    numbers = np.array(TABLE["number"])
    np.testing.assert_allclose(columns["number"], (numbers - numbers.mean()) / numbers.std(), rtol=1e-6)
    np.testing.assert_allclose(columns["ranged"], [0, 0.25, 0.5, 1, 0.75], rtol=1e-6)
    assert columns["plain"].tolist() == TABLE["plain"]
    assert columns["weekday"].tolist() == TABLE["day"]
    assert columns["week_hour"].tolist() == [0, 6 * 24 + 23, 3 * 24 + 5, 1, 2 * 24 + 7]
    assert columns["city"].tolist() == [0, 0, 0, 1, 1]
    assert columns["code"].tolist() == [0, 0, 1, 0, 1]
    assert columns["label"].tolist() == TABLE["label"]


@pytest.mark.slow
def test_missing_and_out_of_range_values_alias_nothing(transformed: tables.Transformed) -> None:
    _, columns = _columns(transformed, "odd")
    rows = {name: sorted(values.tolist()) for name, values in columns.items()}
    assert rows["number"] == [0, 0, 0]  # twice the mean of the train split, and 3.0, which is that mean
    np.testing.assert_allclose(rows["ranged"], sorted([0.5, 2.0, 1.0]), rtol=1e-6)
    assert rows["plain"] == sorted([30, 0, 1])
    assert rows["weekday"] == [-1, -1, 6]
    assert rows["week_hour"] == [-1, -1, 167]
    assert rows["city"][:2] == [-1, 1]
    assert rows["city"][2] in (2, 3)
    assert rows["code"] == [-1, 1, 2]


def test_all_wrong_columns_are_told_at_once() -> None:
    inputs = {"city": tf.constant(["a"]), "day": tf.constant([1.0]), "label": tf.constant(["x"])}
    config = {
        "features": {
            "city": {"kind": "numeric"},
            "day": {"kind": "identity", "size": 7},
            "lost": {"kind": "vocabulary"},
            "label": {"kind": "numeric", "column": "number"},
        },
        "label": {"column": "label", "task": "regression"},
    }
    with pytest.raises(errors.BadInput) as caught:
        preprocessing.preprocessing_fn(inputs, config)
    assert [(problem.where, problem.found) for problem in caught.value.problems] == [
        ("features.city", "column 'city' of type BYTES"),
        ("features.day", "column 'day' of type FLOAT"),
        ("features.lost", "column 'lost', which the schema lacks"),
        ("features.label", "column 'number', which the schema lacks"),
        ("label", "column 'label' of type BYTES"),
        ("features.label", "a feature with the name of the label"),
    ]
