"""The Evaluator's executor on real SavedModels and real examples: what blesses, what refuses, what is left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_model_analysis as tfma

from evergreen import settings
from evergreen.errors import BadInput
from tests.components.evaluator import parts

pytestmark = pytest.mark.slow

NO_CHAMPION = "champion-none"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluator")


@pytest.fixture(scope="module")
def data(root: Path) -> parts.Data:
    splits = {"train": parts.regression_table(3000, 1), "test": parts.regression_table(2001, 2)}
    return parts.write_data(root / "data", splits, parts.REGRESSION_TYPES)


@pytest.fixture(scope="module")
def model(root: Path) -> Callable[..., Path]:
    """Makes a model artifact with a slope; the true one is 3."""

    def make(slope: float, **offsets: float) -> Path:
        uri = root / f"model-{slope}-{offsets}"
        return uri if uri.exists() else parts.save(parts.Regression(slope, **offsets), uri)

    return make


def _evaluation(**changes: Any) -> settings.Evaluation:
    return settings.Evaluation.model_validate({"metrics": ["rmse", "mae"], "slices": [["group"]], **changes})


def _errors(slope: float) -> np.ndarray:
    table = parts.regression_table(2001, 2)
    labels = np.array(table["y"][:-1], np.float64)
    return slope * table["x"][:-1].astype(np.float64) - labels


def test_first_run_is_blessed_and_tfma_reads_the_results(tmp_path: Path, data: parts.Data, model: Any) -> None:
    champion = tmp_path / NO_CHAMPION
    champion.mkdir()
    (champion / "champion.json").write_text('{"version": null}')
    done = parts.evaluate(
        tmp_path,
        data,
        model(3.0),
        evaluation=_evaluation(bounds={"rmse": {"max": 1.2}}),
        label=parts.REGRESSION,
        champion=champion,
    )
    assert done.verdict["blessed"] is True
    assert done.verdict["reasons"] == []
    assert done.verdict["metrics"]["champion"] is None
    assert done.verdict["champion_version"] is None
    assert done.verdict["rows"] == 2000  # one of 2,001 has no label
    error = _errors(3.0)
    assert done.verdict["metrics"]["candidate"] == pytest.approx(
        {"rmse": np.sqrt((error**2).mean()), "mae": np.abs(error).mean()}, rel=1e-5
    )
    assert done.verdict["metrics"]["trivial"]["rmse"] > 5
    assert list(done.verdict["metrics"]["candidate"]) == ["rmse", "mae"]
    assert done.blessed_file
    assert done.blessing.get_int_custom_property("blessed") == 1
    assert done.blessing.get_int_custom_property("current_model_id") == 7
    assert not done.blessing.get_string_custom_property("baseline_model")

    result = tfma.load_eval_result(str(done.evaluation))
    sliced = {key: metrics[""][""] for key, metrics in result.slicing_metrics}
    assert set(sliced) == {(), *((("group", group),) for group in range(3))}
    assert sliced[()]["example_count"]["doubleValue"] == 2000
    assert sum(sliced[(("group", group),)]["example_count"]["doubleValue"] for group in range(3)) == 2000
    third = error[2::3]
    assert sliced[(("group", 2),)]["rmse"]["doubleValue"] == pytest.approx(np.sqrt((third**2).mean()), rel=1e-5)
    assert sliced[(("group", 2),)]["mean_residual"]["doubleValue"] == pytest.approx(third.mean(), abs=1e-5)
    assert tfma.load_validation_result(str(done.evaluation)).validation_ok


def test_a_broken_bound_refuses(tmp_path: Path, data: parts.Data, model: Any) -> None:
    bounded = _evaluation(bounds={"rmse": {"max": 0.9}, "mae": {"max": 2.0}})
    done = parts.evaluate(tmp_path, data, model(3.0), evaluation=bounded, label=parts.REGRESSION)
    assert done.verdict["blessed"] is False
    (reason,) = done.verdict["reasons"]
    assert reason["where"] == "rmse on the test split"
    assert reason["expected"] == "at most 0.9 (evaluation.bounds.rmse)"
    assert float(reason["found"]) == pytest.approx(1.0, abs=0.1)
    assert not done.blessed_file
    assert done.blessing.get_int_custom_property("blessed") == 0
    assert not tfma.load_validation_result(str(done.evaluation)).validation_ok


def test_a_bound_holds_for_the_whole_and_not_for_each_slice(tmp_path: Path, data: parts.Data, model: Any) -> None:
    # Off by 3 in one of three groups: about 3.2 there, 2 over all.
    done = parts.evaluate(
        tmp_path,
        data,
        model(3.0, offset_of_group_2=3.0),
        evaluation=_evaluation(bounds={"rmse": {"max": 2.5}}),
        label=parts.REGRESSION,
    )
    assert done.verdict["blessed"] is True
    result = tfma.load_eval_result(str(done.evaluation))
    sliced = {key: metrics[""][""] for key, metrics in result.slicing_metrics}
    assert sliced[(("group", 2),)]["rmse"]["doubleValue"] > 2.5
    assert sliced[(("group", 2),)]["mean_residual"]["doubleValue"] == pytest.approx(3.0, abs=0.2)


@pytest.mark.parametrize(("slope", "blessed"), [(2.5, False), (2.99, True)])
def test_champion(tmp_path: Path, data: parts.Data, model: Any, slope: float, blessed: bool) -> None:
    champion = model(3.0)
    (champion / "champion.json").write_text('{"version": 12}')
    done = parts.evaluate(
        tmp_path,
        data,
        model(slope),
        evaluation=_evaluation(tolerated_loss=0.05),
        label=parts.REGRESSION,
        champion=champion,
    )
    assert done.verdict["blessed"] is blessed
    assert done.verdict["champion_version"] == 12
    for who, its_slope in (("candidate", slope), ("champion", 3.0)):
        expected = np.sqrt((_errors(its_slope) ** 2).mean())
        assert done.verdict["metrics"][who]["rmse"] == pytest.approx(expected, rel=1e-4)
    assert done.blessing.get_int_custom_property("baseline_model_id") == 8
    assert done.blessed_file is blessed
    assert tfma.load_validation_result(str(done.evaluation)).validation_ok is blessed
    result = tfma.load_eval_result(str(done.evaluation), model_name="candidate")
    assert len(result.slicing_metrics) == 4
    if not blessed:
        (reason,) = done.verdict["reasons"]
        assert "worse than the champion's" in reason["found"]
        assert "(version 12)" in reason["found"]


def test_worse_than_the_best_constant_refuses_though_no_threshold_is_set(
    tmp_path: Path, data: parts.Data, model: Any
) -> None:
    done = parts.evaluate(tmp_path, data, model(-3.0), evaluation=_evaluation(), label=parts.REGRESSION)
    assert done.verdict["blessed"] is False
    (reason,) = done.verdict["reasons"]
    assert "best constant answer" in reason["found"]
    assert not done.blessed_file


def test_nan_predictions_refuse_though_nothing_is_configured(tmp_path: Path, data: parts.Data, model: Any) -> None:
    done = parts.evaluate(
        tmp_path, data, model(float("nan")), evaluation=_evaluation(beat_trivial=False), label=parts.REGRESSION
    )
    assert done.verdict["blessed"] is False
    assert {reason["found"] for reason in done.verdict["reasons"]} == {"no number"}


def test_no_labelled_row_to_measure_on_is_bad_input(tmp_path: Path, model: Any) -> None:
    table = parts.regression_table(30, 1)
    # Not a number is no label either; the encoder of tests wants one value to know the column's type.
    empty = {**parts.regression_table(5, 2), "y": [None, None, float("nan"), None, float("inf")]}
    data = parts.write_data(tmp_path / "data", {"train": table, "test": empty}, parts.REGRESSION_TYPES)
    with pytest.raises(BadInput, match="split test: found no row with a label"):
        parts.evaluate(tmp_path, data, model(3.0), evaluation=_evaluation(), label=parts.REGRESSION)
    assert not (tmp_path / "blessing").exists()


def test_binary_with_string_labels(tmp_path: Path) -> None:
    def table(rows: int, seed: int) -> dict[str, Any]:
        random = np.random.default_rng(seed)
        x = random.normal(0, 1, rows).astype(np.float32)
        yes = random.uniform(size=rows) < 1 / (1 + np.exp(-2 * x))
        return {"x": x, "town": ["Bonn" if v > 0 else "Köln" for v in x], "y": ["yes" if v else "no" for v in yes]}

    test = table(2000, 2)
    types = {"x": "FLOAT", "town": "BYTES", "y": "BYTES"}
    data = parts.write_data(tmp_path / "data", {"train": table(2000, 1), "test": test}, types)
    label = settings.Label(column="y", task=settings.Task.BINARY)
    evaluation = settings.Evaluation(
        metrics=["auc", "accuracy", "log_loss"], bounds={"auc": {"min": 0.7}}, slices=[["town"]]
    )
    candidate = parts.save(parts.Binary(2.0, ["no", "yes"]), tmp_path / "candidate")
    champion = parts.save(parts.Binary(0.1, ["no", "yes"]), tmp_path / "champion")
    done = parts.evaluate(tmp_path, data, candidate, evaluation=evaluation, label=label, champion=champion)
    assert done.verdict["blessed"] is True, done.verdict["reasons"]
    yes = np.array(test["y"]) == "yes"
    chance = 1 / (1 + np.exp(-2 * test["x"].astype(np.float64)))
    found = done.verdict["metrics"]
    assert found["candidate"]["log_loss"] == pytest.approx(-np.log(np.where(yes, chance, 1 - chance)).mean(), rel=1e-4)
    assert found["candidate"]["accuracy"] == pytest.approx(((chance >= 0.5) == yes).mean(), abs=1e-9)
    # The same order of rows: the AUC does not see the slope, the loss does.
    assert found["champion"]["auc"] == pytest.approx(found["candidate"]["auc"], abs=2e-3)
    assert found["champion"]["log_loss"] > found["candidate"]["log_loss"]
    assert found["trivial"]["auc"] == 0.5
    result = tfma.load_eval_result(str(done.evaluation), model_name="candidate")
    assert {key for key, _ in result.slicing_metrics} == {(), (("town", "Bonn"),), (("town", "Köln"),)}


def test_multiclass_with_integer_labels(tmp_path: Path) -> None:
    def table(rows: int, seed: int) -> dict[str, Any]:
        x = np.random.default_rng(seed).normal(0, 2, rows).astype(np.float32)
        return {"x": x, "y": np.where(x < -1, 10, np.where(x > 1, 30, 20))}

    data = parts.write_data(
        tmp_path / "data", {"train": table(600, 1), "test": table(600, 2)}, {"x": "FLOAT", "y": "INT"}
    )
    label = settings.Label(column="y", task=settings.Task.MULTICLASS)
    evaluation = settings.Evaluation(metrics=["log_loss", "accuracy", "auc"])
    model = parts.save(parts.Multiclass(), tmp_path / "model")
    done = parts.evaluate(tmp_path, data, model, evaluation=evaluation, label=label)
    x = table(600, 2)["x"].astype(np.float64)
    logits = np.stack([-2 * x, np.zeros_like(x), 2 * x], axis=1)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ids = np.searchsorted([10, 20, 30], table(600, 2)["y"])
    found = done.verdict["metrics"]["candidate"]
    assert found["log_loss"] == pytest.approx(-np.log(chances[np.arange(600), ids]).mean(), rel=1e-4)
    assert found["accuracy"] == pytest.approx((chances.argmax(axis=1) == ids).mean())
    assert found["auc"] > 0.9
    assert done.verdict["blessed"] is True
