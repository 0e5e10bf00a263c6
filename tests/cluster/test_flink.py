"""A node in a pod whose Beam work is done on an Apache Flink outside it: `sh tests/cluster/run.sh -m flink`.

The pod and Flink's workers see the same files: the launcher's copies of the artifacts lie on a claim that the pod
mounts at /minio, and the workers, processes of this machine, find the claims of its cluster at the same paths.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from pipeline.flink import cluster as flink
from tests.cluster import startup
from tests.cluster.rig import Rig, address_for, opened

pytestmark = pytest.mark.flink

NODE = "StatisticsGen"
MOUNTS = {"artifacts": "/minio", "data": "/mnt/data"}
SLOTS = 1


@pytest.fixture
def shared(rig: Rig) -> Iterator[None]:
    """Lets this machine see the claims where the pods see them."""
    volumes = Path(os.environ["EVERGREEN_VOLUMES"])
    with contextlib.ExitStack() as stack:
        for claim, mount in MOUNTS.items():
            assert not Path(mount).exists(), f"{mount} is in the way"
            os.symlink(volumes / claim, mount)
            stack.callback(os.unlink, mount)
        yield


@pytest.fixture
def ports(tmp_path: Path, rig: Rig, shared: None) -> Iterator[flink.Ports]:
    """Returns the ports of a Flink on this machine.

    Pods reach its job server at the machine's address on the cluster's bridge: that part of Beam listens everywhere.
    """
    layout = flink.Layout(folder=tmp_path / "flink", ports=flink.Ports.free())
    # What the workers write, the pod's user has to be able to go on with.
    before = os.umask(0)
    try:
        flink.up(layout, workers=SLOTS)
    finally:
        os.umask(before)
    yield layout.ports
    flink.down(layout)


def _beam(address: str, ports: flink.Ports) -> dict[str, Any]:
    options = flink.options(ports, workers=SLOTS) | {
        "job_endpoint": f"{address}:{ports.job}",
        "artifact_endpoint": f"{address}:{ports.artifact}",
    }
    return {"runner": "DirectRunner", "nodes": {NODE: {"runner": "PortableRunner", "options": options}}}


def test_a_nodes_beam_work_is_done_on_flink(rig: Rig, ports: flink.Ports, tmp_path: Path) -> None:
    address = address_for(client.Configuration.get_default_copy().host)
    volume = {"claim": "artifacts", "mount": MOUNTS["artifacts"]}
    with opened(tmp_path, beam=_beam(address, ports), volumes=[volume]) as session:
        session.python(startup.DATA, session.data, str(startup.ROWS))
        run = session.end(session.start(session.compiled(), "push=false"))
    assert {node["name"]: node["state"] for node in run["nodes"]}[NODE] == "done"
    with urllib.request.urlopen(f"http://127.0.0.1:{ports.rest}/jobs/overview") as answer:
        jobs = json.load(answer)["jobs"]
    assert [job["state"] for job in jobs] == ["FINISHED"]
    print(f"{run['run_id']}: {NODE} by job {jobs[0]['jid']} in {jobs[0]['duration'] / 1000:.0f} s", file=sys.stderr)
