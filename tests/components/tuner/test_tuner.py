"""TFX's Tuner over our search: best values for Trainer, every trial in a table, nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import json_utils

from components.tuner import executor
from evergreen import settings
from tests import tables
from tests.trainer.conftest import small, train_on  # noqa: F401  the fixture is found by its name


def _search(transformed: tables.Transformed, root: Path, *, base_model: Path | None = None, **tuning: Any) -> Any:
    examples, graph = standard_artifacts.Examples(), standard_artifacts.TransformGraph()
    examples.uri, graph.uri = str(transformed.examples), str(transformed.graph)
    examples.split_names = artifact_utils.encode_split_names(["train", "eval", "test"])
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    examples.set_string_custom_property("file_format", "tfrecords_gzip")
    best, results, champion = (
        standard_artifacts.HyperParameters(), standard_artifacts.TunerResults(), standard_artifacts.Model()
    )  # fmt: skip
    best.uri, results.uri, champion.uri = str(root / "best"), str(root / "results"), str(base_model or root / "none")
    config = settings.TrainerConfig.model_validate(
        {
            "preprocessing": transformed.config.model_dump(mode="json"),
            "model": {"kind": "linear"},
            "training": {"epochs": 2, "batch_size": 256},
            "checkpoint_folder": str(root / "kept"),
            "tuning": {
                "algorithm": "random",
                "max_trials": 3,
                "parallel_trials": 1,
                "space": {
                    "training.learning_rate": {"kind": "log", "min": 0.001, "max": 0.3},
                    "model.kind": {"kind": "choice", "values": ["linear", "deep"]},
                    "model.hidden_units": {
                        "kind": "choice", "values": [[4], [8, 4]], "when": {"model.kind": ["deep"]}
                    },
                },
                **tuning,
            },
        }
    )  # fmt: skip
    executor.Executor(base_executor.BaseExecutor.Context(tmp_dir=str(root / "tmp"), unique_id="1")).Do(
        {"examples": [examples], "transform_graph": [graph], "base_model": [champion]},
        {"best_hyperparameters": [best], "tuner_results": [results]},
        {
            "tuner_fn": "trainer.tune.tuner_fn",
            "train_args": json.dumps({"splits": ["train"]}),
            "eval_args": json.dumps({"splits": ["eval"]}),
            "custom_config": json_utils.dumps(config.model_dump(mode="json")),
        },
    )
    return (
        json.loads((root / "best" / "best_hyperparameters.txt").read_text()),
        json.loads((root / "results" / executor.TRIALS_FILE).read_text()),
        json.loads((root / "results" / "tuner_results.json").read_text()),
    )


@pytest.mark.slow
def test_a_search_gives_trainer_its_best_values_and_the_report_all_trials(
    small: tables.Transformed,  # noqa: F811
    tmp_path: Path,
) -> None:
    best, table, of_tfx = _search(small, tmp_path)
    assert len(table["trials"]) == len(of_tfx) == 3
    winner = min(table["trials"], key=lambda trial: trial["score"])
    assert table["best"] == winner["values"]
    assert best["values"]["training.learning_rate"] == winner["values"]["training.learning_rate"]
    for trial in table["trials"]:
        assert trial["score"] == min(curve for curve in trial["curves"][0]["val_loss"])
        assert ("model.hidden_units" in trial["values"]) == (trial["values"]["model.kind"] == "deep")
        assert (trial["epochs"], trial["status"]) == (2, "COMPLETED")
    assert not list((tmp_path / "kept").iterdir())
    champion = tmp_path / "champion"
    sections = {"training": {"epochs": 1, "batch_size": 256}, "tuning": table["config"]["tuning"]}
    run = train_on(small, champion, hyperparameters=best, **sections)
    assert run.report["hyperparameters"]["source"] == "tuner"
    assert run.report["config"]["training"]["learning_rate"] == table["best"]["training.learning_rate"]
    # The next run takes them from the champion's manifest, as Pusher writes it.
    (champion / "bundle").mkdir()
    manifest = {"training": {"hyperparameters": run.report["hyperparameters"]}}
    (champion / "bundle" / "manifest.json").write_text(json.dumps(manifest))
    (champion / "Format-Serving").mkdir()
    again, table_again, _ = _search(small, tmp_path / "next", base_model=champion)
    assert table_again["source"] == "champion"
    assert table_again["trials"] == []
    assert again["values"]["training.learning_rate"] == best["values"]["training.learning_rate"]
    reused = train_on(small, tmp_path / "reused", hyperparameters=again, **sections)
    assert reused.report["hyperparameters"] == {**run.report["hyperparameters"], "source": "champion"}
