"""Copies a version of the registry into the artifact; what is there is always whole, `champion.json` comes last."""

from __future__ import annotations

import json
import os
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from evergreen.errors import BadInput, Problem
from evergreen.progress import report
from evergreen.registry import Registry

REGISTRY_KEY = "registry"
MODEL_NAME_KEY = "model_name"
VERSION_KEY = "version"
CHAMPION_KEY = "champion"
NO_CHAMPION = "none"
"""The value of `version` that leaves a run without a champion."""
CHAMPION_FILE = "champion.json"
BUNDLE_FOLDER = "bundle"


class Executor(base_executor.BaseExecutor):
    """Brings in the serving version, or says that there is none."""

    def Do(  # noqa: N802 - TFX calls it so
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the champion.

        Args:
            input_dict: empty.
            output_dict: `champion`, one `Model` artifact.
            exec_properties: `registry`, `model_name` and `version` as the component's constructor has them.

        Raises:
            BadInput: when the version that was asked for is not there, or the registry's files cannot be read.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        champion = artifact_utils.get_single_instance(output_dict[CHAMPION_KEY])
        registry = Registry(exec_properties[REGISTRY_KEY], exec_properties[MODEL_NAME_KEY])
        version = _chosen(registry, exec_properties.get(VERSION_KEY) or "")
        said: dict[str, Any] = {"version": version, "fingerprint": None, "source": None}
        if version is not None:
            manifest = registry.manifest(version)
            io_utils.copy_dir(registry.model_dir(version), path_utils.serving_model_dir(champion.uri))
            io_utils.copy_dir(registry.bundle_dir(version), os.path.join(champion.uri, BUNDLE_FOLDER))
            said |= {"fingerprint": manifest.model_digest, "source": registry.model_dir(version)}
            champion.set_int_custom_property("version", version)
        fileio.makedirs(champion.uri)
        io_utils.write_string_file(os.path.join(champion.uri, CHAMPION_FILE), json.dumps(said) + "\n")
        report("none yet" if version is None else f"version {version}")


def _chosen(registry: Registry, asked: str) -> int | None:
    if asked == NO_CHAMPION:
        return None
    if not asked:
        return registry.serving()
    if not asked.isdecimal():
        raise BadInput(
            [
                Problem(
                    where="version of the champion",
                    found=repr(asked),
                    expected=f'a number, "{NO_CHAMPION}", or nothing for the one that serves',
                    action="Correct the version.",
                )
            ]
        )
    return int(asked)
