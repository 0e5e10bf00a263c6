"""The columnar metrics against their definitions, and against batches cut in any other way."""

from __future__ import annotations

import numpy as np
import pytest
from tensorflow_model_analysis.metrics import metric_types

from components.evaluator import metrics


def _value(metric: metrics._Metric, batches: list[dict[str, np.ndarray]]) -> float:
    """Runs the metric's combiner as Beam does: a part of the batches in one accumulator, the rest in another."""
    (computation,) = metric.computations(model_names=[""])
    combiner, accumulators = computation.combiner, []
    for half in (batches[::2], batches[1::2]):
        accumulator = combiner.create_accumulator()
        for batch in half:
            accumulator = combiner.add_input(
                accumulator, metric_types.StandardMetricInputs({"predictions": {"": batch}})
            )
        accumulators.append(accumulator)
    (value,) = combiner.extract_output(combiner.merge_accumulators(accumulators)).values()
    return value


def _cut(arrays: dict[str, np.ndarray], parts: int) -> list[dict[str, np.ndarray]]:
    rows = np.array_split(np.arange(len(next(iter(arrays.values())))), parts)
    return [{name: values[part] for name, values in arrays.items()} for part in rows]


def _exact_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    wins = scores[positive][:, None] - scores[~positive][None, :]
    return float(((wins > 0) + 0.5 * (wins == 0)).mean())


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_regression(parts: int) -> None:
    error = np.random.default_rng(1).normal(0.5, 2, 1000)
    batches = _cut({"error": error}, parts)
    assert _value(metrics.ColumnarRootMeanSquaredError(), batches) == pytest.approx(np.sqrt((error**2).mean()))
    assert _value(metrics.ColumnarMeanAbsoluteError(), batches) == pytest.approx(np.abs(error).mean())
    assert _value(metrics.ColumnarMeanResidual(), batches) == pytest.approx(error.mean())
    assert _value(metrics.ColumnarRowCount(), batches) == 1000


def test_classes() -> None:
    likelihood = np.array([0.9, 0.5, 0.0])
    batches = _cut({"likelihood": likelihood, "correct": np.array([True, True, False])}, 2)
    assert _value(metrics.ColumnarAccuracy(), batches) == pytest.approx(2 / 3)
    expected = -np.log([0.9, 0.5, metrics.SMALLEST_PROBABILITY]).mean()
    assert _value(metrics.ColumnarLogLoss(), batches) == pytest.approx(expected)


@pytest.mark.parametrize("scale", [0.01, 1.0, 5.0])
def test_auc_is_exact_enough_even_where_scores_are_close_or_far_apart(scale: float) -> None:
    random = np.random.default_rng(2)
    ids = random.integers(0, 2, 2000)
    scores = 1 / (1 + np.exp(-scale * (ids + random.normal(0, 1, 2000) - 0.5)))
    batches = _cut({"scores": scores[:, None], "class_ids": ids}, 3)
    # At scale 0.01 all scores share a handful of bins; what counts as equal then costs a percent at the most.
    tolerance = 0.02 if scale < 1 else 1e-3
    exact = _exact_auc(scores, ids == 1)
    assert _value(metrics.ColumnarAreaUnderRoc(), batches) == pytest.approx(exact, abs=tolerance)


def test_auc_of_several_classes_is_the_mean_of_one_against_the_rest() -> None:
    random = np.random.default_rng(3)
    ids = random.integers(0, 3, 900)
    logits = random.normal(0, 1, (900, 3)) + np.eye(3)[ids]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.mean([_exact_auc(scores[:, k], ids == k) for k in range(3)])
    batches = _cut({"scores": scores, "class_ids": ids}, 2)
    assert _value(metrics.ColumnarAreaUnderRoc(), batches) == pytest.approx(expected, abs=1e-3)


def test_auc_of_one_class_or_of_no_numbers_is_no_number() -> None:
    ones = {"scores": np.full((5, 1), 0.3), "class_ids": np.ones(5, np.int64)}
    assert np.isnan(_value(metrics.ColumnarAreaUnderRoc(), [ones]))
    broken = {"scores": np.full((5, 1), np.nan), "class_ids": np.arange(5) % 2}
    assert np.isnan(_value(metrics.ColumnarAreaUnderRoc(), [broken]))
