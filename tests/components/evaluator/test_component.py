"""The component's interface: TFX's keys, and the settings as JSON that travels."""

from __future__ import annotations

from tfx import types
from tfx.types import standard_artifacts

from components.evaluator import executor
from components.evaluator.component import Evaluator
from evergreen import settings
from pipeline import evaluation


def test_the_settings_travel_as_json_and_the_champion_is_optional() -> None:
    section = settings.Evaluation(metrics=["rmse"])
    label = settings.Label(column="y", task=settings.Task.REGRESSION)
    node = Evaluator(
        examples=types.Channel(type=standard_artifacts.Examples),
        model=types.Channel(type=standard_artifacts.Model),
        schema=types.Channel(type=standard_artifacts.Schema),
        eval_config=evaluation.eval_config(section, label),
        evaluation=section,
        label=label,
    )
    assert settings.Evaluation.model_validate_json(node.exec_properties[executor.SETTINGS_KEY]) == section
    assert settings.Label.model_validate_json(node.exec_properties[executor.LABEL_KEY]) == label
    assert node.exec_properties["example_splits"] == '["test"]'
    assert set(node.inputs) == {"examples", "model", "schema"}
    assert node.outputs["evaluation"].type is standard_artifacts.ModelEvaluation
    assert node.outputs["blessing"].type is standard_artifacts.ModelBlessing
    assert node.id == "Evaluator"
