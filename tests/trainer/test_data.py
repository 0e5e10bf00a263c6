"""Shuffled batches from memory and from files: every row once an epoch, the same batches for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from evergreen import errors
from tests import tables
from trainer import data
from trainer import features as features_lib

FEATURES = features_lib.Features(numeric=("x",), categories={"id": 50}, label="y")
ROWS = 500


def _write(root: Path, label: Sequence[float], *, gz: bool = False) -> list[str]:
    """Writes rows whose x, id and y belong together; the shards are of different length."""
    rows = len(label)
    table = {"x": np.arange(rows, dtype=np.float32), "id": np.arange(rows) % 50, "y": np.array(label, np.float32)}
    tables.write_examples(root, {"train": {n: v[: rows // 3] for n, v in table.items()}}, shards=1)
    tables.write_examples(root / "more", {"train": {n: v[rows // 3 :] for n, v in table.items()}}, shards=2)
    if gz:
        for file in (root / "more" / "Split-train").iterdir():
            records = list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
            with tf.io.TFRecordWriter(f"{file}.gz", tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
                for record in records:
                    writer.write(record)
            file.unlink()
    return [str(root / "Split-train" / "*"), str(root / "more" / "Split-train" / "*")]


def _open(patterns: Sequence[str], *, cached: bool = True, **options: Any) -> data.Split:
    arguments = {"batch_size": 64, "training": True, "seed": 1, "cache_bytes": 2**20 if cached else 0, **options}
    return data.open_split(patterns, FEATURES, **arguments)


def _take(split: data.Split, batches: int | None = None) -> list[tuple[dict[str, Any], Any]]:
    dataset = split.dataset if batches is None else split.dataset.take(batches)
    return list(dataset.as_numpy_iterator())


@pytest.fixture
def patterns(tmp_path: Path) -> list[str]:
    return _write(tmp_path, np.arange(ROWS) * 2.0, gz=True)


@pytest.mark.parametrize("cached", [True, False])
def test_evaluation_sees_every_row_once(patterns: list[str], cached: bool) -> None:
    split = _open(patterns, cached=cached, training=False)
    batches = _take(split)
    assert (split.cached, split.rows, split.steps, len(batches)) == (cached, ROWS, 8, 8)
    x = np.concatenate([inputs["x"] for inputs, _ in batches])
    assert sorted(x) == list(range(ROWS))
    for inputs, label in batches:
        np.testing.assert_array_equal(label, inputs["x"] * 2)
        np.testing.assert_array_equal(inputs["id"], inputs["x"].astype(int) % 50)
    assert split.label_mean == pytest.approx(ROWS - 1)
    assert split.label_deviation == pytest.approx(np.std(np.arange(ROWS) * 2.0))


@pytest.mark.parametrize("cached", [True, False])
def test_training_shuffles_examples_in_full_batches_and_never_ends(patterns: list[str], cached: bool) -> None:
    split = _open(patterns, cached=cached, batch_size=100)
    batches = _take(split, 3 * split.steps)
    epochs = [np.concatenate([x["x"] for x, _ in batches[e * 5 : e * 5 + 5]]) for e in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(ROWS))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[1], epochs[2])
    for inputs, label in batches:
        np.testing.assert_array_equal(label, inputs["x"] * 2)
    # A batch of a perfect shuffle spans the whole split; one that only shuffles a few neighbours does not.
    assert np.ptp(epochs[0][:100]) > ROWS * 0.8


@pytest.mark.parametrize("cached", [True, False])
def test_a_seed_repeats_the_batches(patterns: list[str], cached: bool) -> None:
    def order(seed: int) -> list[float]:
        return np.concatenate([x["x"] for x, _ in _take(_open(patterns, cached=cached, seed=seed), 14)]).tolist()

    assert order(1) == order(1)
    assert order(1) != order(2)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("labels", ["all", "some"])
@pytest.mark.parametrize("step", [3, 9])
def test_a_later_start_gives_the_batches_that_would_have_come(
    tmp_path: Path, cached: bool, labels: str, step: int
) -> None:
    label = [float("nan") if labels == "some" and row % 7 == 0 else 1.0 for row in range(ROWS)]
    split = _open(_write(tmp_path, label), cached=cached, batch_size=90)
    whole = _take(split, step + 7)
    later = list(split.start(step).take(7).as_numpy_iterator())
    for (inputs, _), (expected, _) in zip(later, whole[step:], strict=True):
        np.testing.assert_array_equal(inputs["x"], expected["x"])


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_rows_without_a_label_are_left_out(tmp_path: Path, cached: bool, training: bool) -> None:
    label = [float("nan") if row % 10 == 0 else 1.0 for row in range(ROWS)]
    split = _open(_write(tmp_path, label), cached=cached, training=training, batch_size=90)
    batches = _take(split, split.steps)
    assert (split.rows, split.skipped, split.steps) == (450, 50, 5)
    assert [len(label) for _, label in batches] == [90] * 5
    x = np.concatenate([inputs["x"] for inputs, _ in batches]).astype(int)
    assert len(set(x)) == 450
    assert not (x % 10 == 0).any()
    assert (split.label_mean, split.label_deviation) == (1.0, 1.0)


def test_a_split_beyond_the_budget_is_streamed(patterns: list[str]) -> None:
    enough = ROWS * (4 + 8 + 4)
    assert _open(patterns, cache_bytes=enough).cached
    assert not _open(patterns, cache_bytes=enough - 1).cached


def test_a_split_smaller_than_a_batch_is_one_batch(patterns: list[str]) -> None:
    for cached in (True, False):
        split = _open(patterns, cached=cached, batch_size=10_000)
        assert split.steps == 1
        assert [len(label) for _, label in _take(split, 2)] == [ROWS, ROWS]


def test_classes_come_in_their_own_order(tmp_path: Path) -> None:
    table = {"x": np.zeros(4, np.float32), "id": np.zeros(4, np.int64), "y": np.array([0, 2, -1, 1])}
    tables.write_examples(tmp_path, {"train": table}, shards=1)
    features = features_lib.Features(
        numeric=("x",), categories={"id": 50}, label="y", classes=("a", "b", "c"), class_ranks=(2, 0, 1)
    )
    for cache_bytes in (2**20, 0):
        split = data.open_split(
            [str(tmp_path / "Split-train" / "*")], features, batch_size=8, training=False, seed=1,
            cache_bytes=cache_bytes,
        )  # fmt: skip
        assert [label.tolist() for _, label in _take(split)] == [[2, 1, 0]]
        assert split.skipped == 1


@pytest.mark.parametrize("cached", [True, False])
def test_nothing_to_train_on_is_said(tmp_path: Path, cached: bool) -> None:
    with pytest.raises(errors.BadInput, match="found no files"):
        _open([str(tmp_path / "*")], cached=cached)
    with pytest.raises(errors.BadInput, match="found 6 rows, none of them with a label"):
        _open(_write(tmp_path, [float("nan")] * 6), cached=cached)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("cached", [True, False])
def test_weights_and_several_ids_stay_with_their_rows(tmp_path: Path, cached: bool, training: bool) -> None:
    features = features_lib.Features(
        numeric=("x",), categories={"ids": 50}, lengths={"ids": 2}, label="y", weight="_sample_weight"
    )
    number = np.arange(200)
    table = {
        "x": number.astype(np.float32), "ids": [[i % 50, -1] for i in range(200)],
        "y": np.where(number % 7 == 0, np.nan, number).astype(np.float32),  # rows without a label are left out
        "_sample_weight": (number / 100).astype(np.float32),
    }  # fmt: skip
    tables.write_examples(tmp_path, {"train": table})
    split = data.open_split(
        [str(tmp_path / "Split-train" / "*")], features, batch_size=32, training=training, seed=1,
        cache_bytes=2**20 if cached else 0,
    )  # fmt: skip
    assert split.cached == cached
    batches = list(split.dataset.take(4).as_numpy_iterator())
    assert len(batches) == 4
    for inputs, label, weight in batches:
        assert inputs["ids"].shape == (32, 2)
        np.testing.assert_array_equal(label, inputs["x"])
        np.testing.assert_allclose(weight, inputs["x"] / 100, rtol=1e-6)
        np.testing.assert_array_equal(inputs["ids"][:, 0], inputs["x"].astype(int) % 50)
