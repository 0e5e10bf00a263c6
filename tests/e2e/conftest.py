"""A workspace of its own for every module of end-to-end tests, and the command line as a person uses it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from evergreen.registry import Registry
from evergreen.revision import ROOT

COMMITTED = ROOT / "configs" / "humidity.yaml"


@dataclasses.dataclass(frozen=True)
class Ended:
    """A process that ended."""

    code: int
    out: str
    err: str

    def states(self) -> dict[str, str]:
        """Returns the last word of the screen about each node."""
        pattern = r"^(\w+): (done|unchanged|skipped|refused|failed)\b"
        return dict(re.findall(pattern, self.out, flags=re.MULTILINE))


@dataclasses.dataclass(frozen=True)
class Workspace:
    """A folder with data, runs, registry and a configuration that point into it."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "humidity.yaml"

    @property
    def environment(self) -> Path:
        return self.folder / "environment.yaml"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def root(self) -> Path:
        return self.folder / "runs" / "humidity"

    @property
    def registry(self) -> Registry:
        return Registry(str(self.folder / "registry"), "humidity")

    def configure(self, **changes: Any) -> None:
        """Writes the committed configuration with other data and the changes; ``None`` removes a key."""
        document = yaml.safe_load(COMMITTED.read_text())
        document["data"]["path"] = f"{self.data}/span-{{SPAN}}/v-{{VERSION}}/*.csv"
        for dotted, value in changes.items():
            *parents, last = dotted.split("__")
            section = document
            for parent in parents:
                section = section.setdefault(parent, {})
            if value is None:
                section.pop(last, None)
            else:
                section[last] = value
        self.config.write_text(yaml.safe_dump(document))
        self.environment.write_text(
            yaml.safe_dump({"workspace": str(self.folder / "runs"), "registry": str(self.folder / "registry")})
        )

    def command(self, *arguments: str) -> list[str]:
        """Returns the command line; a verb comes first."""
        return [
            sys.executable,
            str(ROOT / "local_runner.py"),
            *arguments,
            "--config",
            str(self.config),
            "--environment",
            str(self.environment),
        ]

    def run(self, *arguments: str, text: str | None = None) -> Ended:
        """Runs the command line to its end."""
        done = subprocess.run(
            self.command(*arguments), input=text or "", capture_output=True, text=True, check=False, cwd=self.folder
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts the command line, its screen in a pipe."""
        return subprocess.Popen(
            self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.folder
        )

    def latest(self, node: str, key: str) -> Path:
        """Returns the newest output folder of a node."""
        return max((self.root / "artifacts" / node / key).iterdir(), key=lambda path: int(path.name))

    def verdict(self) -> dict[str, Any]:
        """Returns the newest verdict."""
        document: dict[str, Any] = json.loads((self.latest("Evaluator", "evaluation") / "verdict.json").read_text())
        return document

    def published(self) -> tuple[list[int], int | None]:
        """Returns the versions in the registry and the one that serves."""
        return list(self.registry.versions()), self.registry.serving()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A fresh workspace with the committed configuration; no data yet."""
    made = Workspace(tmp_path_factory.mktemp("workspace"))
    made.configure()
    return made


@pytest.fixture
def run_here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Runs the command line in this process, which has TFX loaded already: for the many short runs."""

    def runner(workspace: Workspace, *arguments: str) -> Ended:
        import local_runner

        monkeypatch.chdir(os.getcwd())
        capfd.readouterr()
        code = local_runner.main(workspace.command(*arguments)[2:])
        out, err = capfd.readouterr()
        return Ended(code, out, err)

    return runner
