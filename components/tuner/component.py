"""TFX's Tuner with an executor that keeps every trial, with its curves, for the report."""

from __future__ import annotations

from tfx.components.tuner import component
from tfx.dsl.components.base import executor_spec

from components.tuner import executor


class Tuner(component.Tuner):
    """TFX's interface and outputs; `tuner_results` holds `trials.json` beside TFX's own table."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(executor.Executor)
