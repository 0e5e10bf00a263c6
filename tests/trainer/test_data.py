"""Shuffled batches from memory and from files: every row once an epoch, the same batches for the same seed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.data.experimental.ops import distribute

from evergreen import errors
from tests import tables
from trainer import data
from trainer import features as features_lib

FEATURES = features_lib.Features(numeric=("x",), categories={"id": 50}, label="y")
ROWS = 500
TIERS = ("memory", "disk", "files")


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


def _budgets(tier: str) -> dict[str, int]:
    return {"cache_bytes": 2**20 if tier == "memory" else 0, "disk_bytes": 2**20 if tier == "disk" else 0}


def _open(patterns: Sequence[str], *, tier: str = "memory", **options: Any) -> data.Split:
    arguments = {"batch_size": 64, "training": True, "seed": 1, **_budgets(tier), **options}
    return data.open_split(patterns, FEATURES, **arguments)


def _take(split: data.Split, batches: int | None = None) -> list[tuple[dict[str, Any], Any]]:
    dataset = split.dataset if batches is None else split.dataset.take(batches)
    return list(dataset.as_numpy_iterator())


@pytest.fixture
def patterns(tmp_path: Path) -> list[str]:
    return _write(tmp_path, np.arange(ROWS) * 2.0, gz=True)


@pytest.mark.parametrize("tier", TIERS)
def test_evaluation_sees_every_row_once(patterns: list[str], tier: str) -> None:
    split = _open(patterns, tier=tier, training=False)
    batches = _take(split)
    assert (split.tier, split.rows, split.steps, len(batches)) == (tier, ROWS, 8, 8)
    x = np.concatenate([inputs["x"] for inputs, _ in batches])
    assert sorted(x) == list(range(ROWS))
    for inputs, label in batches:
        np.testing.assert_array_equal(label, inputs["x"] * 2)
        np.testing.assert_array_equal(inputs["id"], inputs["x"].astype(int) % 50)
    assert split.label_mean == pytest.approx(ROWS - 1)
    assert split.label_deviation == pytest.approx(np.std(np.arange(ROWS) * 2.0))


@pytest.mark.parametrize("tier", TIERS)
def test_training_shuffles_examples_in_full_batches_and_never_ends(patterns: list[str], tier: str) -> None:
    split = _open(patterns, tier=tier, batch_size=100)
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


@pytest.mark.parametrize("tier", TIERS)
def test_a_seed_repeats_the_batches(patterns: list[str], tier: str) -> None:
    def order(seed: int) -> list[float]:
        return np.concatenate([x["x"] for x, _ in _take(_open(patterns, tier=tier, seed=seed), 14)]).tolist()

    assert order(1) == order(1)
    assert order(1) != order(2)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("labels", ["all", "some"])
@pytest.mark.parametrize("step", [3, 9])
def test_a_later_start_gives_the_batches_that_would_have_come(
    tmp_path: Path, tier: str, labels: str, step: int
) -> None:
    label = [float("nan") if labels == "some" and row % 7 == 0 else 1.0 for row in range(ROWS)]
    split = _open(_write(tmp_path, label), tier=tier, batch_size=90)
    whole = _take(split, step + 7)
    later = list(split.start(step).take(7).as_numpy_iterator())
    for (inputs, _), (expected, _) in zip(later, whole[step:], strict=True):
        np.testing.assert_array_equal(inputs["x"], expected["x"])


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("training", [True, False])
def test_rows_without_a_label_are_left_out(tmp_path: Path, tier: str, training: bool) -> None:
    label = [float("nan") if row % 10 == 0 else 1.0 for row in range(ROWS)]
    split = _open(_write(tmp_path, label), tier=tier, training=training, batch_size=90)
    batches = _take(split, split.steps)
    assert (split.rows, split.skipped, split.steps) == (450, 50, 5)
    assert [len(label) for _, label in batches] == [90] * 5
    x = np.concatenate([inputs["x"] for inputs, _ in batches]).astype(int)
    assert len(set(x)) == 450
    assert not (x % 10 == 0).any()
    assert (split.label_mean, split.label_deviation) == (1.0, 1.0)


def test_a_split_beyond_the_budget_is_streamed(patterns: list[str]) -> None:
    enough = ROWS * (4 + 8 + 4)
    assert _open(patterns, cache_bytes=enough).tier == "memory"
    assert _open(patterns, cache_bytes=enough - 1).tier == "files"
    assert _open(patterns, cache_bytes=enough - 1, disk_bytes=enough).tier == "disk"
    assert _open(patterns, cache_bytes=enough - 1, disk_bytes=enough - 1).tier == "files"


def test_a_split_smaller_than_a_batch_is_one_batch(patterns: list[str]) -> None:
    for tier in TIERS:
        split = _open(patterns, tier=tier, batch_size=10_000)
        assert split.steps == 1
        assert [len(label) for _, label in _take(split, 2)] == [ROWS, ROWS]


def test_classes_come_in_their_own_order(tmp_path: Path) -> None:
    table = {"x": np.zeros(4, np.float32), "id": np.zeros(4, np.int64), "y": np.array([0, 2, -1, 1])}
    tables.write_examples(tmp_path, {"train": table}, shards=1)
    features = features_lib.Features(
        numeric=("x",), categories={"id": 50}, label="y", classes=("a", "b", "c"), class_ranks=(2, 0, 1)
    )
    for tier in TIERS:
        split = data.open_split(
            [str(tmp_path / "Split-train" / "*")], features, batch_size=8, training=False, seed=1,
            **_budgets(tier),
        )  # fmt: skip
        assert [label.tolist() for _, label in _take(split)] == [[2, 1, 0]]
        assert split.skipped == 1


@pytest.mark.parametrize("tier", TIERS)
def test_nothing_to_train_on_is_said(tmp_path: Path, tier: str) -> None:
    with pytest.raises(errors.BadInput, match="found no files"):
        _open([str(tmp_path / "*")], tier=tier)
    with pytest.raises(errors.BadInput, match="found 6 rows, none of them with a label"):
        _open(_write(tmp_path, [float("nan")] * 6), tier=tier)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("tier", TIERS)
def test_weights_and_several_ids_stay_with_their_rows(tmp_path: Path, tier: str, training: bool) -> None:
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
        **_budgets(tier),
    )  # fmt: skip
    assert split.tier == tier
    batches = list(split.dataset.take(4).as_numpy_iterator())
    assert len(batches) == 4
    for inputs, label, weight in batches:
        assert inputs["ids"].shape == (32, 2)
        np.testing.assert_array_equal(label, inputs["x"])
        np.testing.assert_allclose(weight, inputs["x"] / 100, rtol=1e-6)
        np.testing.assert_array_equal(inputs["ids"][:, 0], inputs["x"].astype(int) % 50)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("training", [True, False])
def test_workers_share_an_epoch_and_no_row_twice(patterns: list[str], tier: str, training: bool) -> None:
    split = _open(patterns, tier=tier, training=training, batch_size=50)
    # What a distribution strategy over two workers puts behind the dataset, by the policy that it carries.
    shards = [distribute._AutoShardDataset(split.dataset.take(split.steps), 2, worker) for worker in range(2)]
    seen = [np.concatenate([inputs["x"] for inputs, _ in shard.as_numpy_iterator()]) for shard in shards]
    assert [len(rows) for rows in seen] == [ROWS // 2, ROWS // 2]
    assert sorted(np.concatenate(seen)) == list(range(ROWS))


def test_the_cache_on_disk_leaves_no_file(patterns: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    split = _open(patterns, tier="disk")
    assert split.tier == "disk"
    assert list(folder.iterdir()) == []
    assert len(_take(split, split.steps)) == split.steps
    assert _open(patterns, cache_bytes=0, disk_bytes=5000).tier == "files"
    assert list(folder.iterdir()) == []


def test_rows_that_are_shared_are_those_that_are_held_out(patterns: list[str]) -> None:
    parting = {"share": 0.2, "seed": 3, "cache_bytes": 2**20}
    files = os.memfd_create("train"), os.memfd_create("judge")
    data.share_held_out(files, patterns, FEATURES, **parting)
    alone = data.hold_out(patterns, FEATURES, **parting).open(batch_size=50, seed=1)
    together = data.shared(files, FEATURES).open(batch_size=50, seed=1)
    for file in files:  # a mapping outlives the file
        os.close(file)
    assert [split.rows for split in together] == [400, 100]
    seen = []
    for mine, ours in zip(alone, together, strict=True):
        assert (mine.label_mean, mine.label_deviation) == (ours.label_mean, ours.label_deviation)
        for (x, label), (expected, _) in zip(_take(ours, ours.steps), _take(mine, mine.steps), strict=True):
            np.testing.assert_array_equal(x["x"], expected["x"])
            np.testing.assert_array_equal(label, x["x"] * 2)
            seen += x["x"].tolist()
    assert sorted(seen) == list(range(ROWS))
