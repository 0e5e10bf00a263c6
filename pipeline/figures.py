"""The one telling figure of each node, read out of what the node left.

A figure is for the screen and for `nodes.json`; what decides anything reads the artifacts themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Outputs = Mapping[str, Sequence[Path]]
"""Folders of a node's output artifacts by output key."""


def figure(node: str, outputs: Outputs) -> str:
    """Returns the figure of `node`, or nothing where it has none to tell."""
    reader = _READERS.get(node)
    return reader(outputs) if reader else ""


def read_json(outputs: Outputs, key: str, name: str) -> dict[str, Any]:
    """Returns the JSON object that a node left in the file `name` of its output `key`."""
    document: dict[str, Any] = json.loads((outputs[key][0] / name).read_text(encoding="utf-8"))
    return document


def _examples(outputs: Outputs) -> str:
    summary = read_json(outputs, "examples", "summary.json")
    rows = summary["rows"]
    text = f"{sum(rows.values()):,} rows of {_spans(summary)}: " + ", ".join(f"{n:,} {s}" for s, n in rows.items())
    if not summary["quarantined"]:
        return text
    unlabelled = f", {summary['unlabelled']:,} of them without a label" if summary.get("unlabelled") else ""
    return f"{text}; {summary['quarantined']:,} quarantined{unlabelled}"


def _spans(summary: Mapping[str, Any]) -> str:
    numbers = [span["span"] for span in summary["spans"]]
    return f"span {numbers[0]}" if len(numbers) == 1 else f"spans {numbers[0]}-{numbers[-1]}"


def _statistics(outputs: Outputs) -> str:
    from tensorflow_metadata.proto.v0 import statistics_pb2

    statistics = statistics_pb2.DatasetFeatureStatisticsList()
    statistics.ParseFromString((outputs["statistics"][0] / "Split-train" / "FeatureStats.pb").read_bytes())
    return f"{len(statistics.datasets[0].features)} columns"


def _schema(outputs: Outputs) -> str:
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    text = (outputs["schema"][0] / "schema.pbtxt").read_text(encoding="utf-8")
    return f"{len(text_format.Parse(text, schema_pb2.Schema()).feature)} columns"


def _champion(outputs: Outputs) -> str:
    version = read_json(outputs, "champion", "champion.json")["version"]
    return "none yet" if version is None else f"version {version}"


def _anomalies(outputs: Outputs) -> str:
    report = read_json(outputs, "anomalies", "report.json")
    return f"{len(report['errors'])} errors, {len(report['warnings'])} warnings"


def _transform(outputs: Outputs) -> str:
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    text = (outputs["transform_graph"][0] / "transformed_metadata" / "schema.pbtxt").read_text(encoding="utf-8")
    return f"{len(text_format.Parse(text, schema_pb2.Schema()).feature)} transformed columns, the label among them"


def _training(outputs: Outputs) -> str:
    training = read_json(outputs, "model_run", "training.json")
    loss = min(training["history"]["val_loss"]) if training["history"].get("val_loss") else None
    return f"{training['steps']:,} steps" + (f", eval loss {loss:.4g}" if loss is not None else "")


def _verdict(outputs: Outputs) -> str:
    verdict = read_json(outputs, "evaluation", "verdict.json")
    name, value = next(iter(verdict["metrics"]["candidate"].items()))
    return f"{name} {value:.4g}, {'blessed' if verdict['blessed'] else 'not blessed'}"


def _pushed(outputs: Outputs) -> str:
    version = read_json(outputs, "pushed_model", "pushed.json")["version"]
    return "nothing pushed" if version is None else f"version {version}"


_READERS: Mapping[str, Callable[[Outputs], str]] = {
    "ExampleGen": _examples,
    "StatisticsGen": _statistics,
    "ImportSchemaGen": _schema,
    "SchemaGen": _schema,
    "Champion": _champion,
    "ExampleValidator": _anomalies,
    "Transform": _transform,
    "Trainer": _training,
    "Evaluator": _verdict,
    "Pusher": _pushed,
}
