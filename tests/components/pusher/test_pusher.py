"""Only what is blessed is published, once, and the manifest answers where it comes from."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest
from tfx import types
from tfx.types import artifact_utils, channel_utils, standard_artifacts

from components.champion.executor import Executor as Champion
from components.pusher.component import Pusher
from components.pusher.executor import Executor
from evergreen.errors import BadInput
from evergreen.registry import Registry, tree_digest
from serving.predictor import Predictor
from tests import models

CONFIG = {"name": "m", "model": {"kind": "linear"}, "training": {"epochs": 3}, "data": {"path": "x"}}
SUMMARY = {"spans": [{"span": 1, "version": 1, "files": []}], "rows": {"train": 80}, "quarantined": 0}
VERDICT = {
    "blessed": True,
    "reasons": [],
    "metrics": {"candidate": {"rmse": 1.42}, "champion": None, "trivial": {"rmse": 6.0}},
    "rows": 10,
    "champion_version": None,
}
TRAINING = {"steps": 30, "epochs": 3, "seconds": {"fitting": 1.5}, "history": {"loss": [2.0]}, "config": {}}


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save_regression(tmp_path_factory.mktemp("saved") / "model")


class Run:
    """The artifacts of one run up to the Pusher, and the Pusher on them."""

    def __init__(self, root: Path, saved_model: Path) -> None:
        self.root = root
        self.registry = Registry(root / "registry", "m")
        self.inputs: dict[str, list[types.Artifact]] = {
            key: [self._artifact(key, type_)]
            for key, type_ in {
                "model": standard_artifacts.Model,
                "model_blessing": standard_artifacts.ModelBlessing,
                "examples": standard_artifacts.Examples,
                "schema": standard_artifacts.Schema,
                "statistics": standard_artifacts.ExampleStatistics,
                "evaluation": standard_artifacts.ModelEvaluation,
                "model_run": standard_artifacts.ModelRun,
            }.items()
        }
        (root / "model" / "Format-Serving").symlink_to(saved_model)
        statistics = self.inputs["statistics"][0]
        statistics.split_names = artifact_utils.encode_split_names(["train", "eval"])
        for split in ("train", "eval"):
            folder = root / "statistics" / f"Split-{split}"
            folder.mkdir()
            (folder / "FeatureStats.pb").write_bytes(f"statistics of {split}".encode())
        (root / "schema" / "schema.pbtxt").write_text(models.SCHEMA)
        (root / "examples" / "summary.json").write_text(json.dumps(SUMMARY))
        (root / "evaluation" / "verdict.json").write_text(json.dumps(VERDICT))
        (root / "evaluation" / "metrics-00000-of-00001.tfrecord").write_bytes(b"\0tfma")
        (root / "model_run" / "training.json").write_text(json.dumps(TRAINING))
        self.bring_champion()
        self.bless(1)

    def _artifact(self, key: str, type_: type[types.Artifact]) -> types.Artifact:
        artifact = type_()
        artifact.uri = str(self.root / key)
        Path(artifact.uri).mkdir(exist_ok=True)
        return artifact

    def bring_champion(self) -> None:
        champion = self._artifact("champion", standard_artifacts.Model)
        properties = {"registry": str(self.root / "registry"), "model_name": "m", "version": ""}
        Champion().Do({}, {"champion": [champion]}, properties)
        self.inputs["champion"] = [champion]

    def bless(self, blessed: int, *, key: str = "model_blessing") -> None:
        type_ = {"model_blessing": standard_artifacts.ModelBlessing, "infra_blessing": standard_artifacts.InfraBlessing}
        blessing = self._artifact(key, type_[key])
        blessing.set_int_custom_property("blessed", blessed)
        blessing.set_string_custom_property("blessing_message", "it beats the mean")
        self.inputs[key] = [blessing]

    def push(self, *, push: int = 1, **context: Any) -> tuple[standard_artifacts.PushedModel, dict[str, Any]]:
        pushed = self._artifact("pushed", standard_artifacts.PushedModel)
        properties = {
            "registry": str(self.root / "registry"),
            "model_name": "m",
            "context": json.dumps({"config": CONFIG, "run_fingerprint": "r", **context}),
            "push": push,
        }
        Executor().Do(self.inputs, {"pushed_model": [pushed]}, properties)
        return pushed, json.loads((self.root / "pushed" / "pushed.json").read_text())


@pytest.fixture
def run(tmp_path: Path, saved_model: Path) -> Run:
    return Run(tmp_path, saved_model)


def test_a_blessed_model_is_published_with_its_bundle(run: Run, saved_model: Path):
    pushed, said = run.push()

    assert run.registry.serving() == 1
    assert tree_digest(run.registry.model_dir(1)) == tree_digest(saved_model)
    assert pushed.get_int_custom_property("pushed") == 1
    assert pushed.get_string_custom_property("pushed_version") == "1"
    assert pushed.get_string_custom_property("pushed_destination") == run.registry.model_dir(1)
    assert said == {"version": 1, "destination": run.registry.model_dir(1), "new": True, "reasons": []}
    assert (Path(pushed.uri) / "saved_model.pb").exists()
    bundle = Path(run.registry.bundle_dir(1))
    assert (bundle / "train_stats" / "FeatureStats.pb").read_bytes() == b"statistics of train"
    assert (bundle / "schema.pbtxt").read_text() == models.SCHEMA
    assert json.loads((bundle / "training.json").read_text()) == TRAINING
    assert json.loads((bundle / "evaluation" / "verdict.json").read_text()) == VERDICT
    assert (bundle / "evaluation" / "metrics-00000-of-00001.tfrecord").read_bytes() == b"\0tfma"


def test_the_manifest_answers_where_the_version_comes_from(run: Run, saved_model: Path):
    run.push(run_id="7", code_revision="abc", image="evergreen:1")
    manifest = run.registry.manifest(1)
    assert manifest.data == SUMMARY
    assert manifest.schema_digest == hashlib.sha256(models.SCHEMA.encode()).hexdigest()
    assert manifest.config == CONFIG
    assert (manifest.run_fingerprint, manifest.run_id, manifest.code_revision) == ("r", "7", "abc")
    assert manifest.image == "evergreen:1"
    assert manifest.libraries["tensorflow"] == importlib.metadata.version("tensorflow")
    assert manifest.hyperparameters == {"model": {"kind": "linear"}, "training": {"epochs": 3}}
    assert manifest.hyperparameters_source == "configuration"
    assert manifest.training == {"steps": 30, "epochs": 3, "seconds": {"fitting": 1.5}}
    assert manifest.metrics == VERDICT["metrics"]
    assert manifest.evaluated_rows == 10
    assert manifest.champion_version is None
    assert [(blessing.gate, blessing.message) for blessing in manifest.blessings] == [
        ("Evaluator", "it beats the mean")
    ]
    assert manifest.model_digest == tree_digest(saved_model)


def test_the_manifest_has_the_hyperparameters_that_were_trained_with(run: Run):
    tuned = {"model": {"kind": "deep"}, "training": {"epochs": 3, "learning_rate": 0.02}}
    found = {"source": "tuner", "values": {"training.learning_rate": 0.02}, "space": "digest"}
    training = {**TRAINING, "config": {**tuned, "preprocessing": {}}, "hyperparameters": found}
    (run.root / "model_run" / "training.json").write_text(json.dumps(training))
    run.push()
    manifest = run.registry.manifest(1)
    assert (manifest.hyperparameters, manifest.hyperparameters_source) == (tuned, "tuner")
    assert manifest.training["hyperparameters"] == found  # what the next run's Tuner looks up


def test_the_code_revision_is_found_out_where_the_runner_does_not_say(run: Run):
    run.push()
    assert run.registry.manifest(1).code_revision


def test_what_was_published_predicts(run: Run):
    run.push()
    (answer,) = Predictor.from_registry(run.registry).predict([{"beta1": 1.5, "weekday": 2, "machine": "a"}])
    assert answer.outputs == {"prediction": 23.0}


def test_the_same_model_again_makes_no_version_and_another_one_knows_its_champion(run: Run, saved_model: Path):
    run.push()
    _, said = run.push()
    assert said == {"version": 1, "destination": run.registry.model_dir(1), "new": False, "reasons": []}
    assert run.registry.versions() == [1]

    serving = run.root / "model" / "Format-Serving"
    serving.unlink()
    models.save_regression(serving)
    run.bring_champion()
    pushed, said = run.push()
    assert (said["version"], said["new"]) == (2, True)
    assert pushed.get_string_custom_property("pushed_version") == "2"
    assert run.registry.manifest(2).champion_version == 1


def _no_blessing(run: Run) -> None:
    del run.inputs["model_blessing"]


def _empty_blessing(run: Run) -> None:
    run.inputs["model_blessing"] = []


def _not_blessed(run: Run) -> None:
    run.bless(0)


def _infra_not_blessed(run: Run) -> None:
    run.bless(0, key="infra_blessing")


@pytest.mark.parametrize(
    ("spoil", "push", "reasons"),
    [
        (_no_blessing, 1, ["there is no blessing"]),
        (_empty_blessing, 1, ["there is no blessing"]),
        (_not_blessed, 1, ["a gate did not bless the model"]),
        (_infra_not_blessed, 1, ["a gate did not bless the model"]),
        (lambda run: None, 0, ["pushing is switched off"]),
        (_not_blessed, 0, ["pushing is switched off", "a gate did not bless the model"]),
    ],
)
def test_what_is_not_blessed_is_not_published_and_no_error(spoil: Any, push: int, reasons: list[str], run: Run):
    spoil(run)
    pushed, said = run.push(push=push)
    assert said == {"version": None, "destination": None, "new": False, "reasons": reasons}
    assert pushed.get_int_custom_property("pushed") == 0
    assert not (run.root / "registry").exists()
    assert [path.name for path in Path(pushed.uri).iterdir()] == ["pushed.json"]


def test_what_the_data_gate_remembers_goes_into_the_bundle(run: Run):
    anomalies = run._artifact("anomalies", standard_artifacts.ExampleAnomalies)
    (run.root / "anomalies" / "report.json").write_text('{"errors": []}')
    (run.root / "anomalies" / "spans.json").write_text('{"profiles": []}')
    run.inputs["anomalies"] = [anomalies]
    run.push()
    folder = Path(run.registry.bundle_dir(1)) / "validation"
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "report.json": '{"errors": []}',
        "spans.json": '{"profiles": []}',
    }
    run.bring_champion()
    assert (run.root / "champion" / "bundle" / "validation" / "spans.json").exists()


def test_both_blessings_are_named_where_both_gates_are_there(run: Run):
    run.bless(1, key="infra_blessing")
    run.push()
    assert [blessing.gate for blessing in run.registry.manifest(1).blessings] == ["Evaluator", "InfraValidator"]


def test_an_incomplete_run_publishes_nothing(run: Run):
    (run.root / "model" / "Format-Serving").unlink()
    (run.root / "statistics" / "Split-train" / "FeatureStats.pb").unlink()
    with pytest.raises(BadInput) as caught:
        run.push()
    assert len(caught.value.problems) == 2
    assert not (run.root / "registry").exists()


def test_the_component_has_the_interface_of_the_pipeline(run: Run):
    channels = {key: channel_utils.as_channel(artifacts) for key, artifacts in run.inputs.items()}
    node = Pusher(**channels, registry="r", model_name="m", context="{}")
    assert node.id == "Pusher"
    assert node.outputs["pushed_model"].type is standard_artifacts.PushedModel
    assert node.exec_properties == {"registry": "r", "model_name": "m", "context": "{}", "push": 1}
    assert set(node.inputs) == set(run.inputs)
    del channels["model_blessing"]
    assert "model_blessing" not in Pusher(**channels, registry="r", model_name="m", context="{}", push=False).inputs
