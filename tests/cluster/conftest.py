"""One session on the cluster for all its tests, and the file of evidence that they fill."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.rig import REPOSITORY, Rig, opened

EVIDENCE = Path(os.environ.get("EVERGREEN_EVIDENCE", REPOSITORY / "runs" / "cluster" / "evidence.json"))


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Returns the open session."""
    with opened(tmp_path_factory.mktemp("cluster")) as session:
        yield session


@pytest.fixture(scope="session")
def evidence(rig: Rig) -> Iterator[dict[str, Any]]:
    """Returns what the session writes down in the end, whether its tests pass or not."""
    from kubernetes import client

    began = time.time()
    nodes = client.CoreV1Api().list_node().items
    kubernetes = client.VersionApi().get_code()
    told: dict[str, Any] = {
        "kubernetes": kubernetes.git_version,
        "nodes": [f"{node.status.node_info.os_image}, {node.status.capacity['cpu']} cores" for node in nodes],
        "kubeflow": sorted(
            {image for node in nodes for image in _images(node) if "kfp" in image or "argoexec" in image}
        ),
        "image": rig.image,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "runs": {},
    }
    yield told
    told["seconds"] = round(time.time() - began)
    EVIDENCE.parent.mkdir(parents=True, exist_ok=True)
    EVIDENCE.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _images(node: Any) -> list[str]:
    # An image that is on its way out has no name any more.
    return [name for image in node.status.images for name in image.names or () if "@" not in name]
