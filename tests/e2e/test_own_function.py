"""A feature of one's own: the cache knows what its function computes, so that no run learns from stale features."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from datagen import humidity
from evergreen.revision import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PACKAGES = ("components", "datagen", "evergreen", "pipeline", "serving", "trainer", "transform", "schemas", "configs")
FUNCTION = """
from own.factors import FACTOR


def larger(columns):
    return columns["beta1"] * FACTOR
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, for a person's function is a module of it, and this test changes the function."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "local_runner.py", tmp_path)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "__init__.py").touch()
    (tmp_path / "own" / "features.py").write_text(FUNCTION)
    (tmp_path / "own" / "factors.py").write_text("FACTOR = 2.0\n")
    document = yaml.safe_load((ROOT / "configs" / "humidity.yaml").read_text())
    document["features"]["large"] = {"kind": "custom", "function": "own.features.larger", "columns": ["beta1"]}
    document["data"] |= {"window": 1}
    (tmp_path / "configs" / "humidity.yaml").write_text(yaml.safe_dump(document))
    humidity.generate(tmp_path / "data" / "humidity", spans=1, rows=500)
    return tmp_path


def states(project: Path) -> dict[str, str]:
    """Runs up to Transform; returns the last word of the screen about each node."""
    command = [sys.executable, str(project / "local_runner.py"), "run", "--to", "Transform"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(re.findall(r"^(\w+): (done|unchanged|skipped|refused|failed)\b", done.stdout, flags=re.MULTILINE))


def learned(project: Path) -> float:
    """Returns the first row's value of the feature in the newest transformed examples."""
    import tensorflow as tf

    folder = max(
        (project / "runs/humidity/artifacts/Transform/transformed_examples").iterdir(), key=lambda p: int(p.name)
    )
    files = sorted(str(path) for path in (folder / "Split-train").iterdir())
    kind = "GZIP" if files[0].endswith(".gz") else ""
    serialized = next(tf.data.TFRecordDataset(files, kind).as_numpy_iterator())
    return float(tf.train.Example.FromString(serialized).features.feature["large"].float_list.value[0])


def test_a_change_of_the_function_or_of_what_it_imports_is_transformed_anew(project: Path):
    assert states(project)["Transform"] == "done"
    first = learned(project)
    assert set(states(project).values()) == {"unchanged", "skipped"}

    (project / "own" / "factors.py").write_text("FACTOR = 6.0\n")
    again = states(project)
    assert again["Transform"] == "done"
    # What does not depend on the function stays.
    assert {again[node] for node in ("ExampleGen", "StatisticsGen", "ExampleValidator")} == {"unchanged"}
    assert learned(project) == pytest.approx(3.0 * first, rel=1e-5)

    (project / "own" / "features.py").write_text(FUNCTION.replace("* FACTOR", "* -FACTOR"))
    assert states(project)["Transform"] == "done"
    assert learned(project) == pytest.approx(-3.0 * first, rel=1e-5)
