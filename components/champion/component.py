"""Champion: a `Model` artifact with the version that serves now, its bundle beside it, or the word that there is none.

It takes the place of `tfx.dsl.Resolver`, which open-source Kubeflow Pipelines cannot run: the registry is asked when
the node runs, so that the answer is what serves, not what was blessed last.
"""

from __future__ import annotations

from typing import ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import component_spec, standard_artifacts, system_executions

from components.champion import executor


class ChampionSpec(component_spec.ComponentSpec):
    """The interface of Champion."""

    PARAMETERS: ClassVar[dict[str, component_spec.ExecutionParameter]] = {
        executor.REGISTRY_KEY: component_spec.ExecutionParameter(type=str),
        executor.MODEL_NAME_KEY: component_spec.ExecutionParameter(type=str),
        executor.VERSION_KEY: component_spec.ExecutionParameter(type=str),
    }
    INPUTS: ClassVar[dict[str, component_spec.ChannelParameter]] = {}
    OUTPUTS: ClassVar[dict[str, component_spec.ChannelParameter]] = {
        executor.CHAMPION_KEY: component_spec.ChannelParameter(type=standard_artifacts.Model)
    }
    TYPE_ANNOTATION = system_executions.Process


class Champion(base_component.BaseComponent):
    """Brings the serving model into the run.

    Component `outputs` contains:

     - `champion`: Channel of type `standard_artifacts.Model`. `champion.json` is always there and says which version it
       is; `Format-Serving/` (the SavedModel) and `bundle/` (manifest, schema, training statistics, evaluation) only
       when there is one. Consumers test for the folder; none means a first run.
    """

    SPEC_CLASS = ChampionSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)

    def __init__(self, *, registry: str, model_name: str, version: str = "") -> None:
        """Constructs a Champion node.

        Args:
            registry: the root of the model registry.
            model_name: the model in it.
            version: "" takes what serves when the node runs, "none" leaves the run without a champion, a number takes
                that version.
        """
        super().__init__(
            spec=ChampionSpec(
                **{
                    executor.REGISTRY_KEY: registry,
                    executor.MODEL_NAME_KEY: model_name,
                    executor.VERSION_KEY: version,
                    executor.CHAMPION_KEY: types.Channel(type=standard_artifacts.Model),
                }
            )
        )
