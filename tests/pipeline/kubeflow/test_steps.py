"""The compiled commands, run one after the other as the launcher runs them, with files and metadata in between.

What the cluster does beside it (pods, retries, the exit hook) is tested on a real one; here every step sees exactly
what the launcher hands over, so that a repair of the entrypoint which goes missing stops a step.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from datagen import humidity
from evergreen.errors import ExitCode
from pipeline import nodes
from tests.pipeline.kubeflow import emulator

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Returns folder and documents of a small pipeline whose volumes are folders here."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "registry").mkdir()
    humidity.generate(folder / "data", spans=2, rows=400)
    config = yaml.safe_load((REPOSITORY / "configs" / "humidity.yaml").read_text())
    config["data"] |= {"path": "span-{SPAN}/v-{VERSION}/*.csv"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    environment = {
        "registry": str(folder / "registry"),
        "kubeflow": {
            "image": "evergreen:test",
            "allow_tag": True,
            "pipeline_root": "minio://mlpipeline/v2/artifacts",
            "data_root": str(folder / "data"),
            "volumes": [
                {"claim": "data", "mount": str(folder / "data")},
                {"claim": "registry", "mount": str(folder / "registry")},
            ],
        },
    }
    (folder / "environment.yaml").write_text(yaml.safe_dump(environment))
    ended = subprocess.run(
        [
            *(sys.executable, "kubeflow_runner.py", "compile", "--no-backend"),
            *("--config", str(folder / "config.yaml"), "--environment", str(folder / "environment.yaml")),
            *("--output", str(folder / "pipeline.yaml")),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return folder, emulator.read(folder / "pipeline.yaml")


@pytest.mark.e2e
def test_data_flow_through_the_launcher_into_the_registry(compiled):
    folder, documents = compiled
    cluster = emulator.Cluster(folder / "first", documents, parameters={"spans": "2", "train_steps": 5})
    for task in nodes.names(curated_schema=True):
        step = cluster.run(task)
        assert step.exit_code == 0, step.log[-4000:]
    summary = json.loads((cluster.output("ExampleGen", "examples") / "summary.json").read_text())
    assert [span["span"] for span in summary["spans"]] == [2]
    assert sum(summary["rows"].values()) == 400
    assert (cluster.output("StatisticsGen", "statistics") / "Split-train" / "FeatureStats.pb").is_file()
    assert json.loads((cluster.output("Champion", "champion") / "champion.json").read_text())["version"] is None
    assert (cluster.output("ExampleValidator", "anomalies") / "report.json").is_file()
    assert cluster.artifacts["ExampleGen", "examples"]["metadata"]["span"] == 2
    assert all(uri["uri"].startswith("minio://") for uri in cluster.artifacts.values())
    assert list((folder / "registry" / ".runs").iterdir()) == []
    training = json.loads((cluster.output("Trainer", "model_run") / "training.json").read_text())
    assert training["steps"] == 5
    verdict = json.loads((cluster.output("Evaluator", "evaluation") / "verdict.json").read_text())
    assert verdict["rows"] > 0
    # Five steps teach nothing: what matters here is that Pusher read the verdict.
    pushed = json.loads((cluster.output("Pusher", "pushed_model") / "pushed.json").read_text())
    assert pushed["reasons"] == ["a gate did not bless the model"]


@pytest.mark.slow
def test_bad_data_end_with_their_code_a_note_and_no_second_attempt(compiled):
    folder, documents = compiled
    cluster = emulator.Cluster(folder / "second", documents, parameters={"spans": "7"})
    first = cluster.run("ExampleGen", pod="attempt-0")
    assert first.exit_code == ExitCode.BAD_INPUT, first.log[-4000:]
    second = cluster.run("ExampleGen", pod="attempt-1")
    assert second.exit_code == ExitCode.BAD_INPUT
    assert "loading TFX" in first.log
    assert "loading TFX" not in second.log
    reason = _told(folder, documents)
    assert "FAILED at ExampleGen" in reason
    assert "7" in reason


def _told(folder: Path, documents: list) -> str:
    """Runs the exit step without anybody to tell; returns what it would have said."""
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "components.entrypoint.notify"),
            *("--status", '{"state": "FAILED"}', "--pipeline", documents[0]["pipelineInfo"]["name"]),
            *("--run_id", emulator.RUN_ID, "--notes", str(folder / "registry" / ".runs")),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return "\n".join(json.loads(line)["message"] for line in ended.stderr.splitlines())
