"""What ML Metadata says of earlier runs, kept true: dead executions are closed, lost outputs are not offered again.

TFX's cache trusts metadata. A run that was killed leaves executions that seem to be running; a folder that somebody
removed or cut short still counts as an output. `reconcile` sets both right before a run, `seal` remembers what an
output looked like when it was complete.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_metadata import errors as mlmd_errors
from ml_metadata.proto import metadata_store_pb2 as mlmd

_SEAL = "evergreen_listing"
_OUTSIDE = "pushed_destination"
"""The property by which a PushedModel names what it put outside of its own folder."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one execution ended."""

    cached: bool
    outputs: Mapping[str, Sequence[Path]]
    """Folders of the output artifacts by output key."""


def outcome(store: Any, execution_id: int) -> Outcome:
    """Returns how the execution ended, and where its outputs lie.

    Args:
        store: an `ml_metadata.MetadataStore`.
        execution_id: the execution's id in the store.
    """
    (execution,) = store.get_executions_by_id([execution_id])
    outputs: dict[str, list[Path]] = {}
    for key, artifact in _outputs(store, [execution_id]):
        outputs.setdefault(key, []).append(Path(artifact.uri))
    return Outcome(cached=execution.last_known_state == mlmd.Execution.CACHED, outputs=outputs)


def seal(store: Any, execution_id: int) -> None:
    """Writes down what the outputs of a finished execution look like, for `reconcile` to compare with."""
    artifacts = [artifact for _, artifact in _outputs(store, [execution_id])]
    for artifact in artifacts:
        artifact.custom_properties[_SEAL].string_value = _listing(artifact)
    if artifacts:
        store.put_artifacts(artifacts)


def reconcile(store: Any, *, artifacts_root: Path) -> Sequence[str]:
    """Brings the metadata of earlier runs in line with what is on disk. To be called while no run is going on.

    Args:
        store: an `ml_metadata.MetadataStore`.
        artifacts_root: the pipeline's folder of artifacts.

    Returns:
        A sentence for everything that was set right.
    """
    return [*_close_dead_executions(store, artifacts_root), *_retire_lost_outputs(store)]


def _outputs(store: Any, execution_ids: Sequence[int]) -> Sequence[tuple[str, Any]]:
    events = [event for event in store.get_events_by_execution_ids(execution_ids) if event.type == mlmd.Event.OUTPUT]
    artifacts = {artifact.id: artifact for artifact in store.get_artifacts_by_id([e.artifact_id for e in events])}
    return [(event.path.steps[0].key, artifacts[event.artifact_id]) for event in events]


def _close_dead_executions(store: Any, artifacts_root: Path) -> Sequence[str]:
    dead = [e for e in store.get_executions() if e.last_known_state in (mlmd.Execution.NEW, mlmd.Execution.RUNNING)]
    for execution in dead:
        execution.last_known_state = mlmd.Execution.FAILED
        # TFX lays an output under NODE/KEY/EXECUTION and says in the metadata only when it is complete.
        for left in artifacts_root.glob(f"*/*/{execution.id}"):
            shutil.rmtree(left, ignore_errors=True)
    if dead:
        store.put_executions(dead)
    return [f"execution {e.id} of an earlier run had been cut off; what it left was removed" for e in dead]


def _retire_lost_outputs(store: Any) -> Sequence[str]:
    try:
        artifacts = store.get_artifacts()
    except mlmd_errors.NotFoundError:
        return []
    lost = [a for a in artifacts if a.state == mlmd.Artifact.LIVE and _is_lost(a)]
    for artifact in lost:
        artifact.state = mlmd.Artifact.DELETED
    if lost:
        store.put_artifacts(lost)
    return [f"{artifact.uri} is not what the run left there; it will be made anew" for artifact in lost]


def _is_lost(artifact: Any) -> bool:
    sealed = artifact.custom_properties[_SEAL].string_value if _SEAL in artifact.custom_properties else None
    # Without a seal the run ended between the node's success and the seal: the folder may not be trusted.
    return sealed is None or sealed != _listing(artifact)


def _listing(artifact: Any) -> str:
    """Returns a sha256 over the paths and sizes of an artifact's files; of what it published outside, the presence."""
    digest = hashlib.sha256()
    for entry in _walk(Path(artifact.uri)):
        digest.update(json.dumps(entry).encode())
    if _OUTSIDE in artifact.custom_properties:
        outside = artifact.custom_properties[_OUTSIDE].string_value
        digest.update(json.dumps([outside, "://" in outside or os.path.isdir(outside)]).encode())
    return digest.hexdigest()


def _walk(root: Path) -> Sequence[tuple[str, int]]:
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder) / name
            found.append((str(path.relative_to(root)), path.stat().st_size))
    return sorted(found)
