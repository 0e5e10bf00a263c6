"""Kubeflow's driver and launcher in a few lines: what they do to a step's files, words and metadata, on this machine.

It runs each compiled command in a process of its own with nothing but what the real ones hand over: a fresh root with
the inputs downloaded, `{{$}}` replaced, the types of the inputs left out, an output of the launcher's own added,
metadata wrapped as ML Metadata keeps it, outputs uploaded, unknown fields and nulls refused.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

REPOSITORY = Path(__file__).resolve().parents[3]
RUN_ID = "0c2f4f3e-6c1e-4a5b-9d57-0d5f3c0f9a11"
SALT = "7b1e0f0a-1111-4222-8333-444455556666"


@dataclasses.dataclass
class Step:
    """How a step ended."""

    exit_code: int
    log: str


class Cluster:
    """An object store, a metadata store and pods, in a folder."""

    def __init__(self, folder: Path, documents: list, *, run_id: str = RUN_ID, parameters: dict | None = None) -> None:
        self.folder = folder
        self.spec = documents[0]
        self.run_id = run_id
        inner = self.spec["components"].get("tfx-dag", self.spec["root"])
        self.tasks = inner["dag"]["tasks"]
        defined = self.spec["root"]["inputDefinitions"]["parameters"]
        self.parameters = {name: d["defaultValue"] for name, d in defined.items()} | (parameters or {})
        self.artifacts: dict[tuple[str, str], dict] = {}
        self.steps: dict[str, Step] = {}

    def run(self, task_id: str, *, pod: str | None = None) -> Step:
        """Runs one task; its producers must have run."""
        given = self.executor_input(task_id)
        root = self.folder / "pods" / (pod or task_id)
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        given["outputs"]["outputFile"] = str(root / "kfp_outputs" / "output_metadata.json")
        for listed in given["inputs"].get("artifacts", {}).values():
            for artifact in listed["artifacts"]:
                self._copy(self._stored(artifact["uri"]), self._local(root, artifact["uri"]))
        for listed in given["outputs"]["artifacts"].values():
            self._local(root, listed["artifacts"][0]["uri"]).parent.mkdir(parents=True, exist_ok=True)
        component = self.spec["components"][self.tasks[task_id]["componentRef"]["name"]]
        container = self.spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        words = [*container["command"], *container["args"], "--root", str(root)]
        words = [word.replace("{{$}}", json.dumps(given)) for word in words]
        assert words[0] == "python"
        environment = {
            **os.environ,
            "KFP_POD_NAME": pod or task_id,
            **{variable["name"]: variable["value"] for variable in container.get("env", [])},
        }
        ended = subprocess.run(
            [sys.executable, *words[1:]], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
        )
        step = Step(exit_code=ended.returncode, log=ended.stdout + ended.stderr)
        self.steps[task_id] = step
        if step.exit_code == 0:
            self._publish(task_id, given, root)
        return step

    def executor_input(self, task_id: str) -> dict:
        task = self.tasks[task_id]
        component = self.spec["components"][task["componentRef"]["name"]]
        inputs = task.get("inputs", {})
        artifacts = {
            key: {"artifacts": [self._as_input(source["taskOutputArtifact"])]}
            for key, source in inputs.get("artifacts", {}).items()
        }
        values = {
            key: self.parameters[value["componentInputParameter"]]
            if "componentInputParameter" in value
            else value["runtimeValue"]["constant"]
            for key, value in inputs.get("parameters", {}).items()
        }
        declared = component.get("outputDefinitions", {}).get("artifacts", {})
        pipeline = self.spec["pipelineInfo"]["name"]
        root = f"{self.spec['defaultPipelineRoot']}/{pipeline}/{self.run_id}/{task_id}/{SALT}"
        outputs = {
            key: {"artifacts": [{"type": definition["artifactType"], "uri": f"{root}/{key}"}]}
            for key, definition in {
                **declared,
                "executor-logs": {"artifactType": {"schemaTitle": "system.Artifact"}},
            }.items()
        }
        return {
            "inputs": {"artifacts": artifacts, "parameterValues": values},
            "outputs": {"artifacts": outputs, "parameters": {}},
        }

    def output(self, task_id: str, key: str) -> Path:
        """Returns where an output lies in the object store."""
        return self._stored(self.artifacts[task_id, key]["uri"])

    def _as_input(self, source: dict) -> dict:
        made = self.artifacts[source["producerTask"], source["outputArtifactKey"]]
        metadata = {
            "display_name": source["outputArtifactKey"],
            "store_session_info": '{"Provider":"minio"}',
            **{key: _kept(value) for key, value in made["metadata"].items()},
        }
        return {"name": made["name"], "type": {"instanceSchema": ""}, "uri": made["uri"], "metadata": metadata}

    def _publish(self, task_id: str, given: dict, root: Path) -> None:
        written = json.loads(Path(given["outputs"]["outputFile"]).read_text())
        assert "null" not in json.dumps(written), written
        json_format.ParseDict(written, pipeline_spec_pb2.ExecutorOutput(), ignore_unknown_fields=False)
        for key, listed in given["outputs"]["artifacts"].items():
            artifact = listed["artifacts"][0]
            for told in written.get("artifacts", {}).get(key, {}).get("artifacts", [])[:1]:
                artifact |= {"uri": told.get("uri") or artifact["uri"], "metadata": told.get("metadata", {})}
            local = self._local(root, artifact["uri"])
            if local.exists():
                self._copy(local, self._stored(artifact["uri"]))
            name = str(len(self.artifacts) + 1)
            self.artifacts[task_id, key] = {
                "name": name,
                "uri": artifact["uri"],
                "metadata": artifact.get("metadata", {}),
            }

    def _stored(self, uri: str) -> Path:
        return self.folder / "store" / uri.removeprefix("minio://")

    @staticmethod
    def _local(root: Path, uri: str) -> Path:
        return root / "minio" / uri.removeprefix("minio://")

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        """Copies as through an object store: files only, no empty folders."""
        paths = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
        for path in paths:
            copied = target / path.relative_to(source) if source.is_dir() else target
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copied)


def _kept(value: object) -> object:
    """Returns a value as ML Metadata gives it back."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, dict):
        return {"struct": value}
    return {"list": value} if isinstance(value, list) else value


def read(path: Path) -> list:
    """Returns the documents of a compiled pipeline."""
    return list(yaml.safe_load_all(path.read_text()))
