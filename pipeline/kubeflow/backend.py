"""Puts a compiled pipeline through the code of Kubeflow's own API server, where Go is there to build it.

verdict = check(Path("humidity.yaml"))
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from evergreen.errors import Problem

SOURCE = Path(__file__).resolve().parents[2] / "kfp_check"
"""The Go program; a wheel has none."""
_REFUSED = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What Kubeflow's code says of a compiled pipeline."""

    checked: bool
    """Whether it was asked at all."""
    words: str
    """Its answer, or why it was not asked."""
    problems: tuple[Problem, ...] = ()


def check(path: Path, *, workflow: Path | None = None) -> Verdict:
    """Asks Kubeflow's code whether it takes the pipeline.

    Args:
        path: the compiled pipeline.
        workflow: where the Argo Workflow of a run is written to.
    """
    if not (SOURCE / "go.mod").is_file():
        return Verdict(checked=False, words="not asked: kfp_check/ is not here (it is in the project's repository)")
    if shutil.which("go") is None:
        return Verdict(checked=False, words="not asked: there is no Go here (1.24 or newer builds kfp_check)")
    program = _program()
    fault = _build(program)
    if fault is not None:
        return Verdict(checked=False, words=f"not asked: kfp_check does not build here: {fault}")
    arguments = ["-workflow", str(workflow)] if workflow is not None else []
    answer = subprocess.run(
        [str(program), *arguments, str(path)], capture_output=True, text=True, check=False, timeout=120
    )
    if answer.returncode == 0:
        return Verdict(checked=True, words=answer.stdout.strip())
    said = " ".join(answer.stderr.split())
    if answer.returncode != _REFUSED:
        return Verdict(checked=False, words=f"not asked: kfp_check failed: {said}")
    stage, _, found = said.partition(": ")
    problem = Problem(
        where=f"{path}, {stage} to Kubeflow",
        found=found,
        expected="a pipeline that Kubeflow's API server accepts",
        action="Correct what it names and compile anew.",
    )
    return Verdict(checked=True, words="refused", problems=(problem,))


def _program() -> Path:
    """Returns where the program for these sources is kept: beside no clone, so that a fresh one finds it built."""
    digest = hashlib.sha256()
    for source in sorted([*SOURCE.rglob("*.go"), *SOURCE.rglob("go.mod"), SOURCE / "go.sum"]):
        digest.update(str(source.relative_to(SOURCE)).encode() + b"\0" + source.read_bytes() + b"\0")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "evergreen" / f"kfp_check-{digest.hexdigest()[:16]}"


def _build(program: Path) -> str | None:
    """Builds the program where it is not there yet; returns what went wrong."""
    if program.is_file():
        return None
    program.parent.mkdir(parents=True, exist_ok=True)
    # Built under another name, so that two at once do not run half a program.
    made = program.with_name(f".{program.name}.{os.getpid()}")
    answer = subprocess.run(
        ["go", "build", "-mod=readonly", "-buildvcs=false", "-ldflags=-s -w", "-o", str(made), "."],
        cwd=SOURCE,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        return " ".join(answer.stderr.split())[-500:]
    made.replace(program)
    return None
