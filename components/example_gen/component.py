"""ExampleGen: a standard `Examples` artifact made of spans of CSV files.

TFX's CsvExampleGen reads a row at a time, dies on the first malformed line and leaves `{SPAN}` to a driver, which open
source Kubeflow Pipelines does not run. This one takes the same place in a pipeline and needs an executor only.
"""

from __future__ import annotations

import hashlib
import pathlib
from typing import ClassVar

from tfx import types
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import component_spec, standard_artifacts

from components.example_gen import executor
from evergreen import settings


class ExampleGenSpec(component_spec.ComponentSpec):
    """The interface of ExampleGen."""

    PARAMETERS: ClassVar[dict[str, component_spec.ExecutionParameter]] = {
        executor.DATA_KEY: component_spec.ExecutionParameter(type=str),
        executor.SCHEMA_PATH_KEY: component_spec.ExecutionParameter(type=str, optional=True),
        executor.SCHEMA_FINGERPRINT_KEY: component_spec.ExecutionParameter(type=str, optional=True),
        executor.SPANS_KEY: component_spec.ExecutionParameter(type=str, optional=True),
        executor.INPUT_FINGERPRINT_KEY: component_spec.ExecutionParameter(type=str, optional=True),
        executor.LABEL_KEY: component_spec.ExecutionParameter(type=str, optional=True),
    }
    INPUTS: ClassVar[dict[str, component_spec.ChannelParameter]] = {}
    OUTPUTS: ClassVar[dict[str, component_spec.ChannelParameter]] = {
        executor.EXAMPLES_KEY: component_spec.ChannelParameter(type=standard_artifacts.Examples)
    }


class ExampleGen(base_beam_component.BaseBeamComponent):
    """Reads the chosen spans and splits their rows.

    Component `outputs` contains:

     - `examples`: Channel of type `standard_artifacts.Examples`, one folder a split with several TFRecord files of
       serialized tf.Examples; beside them `summary.json` and `quarantine/`.
    """

    SPEC_CLASS = ExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self,
        data: settings.Data,
        *,
        schema_path: str | None = None,
        spans: str | None = None,
        input_fingerprint: str | None = None,
        label: str | None = None,
    ) -> None:
        """Constructs an ExampleGen node.

        Args:
            data: where the data lie and how they are split.
            schema_path: the curated schema, from which the columns' types are taken; without one they are inferred.
            spans: the spans to read ("3", "2-5"); the latest `data.window` where it is left out.
            input_fingerprint: fingerprint of the files behind the spans, as `evergreen.spans.resolve` gives it. It is
                there for the cache, which does not look at files; files that change on the way are refused by it.
            label: the column without which a row teaches nothing: such rows go to quarantine, and a span of which more
                than `data.max_unlabelled_share` lacks it is refused. All rows are kept where it is left out.
        """
        optional = {
            executor.SCHEMA_PATH_KEY: schema_path,
            executor.SCHEMA_FINGERPRINT_KEY: _fingerprint(schema_path),
            executor.SPANS_KEY: spans,
            executor.INPUT_FINGERPRINT_KEY: input_fingerprint,
            executor.LABEL_KEY: label,
        }
        super().__init__(
            spec=ExampleGenSpec(
                **{
                    executor.DATA_KEY: data.model_dump_json(),
                    executor.EXAMPLES_KEY: types.Channel(type=standard_artifacts.Examples),
                },
                **{name: value for name, value in optional.items() if value is not None},
            )
        )


def _fingerprint(schema_path: str | None) -> str | None:
    """Digests the schema, so that the cache sees when it changes; None where it cannot be seen from here."""
    if schema_path is None or not pathlib.Path(schema_path).is_file():
        return None
    return hashlib.sha256(pathlib.Path(schema_path).read_bytes()).hexdigest()
