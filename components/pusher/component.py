"""Pusher: TFX's interface, but the destination is the registry and the model goes there with all that explains it."""

from __future__ import annotations

from typing import ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import component_spec, standard_artifacts, standard_component_specs, system_executions

from components.pusher import executor

_channel = component_spec.ChannelParameter
_parameter = component_spec.ExecutionParameter


class PusherSpec(component_spec.ComponentSpec):
    """The interface of Pusher; the keys that TFX's own has too are TFX's."""

    PARAMETERS: ClassVar[dict[str, component_spec.ExecutionParameter]] = {
        executor.REGISTRY_KEY: _parameter(type=str),
        executor.MODEL_NAME_KEY: _parameter(type=str),
        executor.CONTEXT_KEY: _parameter(type=str),
        executor.PUSH_KEY: _parameter(type=int),
    }
    INPUTS: ClassVar[dict[str, component_spec.ChannelParameter]] = {
        standard_component_specs.MODEL_KEY: _channel(type=standard_artifacts.Model),
        standard_component_specs.MODEL_BLESSING_KEY: _channel(type=standard_artifacts.ModelBlessing, optional=True),
        standard_component_specs.INFRA_BLESSING_KEY: _channel(type=standard_artifacts.InfraBlessing, optional=True),
        standard_component_specs.EXAMPLES_KEY: _channel(type=standard_artifacts.Examples),
        standard_component_specs.SCHEMA_KEY: _channel(type=standard_artifacts.Schema),
        standard_component_specs.STATISTICS_KEY: _channel(type=standard_artifacts.ExampleStatistics),
        standard_component_specs.EVALUATION_KEY: _channel(type=standard_artifacts.ModelEvaluation),
        standard_component_specs.MODEL_RUN_KEY: _channel(type=standard_artifacts.ModelRun),
        executor.CHAMPION_KEY: _channel(type=standard_artifacts.Model),
        standard_component_specs.ANOMALIES_KEY: _channel(type=standard_artifacts.ExampleAnomalies, optional=True),
    }
    OUTPUTS: ClassVar[dict[str, component_spec.ChannelParameter]] = {
        standard_component_specs.PUSHED_MODEL_KEY: _channel(type=standard_artifacts.PushedModel)
    }
    TYPE_ANNOTATION = system_executions.Deploy


class Pusher(base_component.BaseComponent):
    """Publishes a blessed model into the registry, atomically and with its bundle.

    Component `outputs` contains:

     - `pushed_model`: Channel of type `standard_artifacts.PushedModel`, with TFX's properties `pushed`,
       `pushed_version` and `pushed_destination`; `pushed.json` says the same and why nothing was pushed.
    """

    SPEC_CLASS = PusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(
        self,
        *,
        model: types.BaseChannel,
        examples: types.BaseChannel,
        schema: types.BaseChannel,
        statistics: types.BaseChannel,
        evaluation: types.BaseChannel,
        model_run: types.BaseChannel,
        champion: types.BaseChannel,
        registry: str,
        model_name: str,
        context: str,
        model_blessing: types.BaseChannel | None = None,
        infra_blessing: types.BaseChannel | None = None,
        anomalies: types.BaseChannel | None = None,
        push: bool = True,
    ) -> None:
        """Constructs a Pusher node.

        Args:
            model: `Model`, the candidate.
            examples: `Examples`, the raw rows; their `summary.json` says which data it is.
            schema: `Schema` of the raw rows.
            statistics: `ExampleStatistics`; the train split's become the reference for drift.
            evaluation: `ModelEvaluation` with `verdict.json`.
            model_run: `ModelRun` with `training.json`.
            champion: `Model`, what the candidate was compared with.
            registry: the root of the model registry.
            model_name: the model in it.
            context: JSON object with `config` and what is known of `run_fingerprint`, `run_id`, `code_revision`,
                `image`.
            model_blessing: `ModelBlessing`; without one nothing is pushed.
            infra_blessing: `InfraBlessing`; where it is wired it must bless too.
            anomalies: `ExampleAnomalies` with what the data gate found and remembers of the spans, for the next run's.
            push: whether to publish at all.
        """
        super().__init__(
            spec=PusherSpec(
                **{
                    standard_component_specs.MODEL_KEY: model,
                    standard_component_specs.MODEL_BLESSING_KEY: model_blessing,
                    standard_component_specs.INFRA_BLESSING_KEY: infra_blessing,
                    standard_component_specs.EXAMPLES_KEY: examples,
                    standard_component_specs.SCHEMA_KEY: schema,
                    standard_component_specs.STATISTICS_KEY: statistics,
                    standard_component_specs.EVALUATION_KEY: evaluation,
                    standard_component_specs.MODEL_RUN_KEY: model_run,
                    executor.CHAMPION_KEY: champion,
                    standard_component_specs.ANOMALIES_KEY: anomalies,
                    executor.REGISTRY_KEY: registry,
                    executor.MODEL_NAME_KEY: model_name,
                    executor.CONTEXT_KEY: context,
                    executor.PUSH_KEY: int(push),
                    standard_component_specs.PUSHED_MODEL_KEY: types.Channel(type=standard_artifacts.PushedModel),
                }
            )
        )
