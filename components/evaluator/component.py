"""Evaluator: TFX's interface with the two sections of the configuration that the verdict needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from tfx import types
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import component_spec, standard_artifacts, standard_component_specs

from components.evaluator import executor
from evergreen import settings


class EvaluatorSpec(component_spec.ComponentSpec):
    """The interface of Evaluator: TFX's, with the settings of the verdict."""

    PARAMETERS: ClassVar[dict[str, component_spec.ExecutionParameter]] = {
        **standard_component_specs.EvaluatorSpec.PARAMETERS,
        executor.SETTINGS_KEY: component_spec.ExecutionParameter(type=str),
        executor.LABEL_KEY: component_spec.ExecutionParameter(type=str),
    }
    INPUTS = standard_component_specs.EvaluatorSpec.INPUTS
    OUTPUTS = standard_component_specs.EvaluatorSpec.OUTPUTS
    TYPE_ANNOTATION = standard_component_specs.EvaluatorSpec.TYPE_ANNOTATION


class Evaluator(base_beam_component.BaseBeamComponent):
    """Measures the candidate beside the champion and the trivial baseline, and blesses it or says why not.

    Component `outputs` contains:

     - `evaluation`: Channel of type `standard_artifacts.ModelEvaluation`: TFMA's results and `verdict.json`.
     - `blessing`: Channel of type `standard_artifacts.ModelBlessing`, as TFX writes it.
    """

    SPEC_CLASS = EvaluatorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self,
        *,
        examples: types.BaseChannel,
        model: types.BaseChannel,
        schema: types.BaseChannel,
        eval_config: Any,
        evaluation: settings.Evaluation,
        label: settings.Label,
        baseline_model: types.BaseChannel | None = None,
        example_splits: Sequence[str] = ("test",),
    ) -> None:
        """Constructs an Evaluator node.

        Args:
            examples: Channel of raw `Examples`; the train split is read for the trivial baseline, its label only.
            model: Channel of `Model`, the candidate.
            schema: Channel of `Schema`.
            eval_config: the `tfma.EvalConfig` that `pipeline.evaluation` makes of the two sections.
            evaluation: when a candidate is good enough.
            label: the column to predict.
            baseline_model: Channel of `Model` from Champion; it may hold none.
            example_splits: the splits to measure on.
        """
        optional = {standard_component_specs.BASELINE_MODEL_KEY: baseline_model} if baseline_model is not None else {}
        super().__init__(
            spec=EvaluatorSpec(
                **{
                    standard_component_specs.EXAMPLES_KEY: examples,
                    standard_component_specs.MODEL_KEY: model,
                    standard_component_specs.SCHEMA_KEY: schema,
                    standard_component_specs.EVAL_CONFIG_KEY: eval_config,
                    standard_component_specs.EXAMPLE_SPLITS_KEY: json.dumps(list(example_splits)),
                    # TFX's executor parses the value; it is null where there is none.
                    standard_component_specs.FAIRNESS_INDICATOR_THRESHOLDS_KEY: "null",
                    standard_component_specs.EVALUATION_KEY: types.Channel(type=standard_artifacts.ModelEvaluation),
                    standard_component_specs.BLESSING_KEY: types.Channel(type=standard_artifacts.ModelBlessing),
                    executor.SETTINGS_KEY: evaluation.model_dump_json(),
                    executor.LABEL_KEY: label.model_dump_json(),
                },
                **optional,
            )
        )
