"""Fixtures that several test packages share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from evergreen.scratch import scratch_folder


def pytest_configure() -> None:
    """Keeps TensorFlow's start-up chatter out of the reports; errors are shown."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(autouse=True, scope="session")
def _temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Removes what the libraries leave behind: a stock Beam executor a package of TFX, each of them."""
    with scratch_folder(remembered_in=tmp_path_factory.mktemp("scratch") / "folder"):
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the fast tests first, then the slow ones, then whole pipelines; the order within each stays."""

    def rank(item: pytest.Item) -> int:
        return 2 if item.get_closest_marker("e2e") else 1 if item.get_closest_marker("slow") else 0

    items.sort(key=rank)
