"""The width of the first matrix, what each kind of model is made of, and its answer in the label's own units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from evergreen import settings
from trainer import features as features_lib
from trainer import model as model_lib

HUMIDITY = features_lib.Features(numeric=("beta1", "beta2"), categories={"week_hour": 168}, label="humidity")


def _batch(**columns: list[Any]) -> dict[str, tf.Tensor]:
    return {name: tf.constant(v, tf.int64 if isinstance(v[0], int) else tf.float32) for name, v in columns.items()}


@pytest.mark.parametrize("kind", ["linear", "deep", "wide_deep"])
def test_humidity_has_170_inputs(kind: Any) -> None:
    model = model_lib.build(settings.Model(kind=kind), HUMIDITY)
    first = model.get_layer("wide" if kind == "linear" else "hidden_1")
    assert first.kernel.shape[0] == 2 + 168


def test_each_cell_is_one_and_no_category_is_none() -> None:
    import keras

    model = model_lib.build(settings.Model(kind="cross"), HUMIDITY)
    matrix = keras.Model(model.inputs, model.get_layer(model_lib.INPUT_LAYER).output)
    rows = matrix(_batch(beta1=[0.5, 1.0, 2.0], beta2=[-0.5, 3.0, 4.0], week_hour=[0, 167, -1])).numpy()
    assert rows.shape == (3, 170)
    assert rows[:, :2].tolist() == [[0.5, -0.5], [1.0, 3.0], [2.0, 4.0]]
    assert [np.flatnonzero(row).tolist() for row in rows[:, 2:]] == [[0], [167], []]


MIXED = features_lib.Features(
    numeric=("x", "y"),
    categories={"few": 3, "cells": 168, "tags": 5, "hundred": 100, "large": 1000},
    lengths={"tags": 2},
    label="label",
)


@pytest.mark.parametrize("kind", ["linear", "deep", "wide_deep"])
@pytest.mark.parametrize("hidden", [[], [4]])
def test_a_looked_up_column_is_a_one_hot_one(kind: Any, hidden: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    inputs = {name: random.normal(size=200).astype(np.float32) for name in MIXED.numeric}
    for name, size in MIXED.categories.items():  # no category and one beyond the last among them
        inputs[name] = random.integers(-1, size + 1, (200, 2) if name in MIXED.lengths else 200)
    inputs["large"] = np.minimum(inputs["large"], 999)
    label = random.normal(size=200)
    trained = []
    for border in (64, 10_000):
        monkeypatch.setattr(model_lib, "_LOOKED_UP_FROM", border)
        model = model_lib.build(settings.Model(kind=kind, hidden_units=hidden, l2=0.01), MIXED, seed=1)
        weights = np.random.default_rng(2)
        model.set_weights([weights.normal(size=weight.shape) for weight in model.weights])
        model.compile(optimizer="sgd", loss="mean_squared_error")
        before = model.predict(inputs, verbose=0)
        model.fit(inputs, label, batch_size=50, shuffle=False, verbose=0)
        trained.append([before, *model.get_weights()])
    assert any(isinstance(layer, model_lib.OneHot) for layer in model.layers)
    for looked_up, multiplied in zip(*trained, strict=True):
        np.testing.assert_allclose(looked_up, multiplied, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "deep", "wide_deep"])
def test_large_columns_are_embedded(kind: Any) -> None:
    features = features_lib.Features(numeric=(), categories={"small": 3, "large": 1000}, label="y")
    model = model_lib.build(settings.Model(kind=kind, one_hot_up_to=3), features)
    assert model.get_layer(model_lib.INPUT_LAYER).output.shape == (None, 3)
    tables = {w.path: tuple(w.shape) for w in model.weights if "embeddings" in w.path}
    wide, deep = {"large_wide/embeddings": (1000, 1)}, {"large_embedding/embeddings": (1000, 9)}
    assert tables == {"linear": wide, "deep": deep, "wide_deep": wide | deep}[kind]
    assert model(_batch(small=[1, -1], large=[999, -1])).shape == (2, 1)


def test_no_category_of_an_embedded_column_adds_nothing() -> None:
    features = features_lib.Features(numeric=(), categories={"large": 1000}, label="y")
    model = model_lib.build(settings.Model(kind="linear", one_hot_up_to=3), features)
    model.get_layer("large_wide").set_weights([np.full((1000, 1), 5.0)])
    assert model(_batch(large=[0, 999, -1])).numpy().ravel().tolist() == [5.0, 5.0, 0.0]


def test_several_ids_a_row_are_multi_hot() -> None:
    ids = np.array([[2, 0, -1], [-1, -1, -1]])
    assert model_lib.MultiHot(4)(ids).numpy().tolist() == [[1, 0, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("kind", ["linear", "deep", "wide_deep"])
def test_several_ids_a_row_add_up_however_many_places_they_have(kind: Any, tmp_path: Any) -> None:
    import keras

    features = features_lib.Features(
        numeric=(), categories={"tags": 5, "terms": 1000}, lengths={"tags": 3, "terms": 4}, label="y"
    )
    built = model_lib.build(settings.Model(kind=kind), features, seed=1)
    random = np.random.default_rng(0)
    built.set_weights([random.normal(size=weight.shape) for weight in built.get_weights()])
    path = str(tmp_path / "model.keras")
    built.save(path)
    rows = {"tags": np.array([[4, 1, -1], [-1, 4, 1]]), "terms": np.array([[999, 7, -1, -1], [-1, 7, -1, 999]])}
    answers = keras.models.load_model(path)(rows).numpy()
    np.testing.assert_allclose(answers, built(rows).numpy())
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-5)
    one_less = {**rows, "terms": np.array([[999, -1, -1, -1], [-1, -1, -1, -1]])}
    assert not np.isclose(built(one_less).numpy(), answers).any()


def test_the_untrained_linear_model_answers_the_mean() -> None:
    model = model_lib.build(settings.Model(kind="linear"), HUMIDITY, label_mean=19.0, label_deviation=6.0)
    inputs = _batch(beta1=[1.0], beta2=[1.0], week_hour=[3])
    assert model(inputs).numpy().tolist() == [[19.0]]
    model.get_layer("wide").bias.assign([0.5])
    assert model(inputs).numpy().tolist() == [[22.0]]


@pytest.mark.parametrize(("classes", "width"), [(("no", "yes"), 1), ((0, 1, 2), 3)])
def test_classes_get_probabilities(classes: tuple[Any, ...], width: int) -> None:
    features = features_lib.Features(numeric=("x",), categories={}, label="y", classes=classes, class_ranks=(0, 1, 2))
    scores = model_lib.build(settings.Model(), features)(_batch(x=[-3.0, 9.0])).numpy()
    assert scores.shape == (2, width)
    assert ((scores > 0) & (scores < 1)).all()
    if width == 3:
        np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-6)


def test_a_seed_repeats_the_initial_weights() -> None:
    def kernel(seed: int) -> Any:
        return model_lib.build(settings.Model(), HUMIDITY, seed=seed).get_layer("hidden_1").kernel.numpy()

    np.testing.assert_array_equal(kernel(1), kernel(1))
    assert not np.array_equal(kernel(1), kernel(2))


def test_columns_may_have_any_name(tmp_path: Any) -> None:
    import keras

    names = ("beta 1", "beta-1", "Größe", "deep", "wide", "inputs", "_x", "hidden_1")
    features = features_lib.Features(numeric=names, categories={"a-b c": 3, "d e": 9, "prediction": 2}, label="y")
    model = model_lib.build(settings.Model(one_hot_up_to=3), features)
    batch = _batch(**{name: [1.0] for name in names}, **{"a-b c": [1], "d e": [1], "prediction": [1]})
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(batch), model(batch))
    assert len({weight.path for weight in model.weights}) == len(model.weights)


@pytest.mark.parametrize("units", [5, 64])
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_dropout_leaves_out_the_share_that_it_says_and_keeps_the_mean(units: int, precision: str) -> None:
    layer = model_lib.Dropout(0.25, seed=1, dtype=precision)
    ones = np.ones((20_000, units), np.float32)
    first, second = (np.asarray(layer(ones, training=True), np.float32) for _ in range(2))
    assert (first != second).any()
    # Five standard deviations of a share of so many draws.
    assert (first == 0).mean() == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / first.size) ** 0.5)
    assert np.unique(first)[1:] == pytest.approx([1 / 0.75], rel=4e-3)
    by_unit = (first == 0).mean(axis=0)  # two units share a random number: neither may follow from the other
    assert np.abs(by_unit - 0.25).max() < 0.02
    both = ((first[:, 0] == 0) & (first[:, 1] == 0)).mean()
    assert both == pytest.approx(0.25**2, abs=0.01)
    np.testing.assert_array_equal(layer(ones), ones)
