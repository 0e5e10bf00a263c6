"""Publishes what every gate has blessed, with all that explains it, in one step; what is not blessed is no error."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

from tfx import types
from tfx.components.pusher import executor as tfx_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils

from evergreen.progress import report
from evergreen.registry import Blessing, Provenance, Registry
from evergreen.revision import code_revision, library_versions

REGISTRY_KEY = "registry"
MODEL_NAME_KEY = "model_name"
CONTEXT_KEY = "context"
PUSH_KEY = "push"
CHAMPION_KEY = "champion"
PUSHED_FILE = "pushed.json"
TRAIN_SPLIT = "train"

_ELSEWHERE = {"history", "config"}
"""What `training.json` says that is long, or in the manifest already."""

Inputs = dict[str, list[types.Artifact]]


class Executor(tfx_executor.Executor):
    """TFX's Pusher executor with the registry as its destination."""

    def Do(  # noqa: N802 - TFX calls it so
        self, input_dict: Inputs, output_dict: Inputs, exec_properties: dict[str, Any]
    ) -> None:
        """Publishes the candidate if it is blessed.

        Args:
            input_dict: what the component's constructor names; a blessing that is not wired may be missing.
            output_dict: `pushed_model`, one `PushedModel` artifact.
            exec_properties: `registry`, `model_name`, `context` (JSON) and `push` (0 or 1).

        Raises:
            BadInput: when the registry or an artifact that belongs into the bundle cannot be read.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed = artifact_utils.get_single_instance(output_dict[standard_component_specs.PUSHED_MODEL_KEY])
        reasons = list(self._reasons_against(input_dict, exec_properties))
        if reasons:
            self._MarkNotPushed(pushed)
            _write_pushed(pushed.uri, {"version": None, "destination": None, "new": False, "reasons": reasons})
            report("nothing pushed")
            return
        registry = Registry(exec_properties[REGISTRY_KEY], exec_properties[MODEL_NAME_KEY])
        model_path = self.GetModelPath(input_dict)
        before = registry.serving()
        version = registry.publish(
            model_dir=model_path,
            bundle=_bundle(input_dict),
            provenance=_provenance(input_dict, json.loads(exec_properties[CONTEXT_KEY] or "{}")),
        )
        destination = registry.model_dir(version)
        io_utils.copy_dir(model_path, pushed.uri)
        self._MarkPushed(pushed, pushed_destination=destination, pushed_version=str(version))
        new = version != before
        _write_pushed(pushed.uri, {"version": version, "destination": destination, "new": new, "reasons": []})
        report(f"version {version}" if new else f"version {version} serves this model already")

    def _reasons_against(self, input_dict: Inputs, exec_properties: dict[str, Any]) -> Iterator[str]:
        """Yields why the model is not to be published; TFX's own check decides about the blessings."""
        if not exec_properties.get(PUSH_KEY, 1):
            yield "pushing is switched off"
        if not input_dict.get(standard_component_specs.MODEL_BLESSING_KEY):
            yield "there is no blessing"
        elif not self.CheckBlessing(input_dict):
            yield "a gate did not bless the model"


def _bundle(input_dict: Inputs) -> dict[str, str]:
    """Returns what goes into the bundle, by its name there."""
    statistics = artifact_utils.get_split_uri(input_dict[standard_component_specs.STATISTICS_KEY], TRAIN_SPLIT)
    bundle = {
        "schema.pbtxt": _schema_path(input_dict),
        "train_stats/FeatureStats.pb": os.path.join(statistics, "FeatureStats.pb"),
        "evaluation": _uri(input_dict, standard_component_specs.EVALUATION_KEY),
        "training.json": _in(input_dict, standard_component_specs.MODEL_RUN_KEY, "training.json"),
        "summary.json": _in(input_dict, standard_component_specs.EXAMPLES_KEY, "summary.json"),
    }
    # What the data gate found, and what the next run's gate compares its spans with.
    for name in ("report.json", "spans.json"):
        if input_dict.get(standard_component_specs.ANOMALIES_KEY):
            path = _in(input_dict, standard_component_specs.ANOMALIES_KEY, name)
            bundle |= {f"validation/{name}": path} if fileio.exists(path) else {}
    return bundle


def _provenance(input_dict: Inputs, context: dict[str, Any]) -> Provenance:
    """Gathers what the manifest answers."""
    config = context.get("config") or {}
    verdict = _json(_in(input_dict, standard_component_specs.EVALUATION_KEY, "verdict.json"))
    training = _json(_in(input_dict, standard_component_specs.MODEL_RUN_KEY, "training.json"))
    champion = _json(_in(input_dict, CHAMPION_KEY, "champion.json"))
    return Provenance(
        data=_json(_in(input_dict, standard_component_specs.EXAMPLES_KEY, "summary.json")),
        schema_digest=_digest(_schema_path(input_dict)),
        config=config,
        run_fingerprint=context.get("run_fingerprint") or "",
        run_id=context.get("run_id") or "",
        code_revision=context.get("code_revision") or code_revision(),
        image=context.get("image") or "",
        libraries=library_versions(),
        hyperparameters=_hyperparameters(training.get("config") or config),
        hyperparameters_source=(training.get("hyperparameters") or {}).get("source", "configuration"),
        training={key: value for key, value in training.items() if key not in _ELSEWHERE},
        metrics=verdict.get("metrics") or {},
        evaluated_rows=verdict.get("rows"),
        champion_version=champion.get("version"),
        blessings=list(_blessings(input_dict)),
    )


def _hyperparameters(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the sections that a search may decide on, as training ran with them."""
    return {section: config[section] for section in ("model", "training") if section in config}


def _blessings(input_dict: Inputs) -> Iterator[Blessing]:
    for gate, key in (
        ("Evaluator", standard_component_specs.MODEL_BLESSING_KEY),
        ("InfraValidator", standard_component_specs.INFRA_BLESSING_KEY),
    ):
        for artifact in input_dict.get(key) or []:
            message = artifact.get_string_custom_property("blessing_message")
            # On a cluster the URI is a path in this pod; where the artifact stays, the entrypoint says.
            evidence = artifact.get_string_custom_property("remote_uri") or artifact.uri
            yield Blessing(gate=gate, evidence=evidence, message=message)


def _schema_path(input_dict: Inputs) -> str:
    return _in(input_dict, standard_component_specs.SCHEMA_KEY, "schema.pbtxt")


def _in(input_dict: Inputs, key: str, name: str) -> str:
    return os.path.join(_uri(input_dict, key), name)


def _uri(input_dict: Inputs, key: str) -> str:
    uri: str = artifact_utils.get_single_uri(input_dict[key])
    return uri


def _json(path: str) -> dict[str, Any]:
    with fileio.open(path) as file:
        content: dict[str, Any] = json.load(file)
    return content


def _digest(path: str) -> str:
    with fileio.open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _write_pushed(folder: str, said: dict[str, Any]) -> None:
    fileio.makedirs(folder)
    io_utils.write_string_file(os.path.join(folder, PUSHED_FILE), json.dumps(said) + "\n")
