"""StatisticsGen: TFX's component, its executor replaced."""

from __future__ import annotations

from tfx.components.statistics_gen import component
from tfx.dsl.components.base import executor_spec

from components.statistics_gen import executor


class StatisticsGen(component.StatisticsGen):
    """TFX's StatisticsGen with one columnar pass over all splits; parameters and outputs are TFX's."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)
