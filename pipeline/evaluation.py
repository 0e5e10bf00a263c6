"""From the configuration to TFMA's `EvalConfig`: metrics, slices and thresholds; the only place that makes one.

The config names one model. Whether there is a champion shows only when the node runs: TFMA then adds the baseline as a
copy of the one model spec, or drops the change threshold. Neither TensorFlow nor TFMA is imported before it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evergreen import settings

if TYPE_CHECKING:
    import tensorflow_model_analysis as tfma

METRICS_MODULE = "components.evaluator.metrics"
CLASS_NAMES: dict[str, str] = {
    "rmse": "ColumnarRootMeanSquaredError",
    "mae": "ColumnarMeanAbsoluteError",
    "mean_residual": "ColumnarMeanResidual",
    "accuracy": "ColumnarAccuracy",
    "auc": "ColumnarAreaUnderRoc",
    "log_loss": "ColumnarLogLoss",
    "example_count": "ColumnarRowCount",
}
"""The class in `METRICS_MODULE` behind each metric's name; TFMA takes its own where a class has the same name."""
PREDICTION_KEYS: dict[settings.Task, str] = {
    settings.Task.REGRESSION: "prediction",
    settings.Task.BINARY: "probability",
    settings.Task.MULTICLASS: "probabilities",
}
"""The output of the model that the metrics read."""


def eval_config(evaluation: settings.Evaluation, label: settings.Label) -> tfma.EvalConfig:
    """Returns the config of an evaluation.

    Beside the configured metrics it has `example_count` and, for a regression, `mean_residual` (prediction minus
    label), which shows by slice where the model is wrong in one direction.

    Args:
        evaluation: metrics, bounds, slices and the tolerated loss.
        label: the raw column and what it is.
    """
    import tensorflow_model_analysis as tfma

    names: list[str] = [*evaluation.metrics, "example_count"]
    if label.task is settings.Task.REGRESSION:
        names.append("mean_residual")
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(
                signature_name="serving_default",
                prediction_key=PREDICTION_KEYS[label.task],
                label_key=label.column,
                # Said, so that TFMA does not load the model with tf_keras to find out.
                model_type="tf_generic",
            )
        ],
        metrics_specs=[tfma.MetricsSpec(metrics=[_metric(name, evaluation) for name in names])],
        slicing_specs=[
            tfma.SlicingSpec(),
            *(tfma.SlicingSpec(feature_keys=columns) for columns in evaluation.slices),
        ],
        options=tfma.Options(include_default_metrics={"value": False}),
    )


def _metric(name: str, evaluation: settings.Evaluation) -> Any:
    import tensorflow_model_analysis as tfma

    metric = tfma.MetricConfig(class_name=CLASS_NAMES[name], module=METRICS_MODULE)
    threshold = _threshold(name, evaluation)
    if threshold is not None:
        # `MetricConfig.threshold` would hold in every slice: a bound on the whole must not fail for seven rows of it.
        overall = tfma.PerSliceMetricThreshold(slicing_specs=[tfma.SlicingSpec()], threshold=threshold)
        metric.per_slice_thresholds.append(overall)
    return metric


def _threshold(name: str, evaluation: settings.Evaluation) -> Any | None:
    import tensorflow_model_analysis as tfma

    threshold = tfma.MetricThreshold()
    bound = next((bound for metric, bound in evaluation.bounds.items() if metric == name), settings.Bound())
    if bound.min is not None:
        threshold.value_threshold.lower_bound.value = bound.min
    if bound.max is not None:
        threshold.value_threshold.upper_bound.value = bound.max
    if name == evaluation.metrics[0]:
        higher = settings.HIGHER_IS_BETTER[name]
        direction = tfma.MetricDirection.HIGHER_IS_BETTER if higher else tfma.MetricDirection.LOWER_IS_BETTER
        threshold.change_threshold.direction = direction
        threshold.change_threshold.relative.value = -evaluation.tolerated_loss if higher else evaluation.tolerated_loss
    return threshold if threshold.ByteSize() else None
