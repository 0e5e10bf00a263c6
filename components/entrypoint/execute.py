"""Runs one executor of TFX on the executor input that the launcher gave, and writes the output metadata.

What `tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor` does, with its own functions for parsing and
writing. That module itself cannot be used: it loads the Evaluator, and with it everything, for every node.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.entrypoint import lean

_log = logging.getLogger("evergreen.entrypoint")


def run(*, executor_class_path: str, executor_input: str, inputs_spec: str, beam_arguments: Sequence[str]) -> None:
    """Runs the executor.

    Args:
        executor_class_path: `<module>.<class>`.
        executor_input: the `ExecutorInput`, as JSON, as `translate.to_tfx` makes it.
        inputs_spec: the component's `inputDefinitions`, as JSON.
        beam_arguments: what goes on to Beam.

    Raises:
        Exception: whatever the executor raises.
    """
    began = time.monotonic()
    with lean.without_collecting():
        from google.protobuf import json_format
        from kfp.pipeline_spec import pipeline_spec_pb2
        from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils as parsing
        from tfx.orchestration.portable import outputs_utils

        module, _, name = executor_class_path.rpartition(".")
        kind = getattr(importlib.import_module(module), name)
    _log.info("%d modules loaded in %.1f s", len(sys.modules), time.monotonic() - began)

    given, spec = pipeline_spec_pb2.ExecutorInput(), pipeline_spec_pb2.ComponentInputsSpec()
    json_format.Parse(executor_input, given, ignore_unknown_fields=True)
    json_format.Parse(inputs_spec, spec, ignore_unknown_fields=True)
    names: dict[int, str] = {}
    inputs = parsing.parse_raw_artifact_dict(given.inputs.artifacts, names)
    outputs = parsing.parse_raw_artifact_dict(given.outputs.artifacts, names)
    properties = parsing.parse_execution_properties(given.inputs.parameter_values, given.inputs.parameters, spec)
    output_file = Path(given.outputs.output_file)
    executor = _executor(kind, beam_arguments, folder=output_file.parent)
    executor.Do(inputs, outputs, properties)
    outputs_utils.tag_output_artifacts_with_version(outputs)
    for blessing in outputs.get("blessing", ()):
        parsing.refactor_model_blessing(blessing, names)
    written = pipeline_spec_pb2.ExecutorOutput()
    for key, artifacts in parsing.translate_executor_output(outputs, names).items():
        written.artifacts[key].CopyFrom(artifacts)
    output_file.parent.mkdir(parents=True, exist_ok=True)
    output_file.write_text(json_format.MessageToJson(written), encoding="utf-8")


def _executor(kind: Any, beam_arguments: Sequence[str], *, folder: Path) -> Any:
    """Returns the executor with the context of its kind."""
    from tfx.dsl.components.base import base_executor

    about = {"unique_id": folder.name, "tmp_dir": os.path.join(folder, ".temp")}
    # An executor on Beam has loaded its base class; for the others Beam stays away.
    on_beam = sys.modules.get("tfx.dsl.components.base.base_beam_executor")
    if on_beam is not None and issubclass(kind, on_beam.BaseBeamExecutor):
        return kind(on_beam.BaseBeamExecutor.Context(beam_pipeline_args=list(beam_arguments), **about))
    return kind(base_executor.BaseExecutor.Context(extra_flags=list(beam_arguments), **about))
