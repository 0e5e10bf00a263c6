"""Transform: TFX's component, its executor replaced."""

from __future__ import annotations

from tfx.components.transform import component
from tfx.dsl.components.base import executor_spec

from components.transform import executor


class Transform(component.Transform):
    """TFX's Transform over large batches; parameters and outputs are TFX's."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)
