"""The executor brings in the version that serves, whole, or says that there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components.champion.component import Champion
from components.champion.executor import Executor
from evergreen.errors import BadInput
from evergreen.registry import Provenance, Registry, tree_digest


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A registry with two versions, the second of which serves."""
    registry = Registry(tmp_path / "registry", "m")
    for content in ("one", "two"):
        model = tmp_path / content
        (model / "variables").mkdir(parents=True)
        (model / "assets").mkdir()
        (model / "saved_model.pb").write_text(content)
        (model / "variables" / "variables.index").write_text(content)
        statistics = tmp_path / f"{content}.pb"
        statistics.write_text(content)
        registry.publish(model_dir=model, bundle={"train_stats/FeatureStats.pb": statistics}, provenance=Provenance())
    return registry


def bring(tmp_path: Path, version: str, *, root: Path | None = None) -> tuple[Path, standard_artifacts.Model]:
    champion = standard_artifacts.Model()
    champion.uri = str(tmp_path / "champion")
    properties = {"registry": str(root or tmp_path / "registry"), "model_name": "m", "version": version}
    Executor().Do({}, {"champion": [champion]}, properties)
    return Path(champion.uri), champion


@pytest.mark.parametrize(("asked", "expected"), [("", 2), ("1", 1), ("2", 2)])
def test_the_version_asked_for_is_brought_with_its_bundle(
    asked: str, expected: int, registry: Registry, tmp_path: Path
):
    folder, artifact = bring(tmp_path, asked)
    said = json.loads((folder / "champion.json").read_text())
    assert said["version"] == expected
    assert said["fingerprint"] == registry.manifest(expected).model_digest
    # Where TFX's Trainer looks for a base model and TFMA for a baseline.
    assert tree_digest(path_utils.serving_model_path(artifact.uri)) == said["fingerprint"]
    assert tree_digest(folder / "bundle") == tree_digest(registry.bundle_dir(expected))
    assert artifact.get_int_custom_property("version") == expected


@pytest.mark.parametrize("asked", ["", "none"])
def test_without_a_published_model_it_says_so(asked: str, tmp_path: Path):
    folder, _ = bring(tmp_path, asked)
    assert json.loads((folder / "champion.json").read_text()) == {"version": None, "fingerprint": None, "source": None}
    assert [path.name for path in folder.iterdir()] == ["champion.json"]
    assert not (tmp_path / "registry").exists()


def test_none_leaves_a_published_model_out(registry: Registry, tmp_path: Path):
    folder, _ = bring(tmp_path, "none")
    assert [path.name for path in folder.iterdir()] == ["champion.json"]


@pytest.mark.parametrize(("asked", "message"), [("7", "no version 7"), ("latest", "'latest'"), ("-1", "'-1'")])
def test_a_version_that_is_not_there_is_told(asked: str, message: str, registry: Registry, tmp_path: Path):
    with pytest.raises(BadInput, match=message):
        bring(tmp_path, asked)


def test_the_component_has_the_interface_of_the_pipeline(tmp_path: Path):
    node = Champion(registry=str(tmp_path), model_name="m", version="none")
    assert node.id == "Champion"
    assert node.outputs["champion"].type is standard_artifacts.Model
    assert node.exec_properties == {"registry": str(tmp_path), "model_name": "m", "version": "none"}
