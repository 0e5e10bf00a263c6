from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.kubeflow import backend, rules

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "three_kinds.py"
IMAGE = "registry.example/evergreen@sha256:" + "a" * 64


@pytest.fixture(scope="module")
def documents():
    spec = importlib.util.spec_from_file_location("three_kinds", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.compiled(image=IMAGE, registry_claim="registry")


def test_it_keeps_our_rules(documents):
    assert rules.check(documents) == []
    assert set(documents[0]["deploymentSpec"]["executors"]) == {"exec-draw-rows", "exec-ask-model", "exec-summarize"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("go") is None, reason="Kubeflow's own code needs Go to be built")
def test_kubeflow_takes_it(documents, tmp_path):
    path = tmp_path / "three_kinds.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    verdict = backend.check(path)
    assert verdict.checked, verdict.words
    assert verdict.problems == ()


def test_the_prebuilt_components_command_works(documents, tmp_path):
    container = documents[0]["deploymentSpec"]["executors"]["exec-summarize"]["container"]
    table, summary = tmp_path / "answers.jsonl", tmp_path / "out" / "summary"
    table.write_text('{"line": 1, "prediction": 2.0}\n{"line": 2, "prediction": 4.0}\n')
    command = [word for word in container["command"] if not word.startswith("{{")]
    assert command[:2] == ["python", "-c"]
    subprocess.run([sys.executable, *command[1:], str(table), "prediction", str(summary)], check=True)
    assert json.loads(summary.read_text()) == {"rows": 2, "mean": 3.0, "least": 2.0, "greatest": 4.0}
