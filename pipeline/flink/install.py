"""Flink and Beam's job server for it, fetched once from the package registries into a cache, each file by its hash.

Flink itself comes with the Python package `apache-flink-libraries` (`requirements.txt`), the job server and what it
needs by Maven (`pom.xml`). Java, Maven and uv are used as they are set up on the machine, registries and certificates
included. A folder of the cache shows only when it is whole; its name holds what it was made of.

    flink, job_server = jars(cache=default_cache())
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from evergreen.errors import BadInput, Problem

_HERE = Path(__file__).resolve().parent
_CHUNK = 1 << 20
# Beam's job server sends all that it runs from to Flink with every job: 150 MB, 15 seconds. Flink has the same jars
# from the start, so they stay where they are: below a folder of this name, which Beam leaves out of what it sends.
_NOT_STAGED = "gradle/wrapper"
# Of the distribution's jars those that a cluster without SQL needs.
_FLINK = ("flink-dist-*.jar", "log4j-*.jar")


def default_cache() -> Path:
    """Returns where fetched files are kept: `$XDG_CACHE_HOME/evergreen`, by default in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evergreen"


def jars(*, cache: Path, say: Callable[[str], None] = print) -> tuple[Sequence[Path], Sequence[Path]]:
    """Fetches what is not there yet.

    Args:
        cache: gets a folder for Flink (240 MB) and one for the job server (130 MB).
        say: is told what takes long.

    Returns:
        The jars of Flink, and those of Beam's job server.

    Raises:
        BadInput: a program is missing, a registry does not answer, or a file is not the one that was pinned.
    """
    cache /= _NOT_STAGED
    _need("java", "a Java 11 or 17 (Debian: apt install openjdk-17-jre-headless)")
    flink = _folder(cache, "flink", _HERE / "requirements.txt", _fetch_flink, say)
    server = _folder(cache, "flink-job-server", _HERE / "jars.sha256", _fetch_job_server, say)
    libraries = flink / "pyflink" / "lib"
    return sorted(file for pattern in _FLINK for file in libraries.glob(pattern)), sorted(server.glob("*.jar"))


def _folder(cache: Path, name: str, pins: Path, fetch: Callable[[Path], None], say: Callable[[str], None]) -> Path:
    folder = cache / f"{name}-{hashlib.sha256(pins.read_bytes()).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    say(f"Fetching {name} into {folder} (once) ...")
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{name}-") as temporary:
        made = Path(temporary) / name
        made.mkdir()
        fetch(made)
        try:
            made.rename(folder)
        except OSError:
            # Somebody else was faster.
            if not folder.is_dir():
                raise
    return folder


def _fetch_flink(folder: Path) -> None:
    uv = Path(sys.executable).parent / "uv"
    command = [str(uv), "pip", "install", "--quiet", "--no-config", "--no-deps", "--require-hashes"]
    command += ["--python", sys.executable, "--target", str(folder), "-r", str(_HERE / "requirements.txt")]
    _run(command, "the Python package registry")


def _fetch_job_server(folder: Path) -> None:
    _need("mvn", "Maven (Debian: apt install maven)")
    with tempfile.TemporaryDirectory() as temporary:
        # Maven writes beside the file that it is given.
        shutil.copy(_HERE / "pom.xml", temporary)
        command = ["mvn", "--quiet", "--batch-mode", "-f", f"{temporary}/pom.xml"]
        command += ["dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
        _run(command, "the Maven registry")
    lines = (_HERE / "jars.sha256").read_text(encoding="utf-8").splitlines()
    pinned = {name: hash_ for hash_, name in (line.split() for line in lines)}
    found = {file.name: _hash(file) for file in folder.iterdir()}
    wrong = sorted(name for name in {*pinned, *found} if pinned.get(name) != found.get(name))
    if wrong:
        raise BadInput([_not_pinned(name, pinned.get(name), found.get(name)) for name in wrong])


def _not_pinned(name: str, pinned: str | None, found: str | None) -> Problem:
    return Problem(
        where=name,
        found=f"SHA-256 {found}" if found else "no such file among what Maven brought",
        expected=f"SHA-256 {pinned}" if pinned else "only the files of pipeline/flink/jars.sha256",
        action="Find out why the registry has another file than the one that was pinned; do not use it until then.",
    )


def _hash(file: Path) -> str:
    made = hashlib.sha256()
    with open(file, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            made.update(chunk)
    return made.hexdigest()


def _need(program: str, words: str) -> None:
    if shutil.which(program) is None:
        raise BadInput([Problem(where="PATH", found=f"no {program}", expected=words, action="Install it.")])


def _run(command: Sequence[str], registry: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()[-15:]
        raise BadInput(
            [
                Problem(
                    where=command[0],
                    found="\n".join([f"exit status {done.returncode}", *said]),
                    expected=f"what is pinned, from {registry}",
                    action="Repair the connection or the disk, then type the command again.",
                )
            ]
        )
