"""What the best constant answer scores: the yardstick that any model must beat, from the label column alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.evaluator.metrics import SMALLEST_PROBABILITY

Floats = npt.NDArray[np.float64]


def scores(train: pa.Array, test: pa.Array, *, metrics: Sequence[str]) -> dict[str, float]:
    """Measures, metric by metric, the constant that is best for it on the train split.

    RMSE: the mean. MAE: the median. Accuracy: the most frequent class. Log loss: the share of each class. AUC: 0.5.

    Args:
        train: labels of the train split, numbers or classes, at least one.
        test: labels of the split to measure on, at least one, of the same type.
        metrics: the names of the metrics wanted.

    Returns:
        The score of each metric, in its own unit.
    """
    return {metric: _SCORES[metric](train, test) for metric in metrics}


def _rmse(train: pa.Array, test: pa.Array) -> float:
    return float(np.sqrt(np.mean((_numbers(test) - _numbers(train).mean()) ** 2)))


def _mae(train: pa.Array, test: pa.Array) -> float:
    return float(np.mean(np.abs(_numbers(test) - np.median(_numbers(train)))))


def _accuracy(train: pa.Array, test: pa.Array) -> float:
    shares = _shares(train)
    most_frequent = max(shares, key=lambda value: shares[value])
    return _shares(test).get(most_frequent, 0.0)


def _log_loss(train: pa.Array, test: pa.Array) -> float:
    shares = _shares(train)
    seen = _shares(test)
    return float(-sum(share * np.log(max(shares.get(v, 0.0), SMALLEST_PROBABILITY)) for v, share in seen.items()))


def _auc(_train: pa.Array, _test: pa.Array) -> float:
    return 0.5


def _numbers(labels: pa.Array) -> Floats:
    return labels.to_numpy(zero_copy_only=False).astype(np.float64)


def _shares(labels: pa.Array) -> dict[str | int, float]:
    counted = pc.value_counts(labels)
    values, counts = counted.field("values").to_pylist(), counted.field("counts").to_pylist()
    return {value: count / len(labels) for value, count in zip(values, counts, strict=True)}


_SCORES: Mapping[str, Callable[[pa.Array, pa.Array], float]] = {
    "rmse": _rmse,
    "mae": _mae,
    "accuracy": _accuracy,
    "log_loss": _log_loss,
    "auc": _auc,
}
