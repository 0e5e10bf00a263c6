"""Makes the packages installable, for the container image and for Beam workers on other machines.

What is needed at run time stands in requirements.in above its line `# tools`, and nowhere else.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_namespace_packages, find_packages, setup

ROOT = Path(__file__).resolve().parent
CODE = ["evergreen", "pipeline", "components", "trainer", "transform", "serving", "datagen"]
"""Packages of code; folders without `__init__.py` are no part of them."""
DATA = ["configs", "schemas"]
"""Folders of data files, which keep their places beside the code."""


def run_time_requirements() -> list[str]:
    """Returns the lines of requirements.in above `# tools`."""
    text = (ROOT / "requirements.in").read_text(encoding="utf-8")
    run_time, tools, _ = text.partition("\n# tools\n")
    if not tools:
        raise SystemExit("requirements.in has no line '# tools', which ends what is needed at run time.")
    return [line for line in map(str.strip, run_time.splitlines()) if line and not line.startswith("#")]


def version() -> str:
    """Returns the version that evergreen/__init__.py states."""
    text = (ROOT / "evergreen" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise SystemExit('evergreen/__init__.py has no line __version__ = "..."')
    return found.group(1)


setup(
    name="evergreen-pipelines",
    version=version(),
    description="Keeps a model on tabular data fresh: a continuous-training pipeline on TFX.",
    python_requires=">=3.10,<3.11",
    install_requires=run_time_requirements(),
    packages=[
        *find_packages(include=[pattern for name in CODE for pattern in (name, f"{name}.*")]),
        *find_namespace_packages(include=[pattern for name in DATA for pattern in (name, f"{name}.*")]),
    ],
    py_modules=[path.stem for path in sorted(ROOT.glob("*_runner.py"))],
    package_data={
        **{name: ["*.yaml", "*.pbtxt", "**/*.yaml", "**/*.pbtxt", "*.txt", "py.typed"] for name in [*CODE, *DATA]},
        **{name: ["*.txt", "*.xml", "*.sha256"] for name in find_packages(include=["pipeline.*"])},
    },
    include_package_data=False,
    zip_safe=False,
)
