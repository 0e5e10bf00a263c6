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


def _of_features(root: Path, features: dict[str, Any]) -> tables.Transformed:
    random = np.random.default_rng(0)
    rows = 60
    table: dict[str, Any] = {name: random.normal(size=rows).astype(np.float32) for name in ("a", "b", "c")}
    table |= {"n": random.integers(0, 4, rows), "m": random.integers(0, 3, rows), "k": random.integers(0, 9, rows)}
    table["y"] = (table["a"] + table["n"]).astype(np.float32)
    types = {**dict.fromkeys("abcy", "FLOAT"), **dict.fromkeys("nmk", "INT")}
    config = {"features": features, "label": {"column": "y", "task": "regression"}}
    return tables.run_transform(root, {"train": table, "eval": table}, types, config)


@pytest.mark.slow
def test_what_was_learned_of_a_feature_stays_when_others_come_go_and_change(tmp_path: Path) -> None:
    kept = {"b": {"kind": "numeric"}, "n": {"kind": "identity", "size": 4}, "k": {"kind": "identity", "size": 9}}
    before = {"a": {"kind": "numeric"}, **kept, "m": {"kind": "identity", "size": 3}}
    after = {"c": {"kind": "numeric"}, **kept, "m": {"kind": "identity", "size": 5}}
    model = {"kind": "wide_deep", "one_hot_up_to": 5, "hidden_units": [3, 2]}  # k is embedded
    first = train_on(
        _of_features(tmp_path / "before", before), tmp_path / "first", model=model,
        training={"epochs": 3, "batch_size": 20, "learning_rate": 0.1},
    )  # fmt: skip
    second = train_on(
        _of_features(tmp_path / "after", after), tmp_path / "second", model=model, base_model=first.model,
        training={"max_steps": 1, "learning_rate": 1e-9},
    )  # fmt: skip
    report = second.report["warm_start"]
    assert report["started"]
    assert report["features"] == {"came": ["c"], "went": ["a"], "changed": ["m"]}
    assert report["initialized"] == []
    was, now = (
        {weight.path: weight.numpy() for weight in keras.models.load_model(
            run.folder / train.MODEL_FILE, compile=False).weights}
        for run in (first, second)
    )  # fmt: skip
    for path in ("hidden_1/bias", "hidden_2/kernel", "deep/kernel", "k_embedding/embeddings", "k_wide/embeddings"):
        np.testing.assert_allclose(now[path], was[path], atol=1e-6, err_msg=path)
    # a b | n n n n | m m m | the embedding of k, and now: c b | n n n n | m m m m m | the same embedding
    old, new = was["hidden_1/kernel"], now["hidden_1/kernel"]
    width = was["k_embedding/embeddings"].shape[1]
    assert (len(old), len(new)) == (2 + 4 + 3 + width, 2 + 4 + 5 + width)
    columns = list(dict.fromkeys(["a", *kept, "m"])), list(dict.fromkeys(["c", *kept, "m"]))
    assert columns[0][1:] == columns[1][1:]
    np.testing.assert_allclose(new[1:6], old[1:6], atol=1e-6)
    np.testing.assert_allclose(new[-width:], old[-width:], atol=1e-6)
    assert not np.isclose(new[0], old[0]).any()
    assert not np.isclose(new[6:9], old[6:9]).all()
    np.testing.assert_allclose(now["wide/kernel"][1:6], was["wide/kernel"][1:6], atol=1e-6)
    np.testing.assert_allclose(now["wide/kernel"][6:], 0, atol=1e-6)  # begins anew


@pytest.mark.slow
def test_a_cross_network_starts_cold_with_other_features(tmp_path: Path) -> None:
    features = {"a": {"kind": "numeric"}, "n": {"kind": "identity", "size": 4}}
    sections: dict[str, Any] = {"model": {"kind": "cross"}, "training": {"max_steps": 2, "batch_size": 20}}
    first = train_on(_of_features(tmp_path / "before", features), tmp_path / "first", **sections)
    more = _of_features(tmp_path / "after", {**features, "b": {"kind": "numeric"}})
    report = train_on(more, tmp_path / "second", base_model=first.model, **sections).report["warm_start"]
    assert (report["started"], report["reason"]) == (False, "changed since the serving model: preprocessing")
