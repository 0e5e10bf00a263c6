"""Runs of `run_fn` on what the stock Transform made."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import tables


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run of the trainer left behind."""

    model: Path
    folder: Path

    @property
    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads((self.folder / "training.json").read_text())
        return report


def train_on(
    transformed: tables.Transformed,
    root: Path,
    *,
    base_model: Path | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    **sections: Any,
) -> Run:
    """Runs `run_fn` with TFX's own arguments; `sections` are those of the configuration."""
    from tfx.components.trainer import fn_args_utils

    from trainer import train

    config: Mapping[str, Any] = {
        "preprocessing": transformed.config.model_dump(mode="json"), "model": {}, "training": {}, **sections
    }  # fmt: skip
    run = Run(root / "model" / "Format-Serving", root / "run")
    train.run_fn(
        fn_args_utils.FnArgs(
            train_files=transformed.files("train"),
            eval_files=transformed.files("eval"),
            transform_graph_path=str(transformed.graph),
            schema_path=str(transformed.schema_path),
            serving_model_dir=str(run.model),
            model_run_dir=str(run.folder),
            base_model=str(base_model or root / "no" / "Format-Serving"),
            custom_config=config,
            hyperparameters=hyperparameters,
        )
    )
    return run


@pytest.fixture(scope="session")
def humidity(tmp_path_factory: pytest.TempPathFactory) -> tables.Transformed:
    """The built-in problem at the size of its seven default spans, through Transform."""
    splits = {
        "train": tables.humidity_table(112_000, 1),
        "eval": tables.humidity_table(14_000, 2),
        "test": tables.humidity_table(14_000, 3),
    }
    return tables.run_transform(tmp_path_factory.mktemp("humidity"), splits, tables.HUMIDITY_TYPES, tables.HUMIDITY)


@pytest.fixture(scope="session")
def humidity_run(humidity: tables.Transformed, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on it with the default settings."""
    return train_on(humidity, tmp_path_factory.mktemp("humidity_run"))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> tables.Transformed:
    """A few rows of it, for what does not depend on their number."""
    splits = {"train": tables.humidity_table(4_000, 1), "eval": tables.humidity_table(1_000, 2)}
    return tables.run_transform(tmp_path_factory.mktemp("small"), splits, tables.HUMIDITY_TYPES, tables.HUMIDITY)
