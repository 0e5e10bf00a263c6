"""The image's locks, and what the Dockerfile takes from this folder; `make image` builds it for real."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def pinned(name: str) -> dict[str, str]:
    """Returns the versions of a lock; every one has a hash."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found = dict(re.findall(r"^([a-z0-9._-]+)==([^\s\\]+)", text, flags=re.MULTILINE))
    assert len(re.findall(r"^[a-z0-9].*\\\n(?=    --hash=sha256:)", text, flags=re.MULTILINE)) == len(found)
    return found


@pytest.mark.parametrize("variant", ["cpu", "gpu"])
def test_the_image_has_the_versions_that_the_tests_ran_with(variant):
    tested, image = pinned("requirements.lock"), pinned(f"image/{variant}.lock")
    added = {name for name in image if name not in tested}
    assert all(version == tested[name] for name, version in image.items() if name in tested)
    assert {name for name in added if not name.startswith("nvidia-")} == (
        {"tensorflow-cpu"} if variant == "cpu" else set()
    )
    assert not {"pytest", "ruff", "mypy", "uv", "hypothesis"} & image.keys()


def test_the_variants_differ_in_tensorflow_only():
    cpu, gpu = pinned("image/cpu.lock"), pinned("image/gpu.lock")
    assert cpu.pop("tensorflow-cpu") == gpu.pop("tensorflow")
    assert any(name.startswith("nvidia-cudnn") for name in gpu)
    assert {name: version for name, version in gpu.items() if not name.startswith("nvidia-")} == cpu


def test_what_is_copied_is_sent_to_the_builder():
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"}
    copied = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if re.match(r"COPY (?!--from)", line)]
    names = {name for words in copied for name in words} - {"."}
    assert {re.sub(r"\$\{?\w+\}?", "*", name).replace("tools.lock", "*.lock") for name in names} <= sent
    # Everything that setup.py makes the wheel of.
    code = re.search(r"CODE = \[(.*?)\]", (ROOT / "setup.py").read_text(encoding="utf-8")).group(1)
    assert set(re.findall(r'"(\w+)"', code)) <= sent


def test_a_change_of_code_comes_after_what_takes_long_and_nobody_is_root():
    tools, packages, runtime, wheel, final = re.split(r"^FROM .*$", DOCKERFILE, flags=re.MULTILINE)[1:]
    assert "COPY . ." not in tools + packages + runtime
    assert "COPY . ." in wheel
    assert "COPY --from=packages" in runtime
    assert "COPY --from=packages" not in final
    assert final.index("COPY --from=wheel") < final.index("ARG REVISION")
    # image/build.sh makes the stages above this line once.
    assert DOCKERFILE.index(" AS runtime") < DOCKERFILE.index("# --- our own wheel") < DOCKERFILE.index(" AS wheel")
    assert re.search(r"^USER \d+:\d+$", final, flags=re.MULTILINE)
    assert re.search(r"^ARG BASE=\S+:\S*\d\S*$", DOCKERFILE, flags=re.MULTILINE)
