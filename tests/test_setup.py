"""Set-up, packaging and the rules of the tree: what a fresh clone and an image stand on."""

from __future__ import annotations

import email.parser
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import evergreen

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("awk", "cat", "cmp", "cp", "date", "dirname", "grep", "mkdir", "mv", "rm", "sed", "sh", "sleep", "tail")
SYSTEM_PYTHONS = [Path(folder) / "python3.10" for folder in ("/usr/bin", "/usr/local/bin", "/opt/homebrew/bin")]


def call(
    command: Sequence[str | Path], *, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command without a terminal and returns what it said."""
    return subprocess.run(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine with POSIX tools and no Python on the path or in the home folder."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    home = tmp_path / "home"
    home.mkdir()
    return {"PATH": str(tools), "HOME": str(home)}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder, with a space in its name, that holds what set-up reads."""
    folder = tmp_path / "fresh clone"
    (folder / "scripts").mkdir(parents=True)
    for script in (ROOT / "scripts").glob("*.sh"):
        shutil.copy(script, folder / "scripts")
    shutil.copy(ROOT / "requirements.lock", folder)
    return folder


def broken_shim(folder: Path, name: str) -> None:
    """Writes a version manager's shim for a version that is not active."""
    shim = folder / name
    shim.write_text('#!/bin/sh\necho "version not set" >&2\nexit 127\n', encoding="utf-8")
    shim.chmod(0o755)


# --- finding Python 3.10 ---------------------------------------------------------------------------------------------


def base_python() -> Path:
    return Path(sys.base_prefix) / "bin" / "python3.10"


def test_python_is_found_behind_a_shim_that_fails(bare: dict[str, str], tmp_path: Path) -> None:
    broken_shim(tmp_path / "tools", "python3.10")
    versions = tmp_path / "pyenv" / "versions"
    (versions / "3.10.99" / "bin").mkdir(parents=True)
    (versions / "3.10.99" / "bin" / "python").symlink_to(base_python())

    found = call(
        ["sh", ROOT / "scripts/find-python.sh"], cwd=tmp_path, env={**bare, "PYENV_ROOT": str(tmp_path / "pyenv")}
    )

    assert found.returncode == 0
    assert call([found.stdout.strip(), "-V"], cwd=tmp_path).stdout.startswith("Python 3.10.")


def test_python_that_the_user_names_is_taken_or_refused(bare: dict[str, str], tmp_path: Path) -> None:
    named = call(["sh", ROOT / "scripts/find-python.sh"], cwd=tmp_path, env={**bare, "PYTHON": str(base_python())})
    assert (named.returncode, Path(named.stdout.strip()).resolve()) == (0, base_python().resolve())

    refused = call(["sh", ROOT / "scripts/find-python.sh"], cwd=tmp_path, env={**bare, "PYTHON": "/bin/false"})
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "PYTHON=/bin/false is not a working Python 3.10" in refused.stderr


@pytest.mark.skipif(any(path.exists() for path in SYSTEM_PYTHONS), reason="this machine has a system Python 3.10")
def test_without_python_one_sentence_says_how_to_get_it(bare: dict[str, str], clone: Path) -> None:
    refused = call(["sh", "scripts/setup-venv.sh"], cwd=clone, env=bare)

    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert "pyenv install 3.10" in refused.stderr
    assert not (clone / ".venv").exists()


# --- making .venv ----------------------------------------------------------------------------------------------------


def ready_venv(clone: Path) -> Path:
    """Writes what a finished set-up leaves."""
    venv = clone / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(base_python())
    shutil.copy(clone / "requirements.lock", venv / ".installed.lock")
    (venv / ".installed.in").write_text(f"{clone.resolve()}\n", encoding="utf-8")
    return venv


def test_a_finished_set_up_installs_nothing_whatever_the_times(bare: dict[str, str], clone: Path) -> None:
    ready_venv(clone)
    os.utime(clone / "requirements.lock")  # as a checkout does

    again = call(["sh", "scripts/setup-venv.sh"], cwd=clone, env=bare)

    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


@pytest.mark.parametrize("change", ["stamp", "folder", "python"])
def test_an_unfinished_or_moved_set_up_is_seen(bare: dict[str, str], clone: Path, change: str) -> None:
    venv = ready_venv(clone)
    (venv / "pyvenv.cfg").touch()
    if change == "stamp":
        (venv / ".installed.lock").unlink()
    elif change == "folder":
        (venv / ".installed.in").write_text("/elsewhere\n", encoding="utf-8")
    else:
        (venv / "bin" / "python").unlink()

    # It wants to begin anew, for which this machine has no Python.
    redo = call(["sh", "scripts/setup-venv.sh"], cwd=clone, env={**bare, "PYTHON": "/bin/false"})

    assert redo.returncode == 2
    assert "not a working Python" in redo.stderr


def test_a_folder_that_is_no_virtual_environment_is_left_alone(bare: dict[str, str], clone: Path) -> None:
    precious = clone / ".venv" / "thesis.tex"
    precious.parent.mkdir()
    precious.write_text("all of it", encoding="utf-8")

    refused = call(["sh", "scripts/setup-venv.sh"], cwd=clone, env={**bare, "PYTHON": str(base_python())})

    assert refused.returncode == 2
    assert "move it away" in refused.stderr
    assert precious.read_text(encoding="utf-8") == "all of it"


@pytest.mark.slow
def test_a_set_up_that_fails_says_why_and_starts_anew(bare: dict[str, str], clone: Path) -> None:
    env = {**bare, "PYTHON": str(base_python()), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}

    first = call(["sh", "scripts/setup-venv.sh"], cwd=clone, env=env)
    assert first.returncode == 1
    assert "installer: failed" in first.stderr
    assert "the same command does it anew" in first.stderr
    assert not (clone / ".venv" / ".installed.lock").exists()

    half_made = clone / ".venv" / "half-made"
    half_made.touch()
    assert call(["sh", "scripts/setup-venv.sh"], cwd=clone, env=env).returncode == 1
    assert not half_made.exists()


def test_our_packages_are_importable_from_every_folder(tmp_path: Path) -> None:
    imported = call(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-s", "-c", "import evergreen"], cwd=tmp_path
    )
    assert imported.returncode == 0, imported.stderr


# --- the lock --------------------------------------------------------------------------------------------------------


def locked() -> dict[str, str]:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE))


def test_every_package_is_pinned_with_hashes_and_no_host_is_named() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    body = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    blocks = re.split(r"\n(?=\S)", body.strip())

    assert "://" not in text
    assert "index" not in text.replace("--no-emit-index-url", "")
    for block in blocks:
        assert re.match(r"[a-z0-9._-]+==\S+", block), block
        assert "--hash=sha256:" in block, block


def requirements(part: int) -> list[Requirement]:
    """Reads the run-time (0) or tools (1) part of requirements.in."""
    text = (ROOT / "requirements.in").read_text(encoding="utf-8").split("\n# tools\n")[part]
    return [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]


def test_the_lock_holds_what_is_asked_for() -> None:
    pins = locked()
    for requirement in [*requirements(0), *requirements(1)]:
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


# --- packaging -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our wheel, built from a copy of the tree without the network."""
    copy = tmp_path_factory.mktemp("source")
    leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("pyproject.toml", "setup.py", "requirements.in", "local_runner.py"):
        shutil.copy(ROOT / name, copy)
    for folder in (
        "benchmarks",
        "components",
        "configs",
        "datagen",
        "evergreen",
        "pipeline",
        "schemas",
        "serving",
        "tests",
        "trainer",
        "transform",
    ):
        shutil.copytree(ROOT / folder, copy / folder, ignore=leave)
    built = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = call([*command, "--wheel-dir", built, "."], cwd=copy)
    assert done.returncode == 0, done.stderr
    (path,) = built.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_code_schemas_and_configs_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        str(path.relative_to(ROOT))
        for package in ("components", "datagen", "evergreen", "pipeline", "serving", "trainer", "transform")
        for path in (ROOT / package).rglob("*.py")
    }
    expected |= {"pipeline/beam_options.txt"}
    expected |= {f"pipeline/flink/{name}" for name in ("requirements.txt", "pom.xml", "jars.sha256")}
    expected |= {str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.yaml")}
    expected |= {str(path.relative_to(ROOT)) for path in (ROOT / "schemas").rglob("*.pbtxt")}

    assert {name for name in names if ".dist-info/" not in name} == expected | {"local_runner.py"}


@pytest.mark.slow
def test_the_wheel_asks_for_the_run_time_part_of_the_requirements(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    fields = email.parser.Parser().parsestr(archive.read(metadata).decode())

    asked = {str(Requirement(text)) for text in fields.get_all("Requires-Dist", [])}
    assert asked == {str(requirement) for requirement in requirements(0)}
    assert fields["Version"] == evergreen.__version__
    assert fields["Requires-Python"] is not None


# --- rules of the tree -----------------------------------------------------------------------------------------------


def test_make_help_lists_every_verb() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony is not None
    shown = call(["make", "--no-print-directory", "help"], cwd=ROOT)

    assert shown.returncode == 0
    listed = re.findall(r"^  make ([a-z-]+) +\S", shown.stdout, re.MULTILINE)
    assert set(listed) == set(phony.group(1).split()) - {"venv"}


def light_modules() -> list[str]:
    names = [info.name for info in pkgutil.iter_modules([str(ROOT / "evergreen")])]
    return ["evergreen", *(f"evergreen.{name}" for name in names), "pipeline.config"]


def test_what_the_command_line_needs_imports_no_heavy_library() -> None:
    program = f"""
import importlib, sys
for name in {light_modules()!r}:
    importlib.import_module(name)
    heavy = sorted({{"tensorflow", "tfx", "apache_beam", "keras", "ml_metadata"}} & set(sys.modules))
    assert not heavy, f"{{name}} imports {{', '.join(heavy)}}"
"""
    done = call([sys.executable, "-c", program], cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_fast_tests_run_before_slow_ones_and_whole_pipelines_last(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_order.py").write_text(
        "import pytest\n"
        "@pytest.mark.e2e\ndef test_whole(): pass\n"
        "@pytest.mark.slow\ndef test_slow(): pass\n"
        "def test_first(): pass\n"
        "@pytest.mark.e2e\n@pytest.mark.slow\ndef test_whole_and_slow(): pass\n"
        "def test_second(): pass\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", "--rootdir", tmp_path]
    shown = call([*command, "-c", os.devnull, tmp_path], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})

    order = re.findall(r"::(\w+)", shown.stdout)
    assert order == ["test_first", "test_second", "test_slow", "test_whole", "test_whole_and_slow"], shown.stdout


@pytest.mark.parametrize(("lint", "test"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_ci_runs_both_and_ends_with_the_closing_line(tmp_path: Path, lint: int, test: int) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    closing = "============ 2 passed, 1 skipped in 75.02s (0:01:15) ============"
    make = tmp_path / "make"
    make.write_text(
        f'#!/bin/sh\nfor verb; do :; done\nif [ "$verb" = lint ]; then exit {lint}; fi\n'
        f'echo "{closing}"\necho "and a word after it"\nexit {test}\n',
        encoding="utf-8",
    )
    make.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"

    run = call(["bash", tmp_path / ".ci" / "run"], cwd=tmp_path, env={"PATH": path, "CI": "true"})

    assert (run.returncode == 0) == (lint == test == 0)
    assert run.stdout.splitlines()[-1] == closing
