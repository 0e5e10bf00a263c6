"""Fixtures that several test packages share."""

from __future__ import annotations

import os

import pytest


def pytest_configure() -> None:
    """Keeps TensorFlow's start-up chatter out of the reports; errors are shown."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the fast tests first, then the slow ones, then whole pipelines; the order within each stays."""

    def rank(item: pytest.Item) -> int:
        return 2 if item.get_closest_marker("e2e") else 1 if item.get_closest_marker("slow") else 0

    items.sort(key=rank)
