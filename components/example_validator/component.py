"""ExampleValidator: TFX's interface and artifact, with an executor that stops the run.

TFX's own records what is wrong and goes on: nothing that is standard reads what it records. This one also holds the
train split against what the serving model was trained on.
"""

from __future__ import annotations

from typing import ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import component_spec, standard_artifacts, standard_component_specs, system_executions

from components.example_validator import executor
from evergreen import settings


class ExampleValidatorSpec(component_spec.ComponentSpec):
    """The interface of ExampleValidator."""

    PARAMETERS: ClassVar[dict[str, component_spec.ExecutionParameter]] = {
        executor.VALIDATION_KEY: component_spec.ExecutionParameter(type=str),
        executor.LABEL_KEY: component_spec.ExecutionParameter(type=str),
        executor.WEIGHTS_KEY: component_spec.ExecutionParameter(type=str, optional=True),
    }
    INPUTS: ClassVar[dict[str, component_spec.ChannelParameter]] = {
        **standard_component_specs.ExampleValidatorSpec.INPUTS,
        executor.CHAMPION_KEY: component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
        standard_component_specs.EXAMPLES_KEY: component_spec.ChannelParameter(
            type=standard_artifacts.Examples, optional=True
        ),
    }
    OUTPUTS = standard_component_specs.ExampleValidatorSpec.OUTPUTS
    TYPE_ANNOTATION = system_executions.Process


class ExampleValidator(base_component.BaseComponent):
    """The data gate: stops the run where the data are not what schema, champion and earlier spans knew.

    It checks every split's statistics against the schema, the train split's against the champion's, each new span's
    rows against the span before it, and all rows against the configuration's own conditions.

    Component `outputs` contains:

     - `anomalies`: Channel of type `standard_artifacts.ExampleAnomalies`: `Split-<name>/SchemaDiff.pb` as TFX writes
       it, `report.json` with everything in words, and `spans.json` with what is remembered of each span.
    """

    SPEC_CLASS = ExampleValidatorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        *,
        statistics: types.BaseChannel,
        schema: types.BaseChannel,
        validation: settings.Validation,
        label: str,
        weights: str | None = None,
        champion: types.BaseChannel | None = None,
        examples: types.BaseChannel | None = None,
    ) -> None:
        """Constructs an ExampleValidator node.

        Args:
            statistics: Channel of `ExampleStatistics`, from StatisticsGen.
            schema: Channel of `Schema`.
            validation: what is checked beside the schema.
            label: the raw column to predict.
            weights: the raw column of the rows' weights, if there is one.
            champion: Channel of `Model` from Champion; it may hold none.
            examples: Channel of `Examples` from ExampleGen; without it spans and conditions are not checked.
        """
        optional = {executor.CHAMPION_KEY: champion, standard_component_specs.EXAMPLES_KEY: examples}
        inputs = {key: channel for key, channel in optional.items() if channel is not None}
        super().__init__(
            spec=ExampleValidatorSpec(
                **{
                    standard_component_specs.STATISTICS_KEY: statistics,
                    standard_component_specs.SCHEMA_KEY: schema,
                    standard_component_specs.ANOMALIES_KEY: types.Channel(type=standard_artifacts.ExampleAnomalies),
                    executor.VALIDATION_KEY: validation.model_dump_json(),
                    executor.LABEL_KEY: label,
                    **({} if weights is None else {executor.WEIGHTS_KEY: weights}),
                },
                **inputs,
            )
        )
