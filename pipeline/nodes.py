"""The names of the DAG's nodes in the order in which they run, known without importing TFX."""

from __future__ import annotations

from collections.abc import Sequence


def names(*, curated_schema: bool, tuner: bool = False) -> Sequence[str]:
    """Returns the node ids of the pipeline.

    Args:
        curated_schema: whether the configuration names a schema, which is then imported rather than inferred.
        tuner: whether the configuration has a search for hyperparameters.
    """
    return (
        "ExampleGen",
        "StatisticsGen",
        "ImportSchemaGen" if curated_schema else "SchemaGen",
        "Champion",
        "ExampleValidator",
        "Transform",
        *(["Tuner"] if tuner else []),
        "Trainer",
        "Evaluator",
        "Pusher",
    )
