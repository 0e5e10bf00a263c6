"""The EvalConfig that the configuration becomes: directions, limits, and what a missing champion leaves of it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_specs

from evergreen import settings
from pipeline import evaluation

REGRESSION = settings.Label(column="humidity", task=settings.Task.REGRESSION)


def _by_name(config: tfma.EvalConfig) -> dict[str, tfma.MetricConfig]:
    names = {class_name: name for name, class_name in evaluation.CLASS_NAMES.items()}
    return {names[metric.class_name]: metric for metric in config.metrics_specs[0].metrics}


def test_bounds_and_the_champion_hold_for_the_whole_only() -> None:
    section = settings.Evaluation(
        metrics=["rmse", "mae"], bounds={"mae": {"max": 2.0}}, tolerated_loss=0.05, slices=[["weekday"], ["a", "b"]]
    )
    config = evaluation.eval_config(section, REGRESSION)
    metrics = _by_name(config)
    assert set(metrics) == {"rmse", "mae", "example_count", "mean_residual"}
    (rmse,) = metrics["rmse"].per_slice_thresholds
    assert list(rmse.slicing_specs) == [tfma.SlicingSpec()]
    assert rmse.threshold.change_threshold.direction == tfma.MetricDirection.LOWER_IS_BETTER
    assert rmse.threshold.change_threshold.relative.value == 0.05
    assert not rmse.threshold.HasField("value_threshold")
    (mae,) = metrics["mae"].per_slice_thresholds
    assert mae.threshold.value_threshold.upper_bound.value == 2.0
    assert not mae.threshold.value_threshold.HasField("lower_bound")
    assert not mae.threshold.HasField("change_threshold")
    assert [list(spec.feature_keys) for spec in config.slicing_specs] == [[], ["weekday"], ["a", "b"]]
    assert config.model_specs[0].label_key == "humidity"


def test_higher_is_better_turns_the_tolerated_loss_around() -> None:
    section = settings.Evaluation(metrics=["auc"], bounds={"auc": {"min": 0.7}}, tolerated_loss=0.05)
    label = settings.Label(column="y", task=settings.Task.BINARY)
    config = evaluation.eval_config(section, label)
    (auc,) = _by_name(config)["auc"].per_slice_thresholds
    assert auc.threshold.change_threshold.direction == tfma.MetricDirection.HIGHER_IS_BETTER
    assert auc.threshold.change_threshold.relative.value == -0.05
    assert auc.threshold.value_threshold.lower_bound.value == 0.7
    assert config.model_specs[0].prediction_key == "probability"


@pytest.mark.parametrize("has_baseline", [True, False])
def test_tfma_adds_the_baseline_or_drops_what_needs_one(has_baseline: bool) -> None:
    config = evaluation.eval_config(settings.Evaluation(metrics=["rmse"]), REGRESSION)
    updated = tfma.utils.update_eval_config_with_defaults(config, has_baseline=has_baseline, rubber_stamp=True)
    tfma.utils.verify_eval_config(updated)
    thresholds = metric_specs.metric_thresholds_from_metrics_specs(updated.metrics_specs, eval_config=updated)
    assert len(updated.model_specs) == (2 if has_baseline else 1)
    assert {key.name for key, found in thresholds.items() if found} == ({"rmse"} if has_baseline else set())


def test_every_metric_of_the_configuration_has_a_class_that_tfma_does_not_shadow() -> None:
    from tensorflow_model_analysis.metrics import metric_types

    from components.evaluator import metrics

    assert set(settings.HIGHER_IS_BETTER) <= set(evaluation.CLASS_NAMES)
    for name, class_name in evaluation.CLASS_NAMES.items():
        assert getattr(metrics, class_name)().name == name
        assert class_name not in metric_types.registered_metrics()


def test_the_module_imports_neither_tensorflow_nor_tfma() -> None:
    code = "import sys, pipeline.evaluation; print([m for m in sys.modules if m.startswith('tensorflow')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
