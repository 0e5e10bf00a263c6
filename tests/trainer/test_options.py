"""What the configuration says of model and fitting is what is trained: networks, weights, precision, rates, logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from evergreen import errors, settings
from tests import tables
from tests.trainer.conftest import train_on
from trainer import data, fitting, optimizers, train
from trainer import features as features_lib
from trainer import model as model_lib

FEATURES = features_lib.Features(numeric=("x", "z"), categories={"id": 5}, label="y")
CLASSES = features_lib.Features(
    numeric=("x",), categories={}, label="y", classes=("no", "yes"), class_ranks=(0, 1)
)  # fmt: skip
PLAN = fitting.Plan(epochs=2, steps_per_epoch=10, steps_per_execution=5)


def _compiled(features: features_lib.Features = FEATURES, **training: Any) -> keras.Model:
    label = {"column": "y", "task": "binary" if features.classes else "regression"}
    config = settings.TrainerConfig(
        preprocessing=settings.Preprocessing.model_validate({"features": {"x": {"kind": "numeric"}}, "label": label}),
        model=settings.Model.model_validate(training.pop("model", {"kind": "linear"})),
        training=settings.Training.model_validate(training),
    )
    split = data.Split(
        start=lambda _: None, rows=1, skipped=0, steps=1, tier="memory", label_mean=0.0, label_deviation=1.0
    )
    return train.compiled(config, features, split, PLAN)


def _batch(rows: int = 8) -> dict[str, Any]:
    random = np.random.default_rng(0)
    numbers = {name: random.normal(size=rows).astype(np.float32) for name in ("x", "z")}
    return {**numbers, "id": random.integers(0, 5, rows)}


# --- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [None, 2])
def test_a_cross_layer_multiplies_the_inputs_with_a_map_of_what_came_before(rank: int | None) -> None:
    layer = model_lib.Cross(rank)
    first, before = np.random.default_rng(1).normal(size=(2, 4, 6)).astype(np.float32)
    layer([first, before])
    layer.bias.assign(np.arange(6.0))
    narrow = before if rank is None else before @ layer.down.numpy()
    assert layer.kernel.shape == (rank or 6, 6)
    expected = first * (narrow @ layer.kernel.numpy() + np.arange(6)) + before  # Wang et al., 2021, equation 1
    np.testing.assert_allclose(layer([first, before]).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_a_cross_network_learns_a_product_that_a_linear_model_cannot(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 4000)).astype(np.float32)
    inputs, label = {"x": x[0], "z": x[1], "id": np.zeros(4000, np.int64)}, x[0] * x[1]

    def error(kind: str) -> float:
        model = _compiled(
            model={"kind": kind, "hidden_units": []}, learning_rate=0.02, learning_rate_schedule="constant"
        )
        model.fit(inputs, label, epochs=20, batch_size=200, verbose=0)
        if kind == "cross":
            model.save(tmp_path / "cross.keras")
            again = keras.models.load_model(tmp_path / "cross.keras")
            np.testing.assert_allclose(again(_batch()), model(_batch()), rtol=1e-6)
        return float(model.evaluate(inputs, label, verbose=0, return_dict=True)["rmse"])

    assert error("linear") > 0.9
    assert error("cross") < 0.2


def twice_the_first(inputs: Any, features: features_lib.Features, config: settings.Model) -> Any:
    """A model function: 2 x, and nothing of the rest."""
    assert (features.names, config.kind) == (("x", "z", "id"), "wide_deep")
    others = keras.ops.cast(inputs["id"], "float32") + inputs["z"]
    return keras.ops.expand_dims(2.0 * inputs["x"] + 0.0 * others, -1)


def test_a_model_function_of_the_users_own_gives_the_scores() -> None:
    config = settings.Model(function="tests.trainer.test_options.twice_the_first")
    model = model_lib.build(config, FEATURES, label_mean=10.0, label_deviation=3.0)
    batch = _batch()
    np.testing.assert_allclose(model(batch)[:, 0], 10 + 3 * 2 * batch["x"], rtol=1e-5)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("tests.trainer.test_options.nothing", "has no attribute 'nothing'"),
        ("no.such.module", "No module named 'no'"),
        ("tests.trainer.test_options.PLAN", "a Plan"),
    ],
)
def test_a_model_function_that_is_none_is_told(path: str, found: str) -> None:
    with pytest.raises(errors.BadInput, match=found):
        model_lib.own_function(path)


# --- fitting ---------------------------------------------------------------------------------------------------------


def test_rows_count_by_the_weight_of_their_class(tmp_path: Path) -> None:
    tables.write_examples(tmp_path, {"train": {"x": np.zeros(100, np.float32), "y": np.arange(100) % 10 // 9}})

    def weights(of: Any) -> dict[int, float]:
        split = data.open_split(
            [str(tmp_path / "Split-train" / "*")], CLASSES, batch_size=100, training=False, seed=1,
            cache_bytes=2**20, class_weights=of,
        )  # fmt: skip
        _, label, weight = next(iter(split.dataset))
        return {int(one): float(weight[label == one][0]) for one in (0, 1)}

    assert weights("balanced") == pytest.approx({0: 100 / (2 * 90), 1: 100 / (2 * 10)})
    assert weights({"yes": 3.0}) == {0: 1.0, 1: 3.0}
    with pytest.raises(errors.BadInput, match="yess"):
        weights({"yess": 3.0})


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_weights_and_answers_in_float32(precision: str) -> None:
    model = _compiled(precision=precision, model={"kind": "wide_deep", "hidden_units": [4]}, learning_rate=0.01)
    assert model.get_layer("hidden_1").compute_dtype == precision.removeprefix("mixed_")
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert model(_batch()).dtype == tf.float32
    assert keras.config.dtype_policy().name == "float32"  # what is built later computes as it did
    inputs = _batch(512)
    history = model.fit(inputs, inputs["x"], batch_size=64, epochs=8, verbose=0).history["loss"]
    assert history[-1] < 0.7 * history[0]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # Up over the first 5 of 20 steps, then along the schedule over the other 15.
        ("constant", {0: 0.0, 4: 0.8, 5: 1.0, 19: 1.0}),
        ("cosine", {0: 0.0, 4: 0.8, 5: 1.0, 12.5: 0.5, 20: 0.0}),
        ("exponential", {0: 0.0, 4: 0.8, 5: 1.0, 12.5: 0.1, 20: 0.01}),
    ],
)
def test_the_learning_rate_follows_its_schedule(schedule: str, expected: dict[float, float]) -> None:
    training = settings.Training(learning_rate=1.0, learning_rate_schedule=schedule, warmup_share=0.25)  # type: ignore[arg-type]
    rate = optimizers.rate(training, steps=PLAN.steps)
    assert {step: float(rate(step)) for step in expected} == pytest.approx(expected, abs=1e-6)


def test_a_long_gradient_is_followed_no_further_than_configured() -> None:
    moved = []
    for clip in (None, 0.5):
        model = _compiled(optimizer="sgd", learning_rate=1.0, learning_rate_schedule="constant", gradient_clip=clip)
        before = model.get_weights()
        model.fit(_batch(), np.full(8, 1000.0), batch_size=8, epochs=1, verbose=0)
        steps = [now - was for now, was in zip(model.get_weights(), before, strict=True)]
        moved.append(float(np.sqrt(sum((step**2).sum() for step in steps))))
    assert moved[0] > 100
    assert moved[1] == pytest.approx(0.5, rel=1e-3)


def test_the_automatic_ways_to_run_are_safe_on_a_cpu() -> None:
    model = _compiled()
    assert model.steps_per_execution == PLAN.steps_per_execution
    assert not model.jit_compile
    assert _compiled(xla="on").jit_compile
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("xla", ["off", "on"])
def test_xla_trains_what_is_trained_without(xla: str) -> None:
    model = _compiled(xla=xla, learning_rate=0.05)
    inputs = _batch(100)
    model.fit(inputs, inputs["x"] - inputs["z"], batch_size=20, epochs=4, verbose=0, shuffle=False)
    kernel = model.get_layer("wide").kernel.numpy().ravel()
    assert (kernel[0], kernel[1]) == pytest.approx(_by_hand(), rel=1e-4)


def _by_hand() -> tuple[float, float]:
    """The same steps by hand: Adam on the mean squared error of a linear model that begins with zeros."""
    inputs, rate = _batch(100), optimizers.rate(settings.Training(learning_rate=0.05), steps=PLAN.steps)
    x = np.stack([inputs["x"], inputs["z"], *(np.eye(5)[inputs["id"]].T)], axis=1)
    x, y = np.column_stack([x, np.ones(100)]), inputs["x"] - inputs["z"]
    weights, mean, square = np.zeros(8), np.zeros(8), np.zeros(8)
    for step in range(20):
        rows = slice(step % 5 * 20, step % 5 * 20 + 20)
        gradient = 2 * x[rows].T @ (x[rows] @ weights - y[rows]) / 20
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        corrected = float(rate(step)) * np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
        weights -= corrected * mean / (np.sqrt(square) + 1e-7)
    return weights[0], weights[1]


# --- logs ------------------------------------------------------------------------------------------------------------


def _logged(folder: Path) -> dict[str, set[str]]:
    """The tags of each kind that the event files hold."""
    from tensorflow.core.util import event_pb2

    tags: dict[str, set[str]] = {}
    for path in folder.rglob("events.out.tfevents.*"):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            for value in event_pb2.Event.FromString(record).summary.value:
                tags.setdefault(value.metadata.plugin_data.plugin_name, set()).add(value.tag)
    return tags


@pytest.mark.slow
@pytest.mark.parametrize("asked", [True, False])
def test_tensorboard_gets_losses_rate_and_what_is_asked_for(
    small: tables.Transformed, tmp_path: Path, asked: bool
) -> None:
    training = {"epochs": 3, "batch_size": 512, "weight_histograms": asked, "profile_input": asked}
    run = train_on(small, tmp_path, model={"kind": "linear"}, training=training)
    logged = _logged(run.folder)
    scalars = logged["scalars"]
    assert {"epoch_loss", "epoch_rmse", "epoch_learning_rate"} <= scalars
    assert ("input_share" in scalars) == asked
    assert ("histograms" in logged) == asked
    share = run.report["input_share"]
    assert (0 <= share < 1) if asked else share is None
