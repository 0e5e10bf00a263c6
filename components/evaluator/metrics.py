"""TFMA metrics over columns: each `add_input` takes all rows of a batch that fall into a slice, in numpy.

TFMA's own metrics are fed row by row, which is nearly all of what an evaluation costs. These get the arrays that
`components.evaluator.columnar` makes, keyed by model name ("" where there is only one):

* regression: `error`, float64 [n], prediction minus label;
* classes: `likelihood`, float64 [n], the probability of the true class; `correct`, bool [n]; `scores`, float64 [n, k],
  and `class_ids`, int64 [n], the true class's place (-1 where the model does not know it). A binary model has one
  column of scores, that of its second class, and `class_ids` tells 1 from the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
from tensorflow_model_analysis.metrics import metric_types

SMALLEST_PROBABILITY = 1e-7
"""Probabilities are clipped to this, as Keras does: one sure mistake must not make the loss infinite."""
_BINS = 4096
"""Bins of a score's log-odds; two scores in one bin (0.01 apart in log-odds) count as equal for the AUC."""
_LARGEST_LOG_ODDS = 20.0

Arrays = Mapping[str, npt.NDArray[Any]]


class _Metric(metric_types.Metric):
    """A metric of one number a model, made by one combiner."""

    NAME = ""
    COMBINER: type[_Combiner]

    def __init__(self, name: str = "") -> None:
        super().__init__(self._computations, name=name or self.NAME)

    def _computations(
        self, name: str | None = None, model_names: Sequence[str] | None = None
    ) -> metric_types.MetricComputations:
        keys = [metric_types.MetricKey(name=name or self.NAME, model_name=model) for model in model_names or [""]]
        return [
            metric_types.MetricComputation(keys=[key], preprocessors=None, combiner=self.COMBINER(key)) for key in keys
        ]


class _Combiner(beam.CombineFn):
    """Adds up one array a slice; what is added and what is made of the sum are the subclass's."""

    def __init__(self, key: metric_types.MetricKey) -> None:
        self._key = key

    def contribution(self, arrays: Arrays) -> npt.NDArray[np.float64]:
        """Returns what the rows of one batch add."""
        raise NotImplementedError

    def result(self, total: npt.NDArray[np.float64]) -> float:
        """Returns the metric."""
        raise NotImplementedError

    def create_accumulator(self) -> Any:
        return 0.0

    def add_input(self, accumulator: Any, element: metric_types.StandardMetricInputs) -> Any:
        return accumulator + self.contribution(element.predictions[self._key.model_name])

    def merge_accumulators(self, accumulators: Iterable[Any]) -> Any:
        return sum(accumulators)

    def extract_output(self, accumulator: Any) -> dict[metric_types.MetricKey, float]:
        return {self._key: self.result(accumulator)}


class _Mean(_Combiner):
    """The mean of one number a row."""

    def values(self, arrays: Arrays) -> npt.NDArray[np.float64]:
        """Returns one number a row, float64 [n]."""
        raise NotImplementedError

    def contribution(self, arrays: Arrays) -> npt.NDArray[np.float64]:
        values = self.values(arrays)
        return np.array([values.sum(dtype=np.float64), len(values)])

    def result(self, total: npt.NDArray[np.float64]) -> float:
        return float(total[0] / total[1])


class _RmseCombiner(_Mean):
    def values(self, arrays: Arrays) -> npt.NDArray[np.float64]:
        return np.square(arrays["error"], dtype=np.float64)

    def result(self, total: npt.NDArray[np.float64]) -> float:
        return float(np.sqrt(super().result(total)))


class _MaeCombiner(_Mean):
    def values(self, arrays: Arrays) -> npt.NDArray[np.float64]:
        return np.abs(arrays["error"])


class _MeanResidualCombiner(_Mean):
    def values(self, arrays: Arrays) -> npt.NDArray[np.float64]:
        return arrays["error"]


class _AccuracyCombiner(_Mean):
    def values(self, arrays: Arrays) -> npt.NDArray[np.float64]:
        return arrays["correct"].astype(np.float64)


class _LogLossCombiner(_Mean):
    def values(self, arrays: Arrays) -> npt.NDArray[np.float64]:
        return -np.log(np.clip(arrays["likelihood"], SMALLEST_PROBABILITY, 1.0))


class _RowCountCombiner(_Combiner):
    def contribution(self, arrays: Arrays) -> npt.NDArray[np.float64]:
        return np.array([len(next(iter(arrays.values())))])

    def result(self, total: npt.NDArray[np.float64]) -> float:
        return float(total[0])


class _AucCombiner(_Combiner):
    """Counts scores by bins of their log-odds, for rows of the class and for the others: bounded, however many rows."""

    def contribution(self, arrays: Arrays) -> npt.NDArray[np.float64]:
        scores, ids = arrays["scores"], arrays["class_ids"]
        width = scores.shape[1]
        if not np.isfinite(scores).all():
            return np.full((width, 2, _BINS), np.nan)
        clipped = np.clip(scores, 1e-12, 1.0 - 1e-12)
        log_odds = np.clip(np.log(clipped) - np.log1p(-clipped), -_LARGEST_LOG_ODDS, _LARGEST_LOG_ODDS)
        bins = ((log_odds + _LARGEST_LOG_ODDS) / (2 * _LARGEST_LOG_ODDS) * (_BINS - 1)).astype(np.int64)
        places = np.arange(1, 2) if width == 1 else np.arange(width)
        member = (ids[:, None] == places[None, :]).astype(np.int64)
        flat = (np.arange(width)[None, :] * 2 + member) * _BINS + bins
        counts: npt.NDArray[np.float64] = np.bincount(flat.ravel(), minlength=width * 2 * _BINS).astype(np.float64)
        return counts.reshape(width, 2, _BINS)

    def result(self, total: npt.NDArray[np.float64]) -> float:
        """Returns the mean over the classes of the chance that a row of the class outscores another one."""
        if np.isnan(total).any():
            return float("nan")
        others, members = total[:, 0], total[:, 1]
        below = np.cumsum(others, axis=1) - others
        wins = (members * (below + others / 2)).sum(axis=1)
        pairs = members.sum(axis=1) * others.sum(axis=1)
        measurable = pairs > 0
        # A slice with one class only has no pairs: no answer, which TFMA writes as NaN.
        return float((wins[measurable] / pairs[measurable]).mean()) if measurable.any() else float("nan")


class _ClassMetric(_Metric):
    """A metric whose config names the classes; `components.evaluator.columnar` reads them there."""

    def __init__(self, name: str = "", classes: Mapping[str, Sequence[str | int]] | None = None) -> None:
        super().__init__(name)
        self.classes = classes


class ColumnarRootMeanSquaredError(_Metric):
    """Root of the mean squared error, in the label's units."""

    NAME = "rmse"
    COMBINER = _RmseCombiner


class ColumnarMeanAbsoluteError(_Metric):
    """Mean absolute error, in the label's units."""

    NAME = "mae"
    COMBINER = _MaeCombiner


class ColumnarMeanResidual(_Metric):
    """Mean of prediction minus label, in the label's units: which way the model errs."""

    NAME = "mean_residual"
    COMBINER = _MeanResidualCombiner


class ColumnarAccuracy(_ClassMetric):
    """Share of the rows whose most probable class is the true one."""

    NAME = "accuracy"
    COMBINER = _AccuracyCombiner


class ColumnarLogLoss(_ClassMetric):
    """Mean of the negative logarithm of the true class's probability, in nats."""

    NAME = "log_loss"
    COMBINER = _LogLossCombiner


class ColumnarAreaUnderRoc(_ClassMetric):
    """Area under the receiver operating characteristic; for more than two classes the mean of one against the rest."""

    NAME = "auc"
    COMBINER = _AucCombiner


class ColumnarRowCount(_Metric):
    """Rows with a label."""

    NAME = "example_count"
    COMBINER = _RowCountCombiner


CLASS_METRICS = frozenset(metric.__name__ for metric in (ColumnarAccuracy, ColumnarLogLoss, ColumnarAreaUnderRoc))
"""The metrics that need to know the model's classes."""
