"""A vocabulary that grew: what was learned of a term stays with it, wherever its row is now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests import tables
from tests.trainer.conftest import train_on
from trainer import train

CONFIG = {
    "features": {"x": {"kind": "numeric"}, "city": {"kind": "vocabulary"}},
    "label": {"column": "y", "task": "regression"},
}
WORTH = {"ulm": 3.0, "bonn": -2.0, "kiel": 7.0, "jena": 11.0}


def _transformed(root: Path, cities: list[str]) -> tables.Transformed:
    table: dict[str, Any] = {"city": cities, "x": np.linspace(-1, 1, len(cities)).astype(np.float32)}
    table["y"] = np.float32([WORTH[city] for city in cities])
    types = {"x": "FLOAT", "city": "BYTES", "y": "FLOAT"}
    return tables.run_transform(root, {"train": table, "eval": table}, types, CONFIG)


@pytest.mark.slow
@pytest.mark.parametrize(("border", "kind"), [(512, "linear"), (2, "wide_deep")])
def test_rows_follow_their_terms(tmp_path: Path, border: int, kind: str) -> None:
    model = {"kind": kind, "one_hot_up_to": border, "hidden_units": [3]}
    before = _transformed(tmp_path / "before", ["ulm"] * 30 + ["bonn"] * 20 + ["kiel"] * 10)
    first = train_on(
        before, tmp_path / "first", model=model, training={"epochs": 30, "batch_size": 20, "learning_rate": 0.1}
    )
    # Now the most frequent one is new, and the others have changed places.
    after = _transformed(tmp_path / "after", ["jena"] * 40 + ["kiel"] * 30 + ["ulm"] * 20)
    gentle = {"max_steps": 1, "learning_rate": 1e-9}
    second = train_on(after, tmp_path / "second", model=model, training=gentle, base_model=first.model)
    report = second.report["warm_start"]
    assert report["started"]
    assert report["vocabularies"] == {"city": {"stayed": 2, "came": 1, "went": 1}}
    weights = [
        {weight.path: weight.numpy() for weight in keras.models.load_model(
            run.folder / train.MODEL_FILE, compile=False).weights}
        for run in (first, second)
    ]  # fmt: skip
    paths = ["wide/kernel"] if kind == "linear" else ["city_wide/embeddings", "city_embedding/embeddings"]
    offset = 1 if kind == "linear" else 0
    for path in paths:
        was, now = (each[path][offset:] for each in weights)
        np.testing.assert_allclose(now[1], was[2], atol=1e-6)  # kiel
        np.testing.assert_allclose(now[2], was[0], atol=1e-6)  # ulm
        np.testing.assert_allclose(now[3], was[3], atol=1e-6)  # the bucket of unknown cities
        assert not np.allclose(was[0], was[2])
        assert not np.allclose(now[0], was[0])  # jena
