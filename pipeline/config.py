"""The configuration: one typed object out of YAML, every mistake told at once with file, line and key.

    config = load_config(Path("configs/humidity.yaml"))
    environment = load_environment(Path("configs/environments/local.yaml"))

Nothing here imports TensorFlow or TFX, so that a mistake shows in well under a second. Relative paths in the files
are relative to the folder that the runner works in, the project's root.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pydantic

from evergreen import settings
from evergreen.errors import BadInput, Problem
from evergreen.files import PATTERN_SIGNS
from pipeline import config_checks, shape, yaml_file
from pipeline.beam import Beam
from pipeline.kubeflow.environment import Kubeflow


def _legal_name(name: str) -> str:
    """Holds a name to what Kubernetes takes: it names pods, folders and the model."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,62}", name):
        raise ValueError("a small letter, then small letters, digits and hyphens, 63 characters at the most")
    return name


class Config(settings.Section):
    """What a person writes about a table: the data, the features, the model and when it is good enough."""

    name: Annotated[str, pydantic.AfterValidator(_legal_name)]
    """Names the pipeline and the model in the registry."""
    data: settings.Data
    schema_path: str | None = pydantic.Field(default=None, alias="schema")
    """The curated schema; without one the run infers it."""
    label: settings.Label
    features: Annotated[dict[str, settings.Feature], pydantic.Field(min_length=1)]
    """What the model sees, by name; the kind says how it is made of raw columns."""
    weights: settings.Weights | None = None
    """How much each row counts in training; all the same where it is left out."""
    model: settings.Model = settings.Model()
    training: settings.Training = settings.Training()
    tuning: settings.Tuning | None = None
    """The search for hyperparameters before training; without it the configured ones are trained with."""
    validation: settings.Validation = settings.Validation()
    evaluation: settings.Evaluation

    def preprocessing(self) -> settings.Preprocessing:
        """Returns the part that `preprocessing_fn` needs."""
        return settings.Preprocessing(
            features=self.features, label=self.label, weights=self.weights, span_column=self.data.span_column
        )

    def functions(self) -> list[str]:
        """Returns the dotted paths of the functions that features name: code that decides what a node computes."""
        return [feature.function for feature in self.features.values() if isinstance(feature, settings.Custom)]

    def trainer(self) -> settings.TrainerConfig:
        """Returns the part that `run_fn` needs."""
        return settings.TrainerConfig(
            preprocessing=self.preprocessing(), model=self.model, training=self.training, tuning=self.tuning
        )


def _plain(path: str) -> str:
    if set(path) & set(PATTERN_SIGNS):
        raise ValueError(f"a folder without {' '.join(PATTERN_SIGNS)} in its path, which name patterns of files")
    return path


Folder = Annotated[str, pydantic.Field(min_length=1), pydantic.AfterValidator(_plain)]


class Environment(settings.Section):
    """Where the pipeline runs: folders and the Beam runner. The code is the same everywhere."""

    workspace: Folder = "runs"
    """Artifacts, metadata and logs of the runs."""
    registry: Folder = "runs/registry"
    """The model registry, a folder on any filesystem that TensorFlow opens."""
    beam: Beam = Beam()
    """Which Beam runner does the data work, and how."""
    kubeflow: Kubeflow | None = None
    """The cluster, where the pipeline runs on one."""

    def root(self, name: str) -> Path:
        """Returns the folder of the pipeline `name` in the workspace."""
        return Path(self.workspace) / name


def load_config(path: Path, *, look_for_data: bool = True) -> Config:
    """Reads and checks a problem's configuration, with the schema that it names.

    Args:
        path: the file.
        look_for_data: whether the data have to be there; those of a cluster are not on this machine.

    Raises:
        BadInput: with every problem found, each with file, line and key.
    """
    document = yaml_file.read(path)
    config, problems = shape.validate(Config, document)
    part = config or _sound_part(document.content)
    problems.extend(config_checks.check(part, document.where, look_for_data=look_for_data))
    if config is None or problems:
        raise BadInput(problems)
    return config


def load_environment(path: Path) -> Environment:
    """Reads and checks an environment file.

    Raises:
        BadInput: with every problem found, each with file, line and key.
    """
    environment, problems = shape.validate(Environment, yaml_file.read(path))
    if environment is None:
        raise BadInput(problems)
    return environment


def load(config: Path, environment: Path, *, look_for_data: bool = True) -> tuple[Config, Environment]:
    """Reads both files.

    Args:
        config: the problem's file.
        environment: the environment's file.
        look_for_data: whether the data have to be there.

    Raises:
        BadInput: with every problem of both.
    """
    problems: list[Problem] = []
    loaded: list[Any] = []
    readers: Sequence[Callable[[], Any]] = (
        lambda: load_config(config, look_for_data=look_for_data),
        lambda: load_environment(environment),
    )
    for reader in readers:
        try:
            loaded.append(reader())
        except BadInput as error:
            problems.extend(error.problems)
    if problems:
        raise BadInput(problems)
    return loaded[0], loaded[1]


def _sound_part(content: Mapping[str, Any]) -> Config:
    """Returns what can be used of a configuration with mistakes, so that the other checks still find theirs."""
    kept: dict[str, Any] = {}
    for name, field in Config.model_fields.items():
        value = content.get(field.alias or name)
        if name == "features" and isinstance(value, dict):
            features = {key: shape.sound(settings.Feature, feature) for key, feature in value.items()}
            kept[name] = {key: feature for key, feature in features.items() if feature is not None}
        elif (sound := shape.sound(field.annotation, value)) is not None:
            kept[name] = sound
    # Fields that are missing or wrong are left out; `config_checks` looks before it uses one.
    return Config.model_construct(**{"schema_path": None, "features": {}, **kept})
