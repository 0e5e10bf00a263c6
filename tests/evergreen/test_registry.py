"""The registry's promise: whole versions only, whatever happens to whoever publishes."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.synchronize
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from evergreen.errors import BadInput
from evergreen.registry import Provenance, Registry, Stage, tree_digest

PUBLISH = """
import os, signal, sys
from evergreen.registry import Provenance, Registry, Stage

root, model, schema, fingerprint, killed_at = sys.argv[1:]

def at(stage):
    if stage is Stage[killed_at]:
        os.kill(os.getpid(), signal.SIGKILL)

Registry(root, "m").publish(
    model_dir=model, bundle={"schema.pbtxt": schema}, provenance=Provenance(run_fingerprint=fingerprint), at=at
)
"""


def saved_model(folder: Path, content: str) -> Path:
    """Writes what looks like a SavedModel to everything that does not load it, an empty folder included."""
    (folder / "variables").mkdir(parents=True)
    (folder / "assets").mkdir()
    (folder / "saved_model.pb").write_text(content)
    (folder / "variables" / "variables.index").write_text(content * 2)
    return folder


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "source" / "schema.pbtxt"
    path.parent.mkdir()
    path.write_text('feature { name: "a" type: INT }\n')
    return path


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry", "m")


def publish(registry: Registry, model: Path, schema: Path, *, run: str = "r", **provenance: object) -> int:
    return registry.publish(
        model_dir=model,
        bundle={"schema.pbtxt": schema},
        provenance=Provenance.model_validate({"run_fingerprint": run, **provenance}),
    )


def hidden(registry: Registry) -> list[str]:
    """Lists what is neither a version nor one of the registry's own files."""
    names = set(os.listdir(registry.folder)) - {".bundles", ".labels.json", ".lock"}
    return sorted(name for name in names if not name.isdecimal())


def test_importing_it_brings_in_no_tensorflow():
    code = "import sys, evergreen.registry; sys.exit('tensorflow' in sys.modules or 'tfx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_reading_a_registry_that_is_not_there_makes_nothing(registry: Registry, tmp_path: Path):
    assert registry.versions() == []
    assert registry.serving() is None
    assert not (tmp_path / "registry").exists()
    with pytest.raises(BadInput, match=r"no version 1.*\(none\)"):
        registry.manifest(1)


def test_a_published_version_has_model_bundle_manifest_and_label(registry: Registry, schema: Path, tmp_path: Path):
    model = saved_model(tmp_path / "a", "one")
    evaluation = tmp_path / "evaluation"
    (evaluation / "plots").mkdir(parents=True)
    (evaluation / "verdict.json").write_text("{}")
    (evaluation / "plots" / "x").write_text("x")

    version = registry.publish(
        model_dir=model,
        bundle={"train_stats/FeatureStats.pb": schema, "evaluation": evaluation},
        provenance=Provenance(run_fingerprint="r", metrics={"candidate": {"rmse": 1.5}}, champion_version=None),
    )

    assert (version, registry.versions(), registry.serving()) == (1, [1], 1)
    assert tree_digest(registry.model_dir(1)) == tree_digest(model)
    assert (Path(registry.model_dir(1)) / "assets").is_dir()
    bundle = Path(registry.bundle_dir(1))
    assert {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()} == {
        "manifest.json",
        "train_stats/FeatureStats.pb",
        "evaluation/verdict.json",
        "evaluation/plots/x",
    }
    manifest = registry.manifest(1)
    assert (manifest.name, manifest.version, manifest.run_fingerprint) == ("m", 1, "r")
    assert manifest.metrics == {"candidate": {"rmse": 1.5}}
    assert manifest.model_digest == tree_digest(model)
    assert manifest.pushed_at.endswith("+00:00")
    assert hidden(registry) == []


def test_versions_grow_and_the_last_one_serves(registry: Registry, schema: Path, tmp_path: Path):
    assert [publish(registry, saved_model(tmp_path / c, c), schema) for c in "abc"] == [1, 2, 3]
    assert (registry.versions(), registry.serving()) == ([1, 2, 3], 3)


def test_a_number_is_never_given_twice(registry: Registry, schema: Path, tmp_path: Path):
    for content in "ab":
        publish(registry, saved_model(tmp_path / content, content), schema)
    for folder in (registry.model_dir(2), registry.bundle_dir(2)):
        subprocess.run(["rm", "-r", folder], check=True)
    Path(registry.folder, ".labels.json").write_text('{"stable": 1, "last_version": 2}')
    assert publish(registry, saved_model(tmp_path / "c", "c"), schema) == 3
    assert registry.versions() == [1, 3]


def test_the_model_that_serves_gets_no_second_version(registry: Registry, schema: Path, tmp_path: Path):
    model = saved_model(tmp_path / "a", "one")
    assert publish(registry, model, schema) == 1
    labels = Path(registry.folder, ".labels.json")
    before = labels.stat().st_mtime_ns, registry.manifest(1)
    assert publish(registry, model, schema, run="another") == 1
    assert (labels.stat().st_mtime_ns, registry.manifest(1)) == before
    assert registry.versions() == [1]


def test_a_model_that_an_older_version_holds_gets_a_new_one(registry: Registry, schema: Path, tmp_path: Path):
    model = saved_model(tmp_path / "a", "one")
    publish(registry, model, schema)
    publish(registry, saved_model(tmp_path / "b", "two"), schema)
    assert publish(registry, model, schema) == 3
    assert registry.serving() == 3


@pytest.mark.parametrize("stage", list(Stage), ids=lambda stage: stage.name)
@pytest.mark.parametrize("earlier", [False, True], ids=["first", "second"])
def test_killed_at_any_point_it_stays_loadable_and_the_repeat_makes_no_duplicate(
    stage: Stage, earlier: bool, registry: Registry, schema: Path, tmp_path: Path
):
    before = publish(registry, saved_model(tmp_path / "old", "old"), schema) if earlier else None
    model = saved_model(tmp_path / "new", "new")

    command = [sys.executable, "-c", PUBLISH, str(tmp_path / "registry"), str(model), str(schema), "r", stage.name]
    killed = subprocess.run(command, check=False)

    assert killed.returncode == -signal.SIGKILL
    candidate = (before or 0) + 1
    assert registry.serving() == (candidate if stage is Stage.LABELLED else before)
    for version in registry.versions():
        assert tree_digest(registry.model_dir(version)) == registry.manifest(version).model_digest
        assert Path(registry.bundle_dir(version), "schema.pbtxt").read_text() == schema.read_text()

    assert publish(registry, model, schema) == candidate
    assert registry.serving() == candidate
    assert registry.versions() == [*([before] if before else []), candidate]
    assert tree_digest(registry.model_dir(candidate)) == tree_digest(model)
    assert hidden(registry) == []
    # A publish after that finds nothing left to clean that it should not.
    assert publish(registry, saved_model(tmp_path / "next", "next"), schema) == candidate + 1


def test_another_candidate_after_a_kill_leaves_the_unlabelled_version_alone(
    registry: Registry, schema: Path, tmp_path: Path
):
    model = saved_model(tmp_path / "killed", "killed")
    command = [sys.executable, "-c", PUBLISH, str(tmp_path / "registry"), str(model), str(schema), "r", "MODEL"]
    subprocess.run(command, check=False)
    assert (registry.versions(), registry.serving()) == ([1], None)
    assert publish(registry, saved_model(tmp_path / "other", "other"), schema) == 2
    assert (registry.versions(), registry.serving()) == ([1, 2], 2)


def test_what_fails_inside_leaves_the_registry_as_it_was(registry: Registry, schema: Path, tmp_path: Path):
    publish(registry, saved_model(tmp_path / "a", "a"), schema)

    def fails(stage: Stage) -> None:
        if stage is Stage.STAGED:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        registry.publish(model_dir=saved_model(tmp_path / "b", "b"), bundle={}, provenance=Provenance(), at=fails)
    assert (registry.versions(), registry.serving()) == ([1], 1)
    assert publish(registry, tmp_path / "b", schema) == 2


def test_an_incomplete_candidate_is_refused_whole_before_anything_is_touched(registry: Registry, tmp_path: Path):
    with pytest.raises(BadInput) as caught:
        registry.publish(model_dir=tmp_path, bundle={"schema.pbtxt": tmp_path / "none"}, provenance=Provenance())
    assert [problem.where for problem in caught.value.problems] == [
        f"{tmp_path}/saved_model.pb",
        str(tmp_path / "none"),
    ]
    assert not (tmp_path / "registry").exists()


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"stable": "first"}', "\x00\x01"])
def test_labels_that_cannot_be_read_are_told_by_name_and_never_overwritten(
    content: str, registry: Registry, schema: Path, tmp_path: Path
):
    model = saved_model(tmp_path / "a", "a")
    publish(registry, model, schema)
    labels = Path(registry.folder, ".labels.json")
    labels.write_text(content)
    with pytest.raises(BadInput) as caught:
        registry.serving()
    assert caught.value.problems[0].where == str(labels)
    assert "the versions there are: 1" in caught.value.problems[0].action
    with pytest.raises(BadInput):
        publish(registry, saved_model(tmp_path / "b", "b"), schema)
    assert labels.read_text() == content
    assert registry.versions() == [1]


@pytest.mark.parametrize("content", ["", "{}", '{"name": "m", "version": "x"}'])
def test_a_manifest_that_cannot_be_read_is_told_by_name(content: str, registry: Registry, schema: Path, tmp_path: Path):
    publish(registry, saved_model(tmp_path / "a", "a"), schema)
    manifest = Path(registry.bundle_dir(1), "manifest.json")
    manifest.write_text(content)
    with pytest.raises(BadInput) as caught:
        registry.manifest(1)
    assert caught.value.problems[0].where == str(manifest)


def test_a_label_on_a_version_that_is_gone_is_told(registry: Registry, schema: Path, tmp_path: Path):
    publish(registry, saved_model(tmp_path / "a", "a"), schema)
    subprocess.run(["rm", "-r", registry.model_dir(1)], check=True)
    with pytest.raises(BadInput, match=r"version 1 as the one that serves"):
        registry.serving()


def test_labels_and_manifest_of_a_later_release_are_read_and_kept(registry: Registry, schema: Path, tmp_path: Path):
    publish(registry, saved_model(tmp_path / "a", "a"), schema)
    labels, manifest = Path(registry.folder, ".labels.json"), Path(registry.bundle_dir(1), "manifest.json")
    labels.write_text(json.dumps({**json.loads(labels.read_text()), "shadow": 1}))
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "carbon": 3}))
    assert registry.manifest(1).version == 1
    publish(registry, saved_model(tmp_path / "b", "b"), schema)
    assert json.loads(labels.read_text())["shadow"] == 1


def test_what_is_not_the_registrys_is_left_alone(registry: Registry, schema: Path, tmp_path: Path):
    by_hand = saved_model(Path(registry.folder) / "7", "by hand")
    Path(registry.folder, "notes.txt").write_text("mine")
    assert publish(registry, saved_model(tmp_path / "a", "a"), schema) == 8
    assert registry.versions() == [8]
    assert (by_hand / "saved_model.pb").exists()
    assert Path(registry.folder, "notes.txt").exists()


def _publish_one(root: str, model: str, schema: str, start: multiprocessing.synchronize.Barrier) -> None:
    start.wait()
    Registry(root, "m").publish(model_dir=model, bundle={"schema.pbtxt": schema}, provenance=Provenance())


def test_processes_that_publish_at_once_get_a_version_each(registry: Registry, schema: Path, tmp_path: Path):
    context = multiprocessing.get_context("fork")
    start = context.Barrier(4)
    models = [saved_model(tmp_path / str(number), f"model {number}") for number in range(4)]
    root = str(tmp_path / "registry")
    processes = [context.Process(target=_publish_one, args=(root, str(m), str(schema), start)) for m in models]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert registry.versions() == [1, 2, 3, 4]
    assert registry.serving() == 4
    assert {registry.manifest(v).model_digest for v in registry.versions()} == {tree_digest(m) for m in models}


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden"])
def test_a_name_that_is_no_folder_is_refused(name: str, tmp_path: Path):
    with pytest.raises(BadInput, match="name of the model"):
        Registry(tmp_path, name)


def test_the_digest_sees_names_and_contents(tmp_path: Path):
    one, same, other, moved = (saved_model(tmp_path / name, name[:3]) for name in ("one", "one2", "two", "one3"))
    (moved / "saved_model.pb").rename(moved / "variables" / "saved_model.pb")
    assert tree_digest(one) == tree_digest(same)
    assert len({tree_digest(one), tree_digest(other), tree_digest(moved)}) == 3


# --- a root with a scheme: TensorFlow's own file system in memory ----------------------------------------------------


class Killed(BaseException):
    """Ends a publish as a kill would: no handler of ours may catch it."""


@pytest.mark.slow
@pytest.mark.parametrize("stage", list(Stage), ids=lambda stage: stage.name)
def test_a_remote_registry_commits_by_its_labels(stage: Stage, schema: Path, tmp_path: Path):
    registry = Registry(f"ram://registry-{stage.name}", "m")
    assert (registry.versions(), registry.serving()) == ([], None)
    assert publish(registry, saved_model(tmp_path / "a", "a"), schema) == 1
    model = saved_model(tmp_path / "b", "b")

    def kill(at: Stage) -> None:
        if at is stage:
            raise Killed

    with pytest.raises(Killed):
        registry.publish(
            model_dir=model, bundle={"schema.pbtxt": schema}, provenance=Provenance(run_fingerprint="r"), at=kill
        )
    seen = [1, 2] if stage is Stage.LABELLED else [1]
    assert (registry.versions(), registry.serving()) == (seen, seen[-1])
    assert publish(registry, model, schema) == 2
    assert (registry.versions(), registry.serving()) == ([1, 2], 2)
    assert tree_digest(registry.model_dir(2)) == tree_digest(model) == registry.manifest(2).model_digest


@pytest.mark.slow
def test_a_remote_version_that_is_half_there_is_removed(schema: Path, tmp_path: Path):
    import tensorflow as tf

    registry = Registry("ram://registry-half", "m")
    publish(registry, saved_model(tmp_path / "a", "a"), schema)
    for path in (f"{registry.model_dir(2)}/variables/half", f"{registry.bundle_dir(2)}/schema"):
        tf.io.gfile.makedirs(os.path.dirname(path))
        with tf.io.gfile.GFile(path, "w") as file:
            file.write("half")
    assert registry.versions() == [1]
    assert publish(registry, saved_model(tmp_path / "b", "b"), schema) == 2
    assert not tf.io.gfile.exists(f"{registry.model_dir(2)}/variables/half")
    assert tree_digest(registry.model_dir(2)) == tree_digest(tmp_path / "b")
