"""The entrypoint with TFX's own executor runner in between, in this process."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.entrypoint import __main__ as entrypoint
from components.entrypoint import mismatch, notes
from evergreen.errors import ExitCode
from tests.components.entrypoint import recorded

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _logging():
    """Gives the session its logging back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


class Pod:
    """One container after the other, with the launcher's folders."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.folder = folder
        self.notes = notes.Notes(str(folder / "registry" / ".runs"), recorded.RUN)
        self.calls_file = folder / "calls"
        self.output_file = folder / "kfp_outputs" / "output_metadata.json"
        self._monkeypatch = monkeypatch

    def arguments(self, *, code: str = "", **settings) -> list[str]:
        given = recorded.evaluator()
        given["outputs"]["outputFile"] = str(self.output_file)
        given["inputs"]["parameterValues"]["settings"] = json.dumps({"calls": str(self.calls_file), **settings})
        return [
            *("--executor_class_path", "tests.components.entrypoint.executors.Executor"),
            *("--json_serialized_invocation_args", json.dumps(given)),
            *("--json_serialized_inputs_spec_args", json.dumps(recorded.INPUTS_SPEC)),
            *("--task", "Evaluator", "--outputs", "blessing,evaluation"),
            *("--code", code or mismatch.code_digest()),
            *("--notes", str(self.folder / "registry" / ".runs"), "--root", str(self.folder)),
            "--runner=DirectRunner",
        ]

    def run(self, *, name: str = "pod-0", **settings) -> int:
        self._monkeypatch.setenv("KFP_POD_NAME", name)
        for left in ("minio", "kfp_outputs"):
            shutil.rmtree(self.folder / left, ignore_errors=True)
        return entrypoint.main(self.arguments(**settings))

    def calls(self) -> int:
        return len(self.calls_file.read_text().splitlines()) if self.calls_file.exists() else 0


@pytest.fixture
def pod(tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    return Pod(tmp_path, monkeypatch)


@pytest.mark.slow
def test_done_is_0_and_leaves_clean_metadata_and_no_note(pod):
    assert pod.run() == ExitCode.OK
    told = json.loads(pod.output_file.read_text())
    assert set(told["artifacts"]) == {"blessing", "evaluation"}
    blessing = told["artifacts"]["blessing"]["artifacts"][0]
    assert blessing["uri"].startswith("minio://mlpipeline/")
    assert blessing["metadata"]["current_model"].startswith("minio://mlpipeline/")
    assert blessing["metadata"]["blessed"] == 1
    assert "null" not in pod.output_file.read_text()
    assert pod.notes.all() == []
    assert not (pod.folder / "registry" / ".runs" / recorded.RUN).exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("bad input", ExitCode.BAD_INPUT),
        ("wrapped", ExitCode.BAD_INPUT),
        ("refused", ExitCode.REFUSED),
        ("fault", ExitCode.FAULT),
    ],
)
def test_the_exit_code_tells_why_and_the_note_says_it(pod, capsys, end, code):
    assert pod.run(end=end) == code
    note = pod.notes.read("Evaluator")
    assert note.exit_code == code
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    said = " ".join(line["message"] for line in lines if line["severity"] == "ERROR")
    if end == "fault":
        assert note.fault == "OSError: disk full"
        assert any("disk full" in line.get("exception", "") for line in lines)
    else:
        assert note.problems[0]["where"] == "data.csv, line 7"
        assert "Repair the line." in said
    assert all(line["task"] == "Evaluator" and line["run"] == recorded.RUN for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(("end", "kept"), [("refused", True), ("fault", False)])
def test_what_a_refused_node_wrote_outlives_its_pod(pod, end, kept):
    pod.run(end=end)
    note = pod.notes.read("Evaluator")
    assert bool(note.kept) is kept
    if kept:
        assert (Path(note.kept) / "evaluation" / "result").read_text() == "evaluation"
        pod.notes.clear()
        assert (Path(note.kept) / "evaluation" / "result").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(("end", "calls"), [("bad input", 1), ("refused", 1), ("fault", 2)])
def test_an_automatic_retry_does_the_work_again_only_after_a_fault(pod, capsys, end, calls):
    first = pod.run(name="pod-0", end=end)
    assert pod.run(name="pod-1", end=end) == first
    assert pod.calls() == calls


@pytest.mark.slow
def test_a_retry_by_a_person_does_the_work_again(pod):
    assert pod.run(name="pod-0", end="fault") == ExitCode.FAULT
    assert pod.run(name="pod-1", end="refused") == ExitCode.REFUSED
    # Kubeflow's own retry of a run starts the count of attempts, and so the pods' names, anew.
    assert pod.run(name="pod-0") == ExitCode.OK
    assert pod.calls() == 3


@pytest.mark.slow
def test_a_declared_output_that_is_left_empty_is_a_fault(pod):
    assert pod.run(leave_out=["evaluation"]) == ExitCode.FAULT
    assert "evaluation" in pod.notes.read("Evaluator").fault


def test_a_refusal_is_told_again_without_loading_tfx(pod):
    pod.notes.begin("Evaluator", pod="pod-0")
    problem = {"where": "schema", "found": "a", "expected": "b", "action": "Review it."}
    pod.notes.end("Evaluator", exit_code=ExitCode.REFUSED, problems=[problem])
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "components.entrypoint", *pod.arguments()],
        cwd=REPOSITORY,
        env={"KFP_POD_NAME": "pod-1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == ExitCode.REFUSED
    assert "Review it." in ended.stderr
    assert "components.entrypoint.notes" in _imported(ended.stderr)
    assert not {"tfx", "tensorflow", "apache_beam", "yaml", "pydantic"} & _imported(ended.stderr)


def _imported(stderr: str) -> set[str]:
    return {line.rsplit("|", 1)[-1].strip() for line in stderr.splitlines() if line.startswith("import time")}


@pytest.mark.slow
def test_an_executor_that_does_without_tensorflow_runs_without_it(pod):
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "components.entrypoint", *pod.arguments()],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == ExitCode.OK, ended.stderr[-2000:]
    assert "tfx.types.artifact" in _imported(ended.stderr)
    assert not {"tensorflow.python", "kfp.client", "tfx.components.transform.executor"} & _imported(ended.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"end": "unknown setting"}, "warmup_rows"),
        ({"end": "unknown module"}, "trainer.of_tomorrow"),
        ({"end": "missing input"}, "of_tomorrow"),
        ({"leave_out": ["evaluation"]}, "evaluation"),
    ],
)
def test_a_pipeline_of_another_revision_is_bad_input_and_the_same_error_a_fault_with_the_images_own(
    pod, settings, words
):
    assert pod.run(name="pod-0", code="0123456789abcdef", **settings) == ExitCode.BAD_INPUT
    (problem,) = pod.notes.read("Evaluator").problems
    assert words in problem["found"]
    assert "compiled with another revision than the image's (code 0123456789abcdef" in problem["found"]
    assert problem["action"] == "Build the image and compile again."
    assert pod.run(name="pod-1", **settings) == ExitCode.BAD_INPUT
    assert pod.calls() == 1
    pod.notes.clear()
    assert pod.run(name="pod-0", **settings) == ExitCode.FAULT
    assert words in pod.notes.read("Evaluator").fault


@pytest.mark.slow
def test_a_fault_of_the_machine_is_one_with_a_pipeline_of_another_revision_too(pod):
    assert pod.run(code="0123456789abcdef", end="fault") == ExitCode.FAULT


def test_the_code_digest_sees_every_module_that_runs_in_a_node(tmp_path):
    for package in mismatch.PACKAGES:
        shutil.copytree(REPOSITORY / package, tmp_path / package)
    assert mismatch.code_digest(tmp_path) == mismatch.code_digest()
    seen = {mismatch.code_digest()}
    for package in mismatch.PACKAGES:
        path = tmp_path / package / "__init__.py"
        path.write_text(path.read_text() + "\n")
        seen.add(mismatch.code_digest(tmp_path))
    assert len(seen) == 1 + len(mismatch.PACKAGES)


def test_a_wrong_parameter_of_the_run_is_bad_input_before_tfx_is_loaded(pod, capsys):
    arguments = pod.arguments()
    at = arguments.index("--json_serialized_invocation_args") + 1
    given = json.loads(arguments[at])
    given["inputs"]["parameterValues"] |= {"tune": "twice", "window": -1.0}
    arguments[at] = json.dumps(given)
    bound = ("--bind", "settings.when=tune", "--bind", "settings.window=window")
    assert entrypoint.main([*arguments, *bound]) == ExitCode.BAD_INPUT
    note = pod.notes.read("Evaluator")
    assert [problem["where"] for problem in note.problems] == ["the run's parameter window", "the run's parameter tune"]
    assert "loading TFX" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_parameter_of_the_run_reaches_the_executor_inside_its_property(pod):
    arguments = pod.arguments()
    at = arguments.index("--json_serialized_invocation_args") + 1
    given = json.loads(arguments[at])
    given["inputs"]["parameterValues"]["how"] = "refused"
    arguments[at] = json.dumps(given)
    assert entrypoint.main([*arguments, "--bind", "settings.end=how"]) == ExitCode.REFUSED


def test_a_step_loads_of_tfx_what_its_executor_needs(pod):
    code = (
        "import importlib, sys\n"
        "from components.entrypoint import lean\n"
        "lean.prepare(without_tensorflow=True)\n"
        "from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils\n"
        "importlib.import_module('components.champion.executor')\n"
        "print(sorted({'tensorflow', 'kfp.client', 'kfp.dsl', 'keras', 'kubernetes'} & set(sys.modules)))\n"
        "from tfx.components import Pusher\n"
        "import tensorflow_data_validation as tfdv, kfp\n"
        "print(Pusher.__name__, tfdv.generate_statistics_from_csv.__name__, kfp.Client.__name__)\n"
    )
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == ["[]", "Pusher generate_statistics_from_csv Client"]


@pytest.mark.slow
def test_keras_is_loaded_when_it_is_asked_for(pod):
    code = (
        "import sys\n"
        "from components.entrypoint import lean\n"
        "lean.prepare(without_tensorflow=True)\n"
        "import tensorflow as tf, keras\n"
        "print('keras.src' in sys.modules)\n"
        "print(keras.Model.__name__, tf.keras.Model is keras.Model, tf.keras.optimizers.Adam.__name__)\n"
        "print('IPython.core' in sys.modules)\n"
    )
    # TensorFlow Transform, where this process has loaded it, makes `tf.keras` the old Keras in those that it starts.
    env = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    command = [sys.executable, "-W", "ignore", "-c", code]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == ["False", "Model True Adam", "False"]


@pytest.mark.slow
def test_where_no_note_can_be_left_the_work_is_done(pod, capsys):
    (pod.folder / "registry").write_text("a file where the folder should be")
    assert pod.run() == ExitCode.OK
    assert "No note can be left" in capsys.readouterr().err


@pytest.mark.slow
def test_without_a_place_for_notes_every_attempt_works(pod):
    arguments = pod.arguments()
    del arguments[arguments.index("--notes") : arguments.index("--notes") + 2]
    assert entrypoint.main([*arguments, "--executor_class_path", "no.such.Executor"]) == ExitCode.FAULT
    assert not (pod.folder / "registry").exists()
