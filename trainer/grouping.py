"""Columns of one type side by side in a matrix: a batch of hundreds of columns is one gather a type and no more.

groups = Groups(features.spec())
matrices = groups.pack(columns)     # {"float32": [rows, 500], "int64": [rows, 3], "int64[4]": [rows, 4]}
groups.unpack(batch)                # {name: [batch] or [batch, length]}, of the rows [batch, ...] of each matrix
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

Arrays = dict[str, npt.NDArray[Any]]


class Groups:
    """Which columns share a matrix: all that hold one value a row, by type; one of several values has its own."""

    def __init__(self, spec: Mapping[str, tf.io.FixedLenFeature]) -> None:
        """Takes type and shape, [] or [length], of each column."""
        self._columns: dict[str, list[str]] = {}
        self._types: dict[str, tf.DType] = {}
        self._widths: dict[str, int] = {}
        for place, (name, feature) in enumerate(spec.items()):
            group = f"{feature.dtype.name}, column {place}" if feature.shape else feature.dtype.name
            self._columns.setdefault(group, []).append(name)
            self._types[group] = feature.dtype
            self._widths[group] = feature.shape[0] if feature.shape else len(self._columns[group])
        self._alone = {group for group in self._columns if ", column " in group}

    def spec(self) -> dict[str, tf.io.FixedLenFeature]:
        """Returns type and width of each matrix."""
        return {group: tf.io.FixedLenFeature([width], self._types[group]) for group, width in self._widths.items()}

    def pack(self, columns: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Puts columns of some rows, [rows] or [rows, length], side by side: [rows, width]."""
        return {
            group: columns[names[0]] if group in self._alone else np.stack([columns[name] for name in names], axis=1)
            for group, names in self._columns.items()
        }

    def unpack(self, matrices: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Takes the columns of a batch apart again."""
        found: dict[str, tf.Tensor] = {}
        for group, names in self._columns.items():
            alone = group in self._alone
            found.update(zip(names, [matrices[group]] if alone else tf.unstack(matrices[group], axis=1), strict=True))
        return found

    def column(self, matrices: Mapping[str, npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
        """Returns one column out of the matrices, [rows] or [rows, length]."""
        group, names = next((group, names) for group, names in self._columns.items() if name in names)
        return matrices[group] if group in self._alone else np.ascontiguousarray(matrices[group][:, names.index(name)])
