"""The data nodes with two worker processes on this machine: the results of one, from transforms that share nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.example_gen import source
from components.records import reading
from datagen import taxi
from tests import data_nodes

pytestmark = pytest.mark.slow

ROWS = 12_000
ONE = ["--runner=DirectRunner", "--direct_running_mode=in_memory", "--sdk_container_image=none"]
TWO = [
    "--runner=DirectRunner",
    "--direct_running_mode=multi_processing",
    "--direct_num_workers=2",
    "--sdk_container_image=none",
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    root = tmp_path_factory.mktemp("nodes")
    taxi.write(root / "data", rows=ROWS)
    found: dict[str, dict[str, Any]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "BLOCK", 1 << 15)
        patch.setattr(reading, "RANGE", 1 << 17)
        for name, beam in (("one", ONE), ("two", TWO)):
            nodes = data_nodes.Nodes(root, beam)
            if name == "one":
                nodes.prepare()
            examples = nodes.example_gen(f"{name}/examples", f"{root}/data/span-1/v-1/*.csv", shards=8)
            found[name] = {
                "examples": examples,
                "statistics": nodes.statistics(f"{name}/statistics", examples),
                "transform": nodes.transform(f"{name}/transform", examples),
                "evaluation": nodes.evaluation(f"{name}/evaluation", examples),
            }
    return found


def test_rows_and_splits(results: Any) -> None:
    data_nodes.same_rows(results["two"]["examples"], results["one"]["examples"], ROWS)
    assert len(list(Path(results["two"]["examples"].uri, "Split-train").iterdir())) == 8


@pytest.mark.parametrize("split", ["train", "eval", "test"])
def test_statistics(results: Any, split: str) -> None:
    found, expected = (data_nodes.load_statistics(results[name]["statistics"], split) for name in ("two", "one"))
    data_nodes.same_statistics(found, expected)


def test_transformed_values(results: Any) -> None:
    counts = {split: data_nodes.rows(results["one"]["examples"], split).total() for split in ("train", "eval", "test")}
    data_nodes.same_transformed(results["two"]["transform"], results["one"]["transform"], counts)


def test_metrics(results: Any) -> None:
    assert len({key for key, _ in data_nodes.metrics(results["one"]["evaluation"])}) > 20
    data_nodes.same_metrics(results["two"]["evaluation"], results["one"]["evaluation"])
