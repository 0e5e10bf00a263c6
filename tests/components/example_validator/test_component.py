"""The component's interface: TFX's keys beside the champion, and the settings as JSON that travels."""

from __future__ import annotations

from tfx import types
from tfx.types import standard_artifacts

from components.example_validator import executor
from components.example_validator.component import ExampleValidator
from evergreen import settings


def test_the_settings_travel_as_json() -> None:
    node = ExampleValidator(
        statistics=types.Channel(type=standard_artifacts.ExampleStatistics),
        schema=types.Channel(type=standard_artifacts.Schema),
        champion=types.Channel(type=standard_artifacts.Model),
        examples=types.Channel(type=standard_artifacts.Examples),
        validation=settings.Validation(min_rows=7),
        label="price",
    )
    assert settings.Validation.model_validate_json(node.exec_properties[executor.VALIDATION_KEY]).min_rows == 7
    assert node.exec_properties[executor.LABEL_KEY] == "price"
    assert set(node.inputs) == {"statistics", "schema", "champion", "examples"}
    assert node.outputs["anomalies"].type is standard_artifacts.ExampleAnomalies
    assert node.id == "ExampleValidator"
