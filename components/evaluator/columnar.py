"""TFMA extractors that keep a batch a batch: rows with a label, predictions, then one extract for each slice of it.

    extractors = custom_extractors(eval_shared_model, eval_config, tensor_adapter_config)

TFX's executor finds `custom_extractors` by its name. They stand in for TFMA's features, labels, unbatch and slice key
extractors; prediction is TFMA's own. TFMA takes every batch apart into rows before it slices and measures; here a
slice of a batch stays numpy arrays, which `components.evaluator.metrics` takes whole. The slice keys are those that
TFMA's slicer makes, so that results and views are the same: a row with several values is in the slice of each of them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.extractors import extractor, predictions_extractor, slice_key_extractor
from tensorflow_model_analysis.slicer import slicer_lib

from components.evaluator.labels import Classes
from components.evaluator.metrics import CLASS_METRICS

_CLASSES = "classes"
_REGRESSION_OUTPUT = "prediction"

Extracts = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How the model's outputs become what the metrics take."""

    label: str
    output: str
    """`prediction` of a regression, `probability` of a binary, `probabilities` of a multiclass model."""
    classes: Mapping[str, Classes]
    """The classes of each model in the order of its probabilities; empty for a regression."""


def extractors(
    *, eval_shared_model: Any, eval_config: tfma.EvalConfig, classes: Mapping[str, Classes]
) -> list[extractor.Extractor]:
    """Returns the extractors of an evaluation.

    Args:
        eval_shared_model: one TFMA model or several, as TFX's executor makes them.
        eval_config: with the baseline already added or dropped.
        classes: of each model by name, in the order of its probabilities; "" names an only model.
    """
    spec = eval_config.model_specs[0]
    reading = Reading(label=spec.label_key, output=spec.prediction_key, classes=classes)
    names = [model.name if len(eval_config.model_specs) > 1 else "" for model in eval_config.model_specs]
    specs = [slicer_lib.SingleSliceSpec(spec=slicing) for slicing in eval_config.slicing_specs]
    wanted = [(sorted(slicing.feature_keys) + sorted(slicing.feature_values)) for slicing in eval_config.slicing_specs]
    return [
        extractor.Extractor(stage_name="ExtractLabelledRows", ptransform=_each(LabelledRows(spec.label_key))),
        predictions_extractor.PredictionsExtractor(eval_config=eval_config, eval_shared_model=eval_shared_model),
        # TFMA's evaluators attach themselves behind the stage of this name.
        extractor.Extractor(
            stage_name=slice_key_extractor.SLICE_KEY_EXTRACTOR_STAGE_NAME,
            ptransform=_each(SliceBatches(reading, names, list(zip(specs, wanted, strict=True)))),
        ),
    ]


class LabelledRows(beam.DoFn):
    """Keeps the rows that have a label; without one there is nothing to measure, so the model is not asked."""

    def __init__(self, label: str) -> None:
        """Takes the raw label column."""
        self._label = label

    def process(self, extracts: Extracts) -> Iterator[Extracts]:
        """Yields the batch with its serialized examples beside it; nothing where no row has a label."""
        batch = extracts[tfma.ARROW_RECORD_BATCH_KEY]
        labels = first_values(batch, self._label)
        if labels is None:
            return
        known = labels.is_valid()
        if pa.types.is_floating(labels.type):
            known = pc.and_(known, pc.fill_null(pc.is_finite(labels), False))
        if not pc.all(known).as_py():
            batch = pa.Table.from_batches([batch]).filter(known).combine_chunks()
            batch = batch.to_batches()[0] if batch.num_rows else None
        if not batch:
            return
        serialized = batch.column(batch.schema.get_field_index(tfma.constants.ARROW_INPUT_COLUMN)).flatten()
        yield {
            tfma.ARROW_RECORD_BATCH_KEY: batch,
            tfma.FEATURES_KEY: {},
            tfma.INPUT_KEY: serialized.to_numpy(zero_copy_only=False),
        }


class SliceBatches(beam.DoFn):
    """Turns a batch with predictions into one extract for each slice that any of its rows falls into."""

    def __init__(
        self,
        reading: Reading,
        models: Sequence[str],
        specs: Sequence[tuple[slicer_lib.SingleSliceSpec, Sequence[str]]],
    ) -> None:
        """Takes how to read outputs, the names of the models, and the slices with the columns that each looks at."""
        self._reading = reading
        self._models = models
        self._specs = specs

    def process(self, extracts: Extracts) -> Iterator[Extracts]:
        """Yields labels, arrays and the one slice key of each slice."""
        batch = extracts[tfma.ARROW_RECORD_BATCH_KEY]
        labels = first_values(batch, self._reading.label)
        outputs = extracts[tfma.PREDICTIONS_KEY]
        models = {
            name: model_arrays(labels, outputs[name] if name else outputs, self._reading, name) for name in self._models
        }
        for key, rows in slices(batch, self._specs):
            yield {
                tfma.SLICE_KEY_TYPES_KEY: slicer_lib.slice_keys_to_numpy_array([key]),
                tfma.LABELS_KEY: np.zeros(0),  # in the arrays already; TFMA wants to see the key
                tfma.EXAMPLE_WEIGHTS_KEY: None,
                tfma.PREDICTIONS_KEY: {
                    name: {array: values if rows is None else values[rows] for array, values in arrays.items()}
                    for name, arrays in models.items()
                },
            }


def model_arrays(labels: pa.Array, outputs: Any, reading: Reading, model: str) -> dict[str, npt.NDArray[Any]]:
    """Returns what the metrics take of one model: see `components.evaluator.metrics`.

    Args:
        labels: raw labels of n rows, none missing.
        outputs: the model's outputs by name, or the only one as an array.
        reading: which output to read, and the classes.
        model: the model's name.
    """
    output = np.asarray(outputs[reading.output] if isinstance(outputs, Mapping) else outputs, np.float64)
    if reading.output == _REGRESSION_OUTPUT:
        return {"error": output.reshape(-1) - labels.to_numpy(zero_copy_only=False).astype(np.float64)}
    classes = reading.classes[model]
    ids = class_ids(labels, classes)
    # One probability is that of the second class.
    scores = output.reshape(len(labels), -1)
    probabilities = np.concatenate([1.0 - scores, scores], axis=1) if scores.shape[1] == 1 else scores
    known = (ids >= 0) & (ids < probabilities.shape[1])
    likelihood = probabilities[np.arange(len(labels)), np.where(known, ids, 0)]
    return {
        "likelihood": np.where(known, likelihood, 0.0),
        "correct": probabilities.argmax(axis=1) == ids,
        "scores": scores,
        "class_ids": ids,
    }


def class_ids(labels: pa.Array, classes: Classes) -> npt.NDArray[np.int64]:
    """Returns the place of each label in `classes`, int64 [n], -1 where it has none."""
    wanted = pa.int64() if pa.types.is_integer(labels.type) else pa.string()
    places = pc.index_in(labels.cast(wanted), value_set=pa.array(classes, wanted))
    return places.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)


def slices(
    batch: pa.RecordBatch, specs: Sequence[tuple[slicer_lib.SingleSliceSpec, Sequence[str]]]
) -> Iterator[tuple[slicer_lib.SliceKeyType, npt.NDArray[np.int64] | None]]:
    """Yields the slices that rows of a batch fall into, with the rows' numbers (None for all of them).

    TFMA's slicer is asked once for each distinct combination of values, not for each row.
    """
    for spec, names in specs:
        if not names:
            yield (), None
            continue
        columns = [_all_values(batch, name) for name in names]
        known = [column for column in columns if column is not None]
        if len(known) < len(columns):
            continue
        for values, rows in _groups(known):
            features = {name: np.array([value]) for name, value in zip(names, values, strict=True)}
            for key in slicer_lib.get_slices_for_features_dicts([], features, [spec]):
                yield key, rows


@dataclasses.dataclass(frozen=True)
class _Values:
    """All values of a column, each as the number of what it is."""

    distinct: pa.Array
    codes: npt.NDArray[np.int64]
    """-1 for a hole."""
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    """Of each row."""


def _all_values(batch: pa.RecordBatch, name: str) -> _Values | None:
    """Returns the values of every row; None where the batch lacks the column."""
    place = batch.schema.get_field_index(name)
    if place < 0 or pa.types.is_null(batch.column(place).type):
        return None
    column = batch.column(place)
    offsets = column.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    encoded = column.values.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    lengths = np.where(column.is_valid().to_numpy(zero_copy_only=False), np.diff(offsets), 0)
    return _Values(encoded.dictionary, codes, offsets[:-1], lengths)


def _groups(columns: Sequence[_Values]) -> Iterator[tuple[list[Any], npt.NDArray[np.int64]]]:
    """Yields every distinct combination of values with its rows; a row that lacks a value is in none.

    A row with several values is in the group of each, once; of several columns in that of each combination.
    """
    rows = np.arange(len(columns[0].starts))
    combination = np.zeros(len(rows), np.int64)
    codes: list[npt.NDArray[np.int64]] = []
    for column in columns:
        lengths = column.lengths[rows]
        entry = np.repeat(np.arange(len(rows)), lengths)
        within = np.arange(len(entry)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        code = column.codes[column.starts[rows[entry]] + within]
        entry, code = entry[code >= 0], code[code >= 0]
        rows, combination = rows[entry], combination[entry] * max(1, len(column.distinct)) + code
        codes = [*(earlier[entry] for earlier in codes), code]
    if not len(rows):
        return
    order = np.lexsort((rows, combination))
    again = (np.diff(combination[order]) == 0) & (np.diff(rows[order]) == 0)
    order = order[np.concatenate([[True], ~again])]
    starts = np.flatnonzero(np.diff(combination[order])) + 1
    for group in np.split(order, starts):
        first = int(group[0])
        yield (
            [column.distinct[int(code[first])].as_py() for column, code in zip(columns, codes, strict=True)],
            rows[group],
        )


def first_values(batch: pa.RecordBatch, name: str) -> pa.Array | None:
    """Returns the first value of every row, null where it has none; None where the batch lacks the column."""
    place = batch.schema.get_field_index(name)
    if place < 0 or pa.types.is_null(batch.column(place).type):
        return None
    column = batch.column(place)
    starts = column.offsets.to_numpy(zero_copy_only=False)
    empty = starts[1:] == starts[:-1]
    return column.values.take(pa.array(starts[:-1], pa.int64(), mask=empty))


def _each(function: beam.DoFn) -> beam.PTransform:
    return beam.ParDo(function)


def custom_extractors(
    eval_shared_model: Any,
    eval_config: tfma.EvalConfig,
    tensor_adapter_config: Any,  # noqa: ARG001  (TFX's signature)
) -> list[extractor.Extractor]:
    """Makes the extractors; TFX's executor looks the function up by its name.

    Args:
        eval_shared_model: one TFMA model or several.
        eval_config: with the baseline already added or dropped, and the classes as `with_classes` writes them.
        tensor_adapter_config: not needed, for the batch stays Arrow.
    """
    return extractors(eval_shared_model=eval_shared_model, eval_config=eval_config, classes=_classes(eval_config))


def with_classes(eval_config: tfma.EvalConfig, classes: Mapping[str, Classes]) -> tfma.EvalConfig:
    """Returns a copy of the config whose metrics say which classes each model knows.

    The config is all that TFX's executor hands to `custom_extractors`, and TFMA keeps it beside the results: who reads
    them later sees which order of the classes they were measured with.

    Args:
        eval_config: left as it is.
        classes: of each model by name, in the order of its probabilities; "" names an only model.
    """
    copy = tfma.EvalConfig()
    copy.CopyFrom(eval_config)
    for spec in copy.metrics_specs:
        for metric in spec.metrics:
            if metric.class_name in CLASS_METRICS:
                metric.config = json.dumps({_CLASSES: classes})
    return copy


def _classes(eval_config: tfma.EvalConfig) -> dict[str, Classes]:
    for spec in eval_config.metrics_specs:
        for metric in spec.metrics:
            if metric.config and _CLASSES in (config := json.loads(metric.config)):
                return {name: tuple(values) for name, values in config[_CLASSES].items()}
    return {}
