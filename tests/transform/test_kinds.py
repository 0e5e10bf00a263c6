"""Every kind of feature, with holes and hostile values, through TFX's own Transform executor and at serving."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from evergreen import errors, settings
from tests import tables
from trainer import data, export, features
from transform import columns as columns_lib
from transform import preprocessing, text

INF, NAN = math.inf, math.nan
NONE = columns_lib.NO_CATEGORY
TYPES = {
    "id": "INT", "price": "FLOAT", "rooms": "INT", "huge": "FLOAT", "long": "INT", "void": "FLOAT", "silence": "BYTES",
    "city": "BYTES", "code": "INT", "tags": "BYTES", "list": "BYTES", "numbers": "INT", "said": "BYTES",
    "counted": "INT", "measured": "FLOAT", "angle": "FLOAT", "when": "BYTES", "stamp": "INT", "title": "BYTES",
    "importance": "FLOAT", "span": "INT", "outcome": "BYTES",
}  # fmt: skip
OWN = "tests.transform.own"
FEATURES: dict[str, Any] = {
    "logged": {
        "kind": "numeric", "column": "price", "clip": {"min": 0, "max": 50}, "log": "log1p", "missing": "median",
        "indicator": True, "scale": "none",
    },
    "constant": {
        "kind": "numeric", "column": "price", "clip": {"max": 50}, "missing": "constant", "constant": 60,
        "scale": "min_max",
    },
    "huge": {"kind": "numeric"},
    "long": {"kind": "numeric"},
    "same": {"kind": "numeric", "column": "numbers", "scale": "min_max"},
    "void": {"kind": "numeric", "missing": "median", "indicator": True},
    "row": {"kind": "identity", "column": "id", "size": 8},
    "void_buckets": {"kind": "buckets", "column": "void", "quantiles": 3},
    "silence": {"kind": "vocabulary"},
    "quarters": {"kind": "buckets", "column": "rooms", "quantiles": 4},
    "limits": {"kind": "buckets", "column": "price", "boundaries": [0.7, 2, 3]},
    "city": {"kind": "hash", "buckets": 50},
    "code": {"kind": "hash", "buckets": 10**6},
    "tags": {"kind": "vocabulary", "separator": "|", "max_values": 3, "top_k": 2},
    "hashed_tags": {"kind": "hash", "column": "tags", "separator": "|", "max_values": 2, "buckets": 1000},
    "list": {"kind": "vocabulary", "max_values": 2, "min_frequency": 2},
    "first": {"kind": "vocabulary", "column": "list"},
    "numbers": {"kind": "identity", "size": 4, "max_values": 3},
    "said": {"kind": "boolean"},
    "counted": {"kind": "boolean"},
    "measured": {"kind": "boolean"},
    "angle": {"kind": "cyclical", "period": 360},
    "when": {"kind": "calendar", "formats": ["iso", "%d.%m.%Y %H:%M"], "parts": ["hour", "week", "days"]},
    "round": {"kind": "calendar", "column": "when", "formats": ["iso", "%d.%m.%Y %H:%M"], "parts": ["month"],
              "encoding": "cyclical"},
    "stamp": {"kind": "calendar", "formats": ["epoch_millis"], "parts": ["hour"], "utc_offset_minutes": 60},
    "title": {"kind": "text", "words": 2, "characters": 3, "buckets": 4096, "max_terms": 40},
    "cell": {
        "kind": "cross",
        "parts": [
            {"column": "city", "buckets": 5}, {"column": "price", "boundaries": [2, 3]}, {"column": "rooms", "size": 9},
            {"column": "rooms", "quantiles": 2},
        ],
    },
    "hashed_cell": {
        "kind": "cross", "buckets": 30,
        "parts": [{"column": "code", "buckets": 10**6}, {"column": "city", "buckets": 10**6}],
    },
    "per_room": {"kind": "custom", "function": f"{OWN}.per_room", "columns": ["price", "rooms"], "scale": "z_score"},
    "both": {"kind": "custom", "function": f"{OWN}.both", "columns": ["price"], "width": 2},
    "initial": {"kind": "custom", "function": f"{OWN}.initial", "columns": ["city"], "size": 26},
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "features": FEATURES,
    "label": {"column": "outcome", "task": "binary"},
    "weights": {"column": "importance", "half_life_spans": 2},
    "span_column": "span",
}
TRAIN: dict[str, list[Any]] = {
    "id": [0, 1, 2, 3, 4, 5, 6, 7],
    "price": [0.5, 0.7, 2.0, 3.0, 100.0, -5.0, None, INF],
    "rooms": [1, 2, 3, 4, 5, 6, 7, 8],
    "huge": [3e38, -3e38, 3e38, -3e38, 1e308, NAN, None, 0.0],
    "long": [2**50 + i for i in range(8)],
    "void": [None, NAN, INF, -INF, None, None, None, None],
    "silence": [None, "", None, "", None, None, None, None],
    "city": ["bern", "oslo", "bern", "", None, "łódź", "rome", "a"],
    "code": [7, 2**53 + 1, 2**53, -1, 0, None, 7, 7],
    "tags": ["a|b", "a", " b | a |a|c", "", None, "a|b|c|d|e", "|", "b"],
    "list": [["x", "y"], ["x"], [], None, ["y", "x", "z"], ["z", "z"], ["rare"], ["x", ""]],
    "numbers": [[1], [1, 2], [1, 3, 0], [1, 1, 1], [1, 9, -4], None, [1, 2, 3, 0], [1]],
    "said": ["True", " no ", "Y", "off", "maybe", "", None, "1.0"],
    "counted": [0, 1, 2, None, 1, 0, -1, 1],
    "measured": [0.0, 1.0, 0.5, None, NAN, INF, 1e30, 1.0],
    "angle": [0.0, 90.0, 450.0, -90.0, None, NAN, INF, 3e38],
    "when": ["2024-02-29T23:59:58Z", "31.12.1999 06:07", "1969-12-31", "2021-01-03 12:00", "30.02.2024 00:00", "", None,
             "soon"],
    "stamp": [0, -1, 1_709_247_600_000, -62_135_596_800_000, None, 2**62, 1_700_000_000_000, 0],
    "title": ["Red wine", "red WINE!", "wine", "", None, "赤ワイン 赤", "x" * 1_000_000, "..."],
    "importance": [2.0, 2.0, 2.0, 4.0, 2.0, 0.0, None, -1.0],
    "span": [3, 5, 5, 7, 5, 5, 5, 5],
    "outcome": ["no", "no", "yes", "no", "yes", "no", "no", None],
}  # fmt: skip
ODD: dict[str, list[Any]] = {  # values that the train split does not have
    "id": [0, 1, 2],
    "price": [-1.0, 1e30, None],
    "rooms": [0, 2**62, None],
    "huge": [1e38, -1e308, None],
    "long": [-(2**62), 2**50 + 7, None],
    "void": [5.0, -3e38, None],
    "silence": ["new", "x" * 40_000, None],
    "city": ["nowhere", "\udc00".encode("utf-8", "surrogatepass"), None],
    "code": [12345, -(2**63) + 1, None],
    "tags": ["z|a|y|b", "||||", None],
    "list": [["new", "y"], [], None],
    "numbers": [[3, 2, 1, 0], [], None],
    "said": ["FALSE", "2", None],
    "counted": [2**62, 1, None],
    "measured": [-0.0, -1.0, None],
    "angle": [-1e30, 359.0, None],
    "when": ["9999-12-31T23:59:59", "0001-01-01", None],
    "stamp": [253_402_300_799_999, -(2**63) + 1, None],
    "title": ["wine wine wine wine", "\xff\xfe", None],
    "importance": [1.0, 3e38, None],
    "span": [9, -(2**62), None],
    "outcome": ["yes", None, "never seen"],
}


@pytest.fixture(scope="module")
def transformed(tmp_path_factory: pytest.TempPathFactory) -> tables.Transformed:
    splits = {"train": TRAIN, "odd": {name: _as_bytes(values) for name, values in ODD.items()}}
    return tables.run_transform(tmp_path_factory.mktemp("kinds"), splits, TYPES, CONFIG, dense=False)


def _as_bytes(values: list[Any]) -> list[Any]:
    """Lets bytes that are no UTF-8 stand beside texts."""
    if any(isinstance(value, bytes) for value in values):
        return [value.encode() if isinstance(value, str) else value for value in values]
    return values


def _columns(transformed: tables.Transformed, split: str) -> tuple[features.Features, dict[str, Any]]:
    """Returns what Transform made of a split, in the order of the table."""
    read = features.read(tft.TFTransformOutput(str(transformed.graph)), transformed.config)
    columns = data.read_columns([str(file) for file in (transformed.examples / f"Split-{split}").iterdir()], read)
    order = np.argsort(columns["row"], kind="stable")
    return read, {name: values[order] for name, values in columns.items()}


@pytest.fixture(scope="module")
def train(transformed: tables.Transformed) -> dict[str, Any]:
    return _columns(transformed, "train")[1]


@pytest.fixture(scope="module")
def odd(transformed: tables.Transformed) -> dict[str, Any]:
    return _columns(transformed, "odd")[1]


@pytest.mark.slow
def test_the_trainer_learns_names_types_and_sizes(transformed: tables.Transformed) -> None:
    read, columns = _columns(transformed, "train")
    expected = [
        name for key, feature in transformed.config.features.items() for name in settings.output_columns(key, feature)
    ]
    assert {*read.names} == {*expected}
    assert read.lengths == {"tags": 3, "hashed_tags": 2, "list": 2, "numbers": 3, "title": 40}
    assert read.classes == ("no", "yes")
    assert read.weight == columns_lib.WEIGHT
    sizes = {
        "row": 8, "void_buckets": 3, "silence": 2, "quarters": 4, "limits": 4, "tags": 3, "list": 4, "first": 5,
        "numbers": 4, "said": 2, "when_hour": 24, "when_week": 53, "title": 4096, "cell": 270, "hashed_cell": 30,
        "initial": 26,
    }  # fmt: skip
    assert {name: read.categories[name] for name in sizes} == sizes
    for name in read.numeric:
        assert np.isfinite(columns[name]).all(), name
        assert columns[name].dtype == np.float32, name


@pytest.mark.slow
def test_numbers(train: dict[str, Any], odd: dict[str, Any]) -> None:
    clipped = np.array([0.5, 0.7, 2, 3, 50, 0, 2, 2])  # behind are the missing ones; 2 is the median of what is there
    np.testing.assert_allclose(train["logged"][:6], np.log1p(clipped)[:6], rtol=1e-6)
    # TensorFlow's logarithm differs in its last bit with the place in the batch, so nothing is compared to the letter.
    np.testing.assert_allclose(train["logged"][6], train["logged"][7], rtol=1e-6)
    assert np.isclose(train["logged"][6], np.log1p([0.7, 2.0]), rtol=1e-6).any()
    assert train["logged_missing"].tolist() == [0] * 6 + [1, 1]
    constant = np.array([0.5, 0.7, 2, 3, 50, -5, 50, 50])
    np.testing.assert_allclose(train["constant"], (constant + 5) / 55, rtol=1e-6)
    signs = np.array([1, -1, 1, -1, 0, 0, 0, 0])
    # Of the five that are numbers; in their mean 1e22 are left of 3e38 by rounding.
    np.testing.assert_allclose(train["huge"], signs / np.sqrt(4 / 5), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(train["long"], (np.arange(8) - 3.5) / np.arange(8).std(), rtol=1e-6)
    assert train["same"].tolist() == [0] * 8  # a constant column says nothing
    assert train["void"].tolist() == [0] * 8
    assert train["void_missing"].tolist() == [1] * 8
    np.testing.assert_allclose(odd["huge"][:2], [1 / 3 / np.sqrt(4 / 5), 0], rtol=1e-6)
    for name in ("logged", "constant", "huge", "long", "same", "void", "per_room", "both_0", "both_1", "when_days"):
        assert np.isfinite(odd[name]).all(), name


@pytest.mark.slow
def test_intervals_and_circles(train: dict[str, Any], odd: dict[str, Any]) -> None:
    assert train["quarters"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert odd["quarters"].tolist() == [0, 3, NONE]
    assert train["limits"].tolist() == [0, 1, 2, 3, 3, 0, NONE, NONE]  # a number on a limit is above it
    assert train["void_buckets"].tolist() == [NONE] * 8
    np.testing.assert_allclose(train["angle_sin"], [0, 1, 1, -1, 0, 0, 0, train["angle_sin"][7]], atol=1e-6)
    np.testing.assert_allclose(train["angle_cos"][:7], [1, 0, 0, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(odd["angle_cos"][1:], [np.cos(np.radians(359)), 0], atol=1e-6)


@pytest.mark.slow
def test_hashes_are_even_at_serving_what_they_were(train: dict[str, Any], odd: dict[str, Any]) -> None:
    assert train["city"][0] == train["city"][2] != train["city"][1]
    assert train["city"][[3, 4]].tolist() == [NONE, NONE]
    assert train["code"][[0, 6, 7]].tolist() == [train["code"][0]] * 3
    assert train["code"][1] != train["code"][2]  # whole numbers past 2^53 are told apart
    assert train["code"][5] == NONE
    assert ((odd["city"][:2] >= 0) & (odd["city"][:2] < 50)).all()
    assert odd["city"][2] == odd["code"][2] == NONE


@pytest.mark.slow
def test_several_values_a_row(train: dict[str, Any], odd: dict[str, Any]) -> None:
    a, b, other = 0, 1, 2  # b is as frequent as a, and the vocabulary breaks the tie
    if [b] in [sorted({*row} - {NONE}) for row in train["tags"][[1]].tolist()]:
        a, b = b, a
    assert [{*row} - {NONE} for row in train["tags"].tolist()] == [
        {a, b}, {a}, {a, b}, set(), set(), {a, b, other}, set(), {b}
    ]  # fmt: skip
    assert [{*row} - {NONE} for row in odd["tags"].tolist()] == [{other, a}, set(), set()]
    assert [len({*row} - {NONE}) for row in train["hashed_tags"].tolist()] == [2, 1, 2, 0, 0, 2, 0, 1]
    assert [{*row} - {NONE} for row in train["numbers"].tolist()] == [
        {1}, {1, 2}, {0, 1, 3}, {1}, {1}, set(), {1, 2, 3}, {1}
    ]  # fmt: skip
    assert [{*row} - {NONE} for row in odd["numbers"].tolist()] == [{1, 2, 3}, set(), set()]
    assert [len({*row} - {NONE}) for row in train["list"].tolist()] == [2, 1, 0, 0, 2, 1, 1, 1]
    unknown = 3
    assert train["list"][6].tolist() == [unknown, NONE]  # "rare" is not frequent enough
    assert {*odd["list"][0].tolist()} == {unknown, train["list"][0].tolist()[0]} or unknown in odd["list"][0]
    assert train["first"][[2, 3]].tolist() == [NONE, NONE]
    assert train["first"][0] == train["first"][1] == train["first"][7]
    assert train["silence"].tolist() == [NONE] * 8
    assert odd["silence"].tolist() == [1, 1, NONE]


@pytest.mark.slow
def test_booleans_however_they_are_written(train: dict[str, Any], odd: dict[str, Any]) -> None:
    assert train["said"].tolist() == [1, 0, 1, 0, NONE, NONE, NONE, 1]
    assert train["counted"].tolist() == [0, 1, NONE, NONE, 1, 0, NONE, 1]
    assert train["measured"].tolist() == [0, 1, NONE, NONE, NONE, NONE, NONE, 1]
    assert odd["said"].tolist() == [0, NONE, NONE]
    assert odd["counted"].tolist() == [NONE, 1, NONE]
    assert odd["measured"].tolist() == [0, NONE, NONE]


@pytest.mark.slow
def test_moments(train: dict[str, Any], odd: dict[str, Any]) -> None:
    assert train["when_hour"].tolist() == [23, 6, 0, 12, NONE, NONE, NONE, NONE]
    assert train["when_week"].tolist() == [8, 51, 0, 52, NONE, NONE, NONE, NONE]
    assert odd["when_hour"].tolist() == [23, 0, NONE]
    days = np.array([19782 + 86398 / 86400, 10956 + (6 * 60 + 7) / 1440, -1, 18630.5])
    np.testing.assert_allclose(train["when_days"][:4], (days - days.mean()) / days.std(), rtol=1e-5)
    assert train["when_days"][4:].tolist() == [0] * 4
    np.testing.assert_allclose(train["round_month_sin"], [0.5, -0.5, -0.5, 0, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(train["round_month_cos"][:5], [0.866025, 0.866025, 0.866025, 1, 0], atol=1e-6)
    assert train["stamp_hour"].tolist() == [1, 0, 0, 1, NONE, NONE, 23, 1]  # in local time
    assert odd["stamp_hour"].tolist() == [NONE] * 3  # an hour later, year 9999 is over


@pytest.mark.slow
def test_texts(train: dict[str, Any], odd: dict[str, Any]) -> None:
    terms = [{*row} - {NONE} for row in train["title"].tolist()]
    assert terms[0] == terms[1]
    assert terms[2] < terms[0]
    assert [bool(row) for row in terms] == [True, True, True, False, False, True, True, False]
    assert len(terms[5] & terms[0]) == 0
    assert all(len(row) == len({*row} - {NONE}) + row.count(NONE) for row in train["title"].tolist())
    assert len({*odd["title"][0].tolist()} - {NONE} - terms[2]) <= 3  # "wine wine" and where words meet
    assert {*odd["title"][2].tolist()} == {NONE}
    assert text.MAX_BYTES < 1_000_000


@pytest.mark.slow
def test_crosses_of_any_columns(train: dict[str, Any], odd: dict[str, Any]) -> None:
    sides = [2, 3, 9, 2]
    rooms = np.array(TRAIN["rooms"])
    known = train["cell"] >= 0
    assert known.tolist() == [True, True, True, False, False, True, False, False]  # one side missing is all missing
    digits = np.array(np.unravel_index(train["cell"][known], (5, *sides[1:])))
    assert digits[0][0] == digits[0][2]  # bern
    assert digits[1].tolist() == [0, 0, 1, 0]
    assert digits[2].tolist() == rooms[known].tolist()
    assert digits[3].tolist() == (rooms[known] > 4).astype(int).tolist()
    assert (train["hashed_cell"] >= 0).tolist() == [True, True, True, False, False, False, True, True]
    assert odd["cell"][2] == odd["hashed_cell"][2] == NONE


@pytest.mark.slow
def test_functions_of_ones_own(train: dict[str, Any]) -> None:
    price, rooms = np.array([0.5, 0.7, 2, 3, 100, -5]), np.arange(1, 7)
    ratio = price / rooms
    np.testing.assert_allclose(train["per_room"][:6], (ratio - ratio.mean()) / ratio.std(), rtol=1e-5)
    assert train["per_room"][6:].tolist() == [0, 0]
    np.testing.assert_allclose(train["both_0"], [*(2 * price), *[2 * price.mean()] * 2], rtol=1e-5)
    np.testing.assert_allclose(train["both_1"], [*(-price), *[-price.mean()] * 2], rtol=1e-5)
    assert train["initial"].tolist() == [1, 14, 1, NONE, NONE, NONE, 17, 0]


@pytest.mark.slow
def test_weights_by_column_and_by_age(train: dict[str, Any], odd: dict[str, Any]) -> None:
    assert columns_lib.WEIGHT in train
    given = np.array([2, 2, 2, 4, 2, 0, np.nan, 0])
    given = np.where(np.isnan(given), 1, given / np.nanmean(given))
    expected = given * 0.5 ** ((7 - np.array(TRAIN["span"])) / 2)
    np.testing.assert_allclose(train[columns_lib.WEIGHT], expected / expected.mean(), rtol=1e-5)
    assert np.isfinite(odd[columns_lib.WEIGHT]).all()
    assert (odd[columns_lib.WEIGHT] >= 0).all()


@pytest.mark.slow
def test_serving_answers_what_training_saw(
    transformed: tables.Transformed, train: dict[str, Any], odd: dict[str, Any], tmp_path: Path
) -> None:
    graph = tft.TFTransformOutput(str(transformed.graph))
    read = features.read(graph, transformed.config)
    built = _sensitive(read)
    export.export(str(tmp_path), built, graph, read, transformed.config)
    served = tf.saved_model.load(str(tmp_path)).signatures
    assert {"outcome", "importance", "span"}.isdisjoint(served["raw"].structured_input_signature[1])
    for table, columns in ((TRAIN, train), (ODD, odd)):
        expected = built({name: columns[name] for name in read.names}).numpy()[:, 0]
        assert len(set(expected.round(4).tolist())) == len(expected)
        raw = {name: _raw(name, _as_bytes(table[name])) for name in served["raw"].structured_input_signature[1]}
        answers = served["raw"](**{name: tf.constant(values) for name, values in raw.items()})
        np.testing.assert_allclose(answers["probability"], expected, rtol=1e-4, atol=1e-5)
        assert set(answers["prediction"].numpy().tolist()) <= {b"yes", b"no"}


def _sensitive(read: features.Features) -> keras.Model:
    """A model whose answer depends on every value of every column, however large it is."""
    inputs = {name: keras.Input((), name=name) for name in read.numeric}
    inputs |= {
        name: keras.Input((read.lengths[name],) if name in read.lengths else (), name=name, dtype="int64")
        for name in read.categories
    }
    parts = []
    for place, (name, column) in enumerate(inputs.items(), start=1):
        if name in read.numeric:
            values = keras.ops.tanh(column / (1.0 + place))
        else:
            values = keras.ops.sin(keras.ops.cast(column, "float32") * (1.0 + 0.1 * place))
            values = keras.ops.mean(values, axis=1) if name in read.lengths else values
        parts.append(keras.layers.Reshape((1,))(values))
    return keras.Model(inputs, keras.ops.sigmoid(keras.layers.Average()(parts) * 5.0))


def _raw(name: str, values: list[Any]) -> np.ndarray[Any, Any]:
    """Writes a column as the signature takes it: the marker of its type for what is missing."""
    dtype, missing = {"FLOAT": (np.float32, NAN), "INT": (np.int64, -(2**63)), "BYTES": (object, b"")}[TYPES[name]]
    if name not in ("list", "numbers"):
        return np.array([missing if value is None else value for value in values], dtype)
    width = max(len(value or ()) for value in values)
    return np.array([[*(value or ()), *[missing] * (width - len(value or ()))] for value in values], dtype)


def test_own_functions_that_cannot_be_used_are_told_at_once() -> None:
    inputs = {"city": tf.constant(["a"]), "label": tf.constant([1.0])}
    own = {"kind": "custom", "columns": ["city"]}
    config = {
        "features": {
            "lost": {**own, "function": f"{OWN}.nothing"},
            "nowhere": {**own, "function": "tests.nowhere.text"},
            "number": {**own, "function": f"{OWN}.number"},
        },
        "label": {"column": "label", "task": "regression"},
    }
    with pytest.raises(errors.BadInput) as caught:
        preprocessing.preprocessing_fn(inputs, config)
    assert [problem.where for problem in caught.value.problems] == [
        "features.lost.function", "features.nowhere.function", "features.number.function"
    ]  # fmt: skip
    config["features"] = {"words": {**own, "function": f"{OWN}.text"}}
    with pytest.raises(errors.BadInput, match="returns string of shape"):
        preprocessing.preprocessing_fn(inputs, config)
