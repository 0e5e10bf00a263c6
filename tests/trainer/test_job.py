"""Training out of a job file, as every machine of a TFJob does: the file is checked whole, the training is real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evergreen.errors import BadInput
from tests import tables
from trainer import job

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    """A job file's content whose paths are there."""
    for name in ("train-0.gz", "eval-0.gz", "schema.pbtxt"):
        (tmp_path / name).touch()
    return {
        "train_files": [str(tmp_path / "train-*")],
        "eval_files": [str(tmp_path / "eval-*")],
        "transform_graph_path": str(tmp_path),
        "schema_path": str(tmp_path / "schema.pbtxt"),
        "serving_model_dir": str(tmp_path / "model"),
        "model_run_dir": str(tmp_path / "run"),
        "custom_config": {
            "preprocessing": tables.HUMIDITY,
            "model": {},
            "training": {"distribution": "none"},
        },
    }


def written(tmp_path: Path, document: Any) -> Path:
    path = tmp_path / "job.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_a_job_is_read(tmp_path: Path, document: dict[str, Any]) -> None:
    read = job.read_job(written(tmp_path, document))
    assert read.custom_config.training.distribution == "none"
    assert read.base_model is None


def test_the_job_in_the_docs_is_one() -> None:
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    job.Job.model_validate_json(text.partition("```json\n")[2].partition("```")[0])


def test_every_wrong_key_is_told_at_once(tmp_path: Path, document: dict[str, Any]) -> None:
    del document["schema_path"]
    document["train_step"] = 5
    document["custom_config"]["training"]["batch_size"] = 0
    with pytest.raises(BadInput) as caught:
        job.read_job(written(tmp_path, document))
    keys = {problem.where.rpartition(", ")[2] for problem in caught.value.problems}
    assert keys == {"schema_path", "train_step", "custom_config.training.batch_size"}


def test_every_path_that_leads_nowhere_is_told_at_once(tmp_path: Path, document: dict[str, Any]) -> None:
    document["eval_files"] = ["/no/such-*"]
    document["transform_graph_path"] = "/no/graph"
    with pytest.raises(BadInput) as caught:
        job.read_job(written(tmp_path, document))
    assert [problem.where.rpartition(", ")[2] for problem in caught.value.problems] == [
        "eval_files",
        "transform_graph_path",
    ]


@pytest.mark.parametrize("content", ["", "{", "[1, 2]"])
def test_what_is_no_job_ends_as_bad_input_without_a_traceback(tmp_path: Path, content: str) -> None:
    path = tmp_path / "job.json"
    path.write_text(content, encoding="utf-8")
    command = [sys.executable, "-m", "trainer.job", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_job_trains(tmp_path: Path) -> None:
    splits = {"train": tables.humidity_table(2_000, 1), "eval": tables.humidity_table(500, 2)}
    transformed = tables.run_transform(tmp_path / "data", splits, tables.HUMIDITY_TYPES, tables.HUMIDITY)
    document = {
        "train_files": transformed.files("train"),
        "eval_files": transformed.files("eval"),
        "transform_graph_path": str(transformed.graph),
        "schema_path": str(transformed.schema_path),
        "serving_model_dir": str(tmp_path / "model"),
        "model_run_dir": str(tmp_path / "run"),
        "custom_config": {
            "preprocessing": transformed.config.model_dump(mode="json"),
            "model": {"kind": "linear"},
            "training": {"max_steps": 5, "early_stopping_patience": None},
        },
    }
    assert job.main([str(written(tmp_path, document))]) == 0
    assert (tmp_path / "model" / "saved_model.pb").is_file()
    report = json.loads((tmp_path / "run" / "training.json").read_text())
    assert report["steps"] == 5
    assert report["rows"]["train"] == 2_000
