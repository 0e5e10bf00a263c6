"""Runs the gate on tables given span by span: real statistics, real Examples with a summary, no ExampleGen."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.types import artifact_utils, standard_artifacts

from components.example_validator import executor
from components.records import encoding
from evergreen import settings
from evergreen.errors import GateRefusal

SPLITS = ("train", "eval", "test")


@dataclasses.dataclass(frozen=True)
class Outcome:
    folder: Path
    refusal: GateRefusal | None

    @property
    def report(self) -> dict[str, Any]:
        return json.loads((self.folder / "report.json").read_text())

    def found(self, severity: str) -> set[tuple[str | None, str, tuple[int, ...]]]:
        return {(f["column"], f["check"], tuple(f["spans"])) for f in self.report[severity]}


class Shop:
    """A folder in which one run of the gate follows the other, each with what the one before remembered."""

    def __init__(self, root: Path, *, label: str) -> None:
        self.root = root
        self.label = label
        self.runs = 0

    def run(
        self,
        spans: Mapping[int, pa.Table],
        *,
        validation: settings.Validation | None = None,
        quarantined: Mapping[int, int] | None = None,
        champion: bool = True,
    ) -> Outcome:
        """Runs the gate on the spans; what passed before is the champion's unless `champion` is false."""
        self.runs += 1
        folder = self.root / f"run-{self.runs}"
        spans = {number: _stored(table) for number, table in spans.items()}
        examples, stats = standard_artifacts.Examples(), standard_artifacts.ExampleStatistics()
        schema, model = standard_artifacts.Schema(), standard_artifacts.Model()
        output = standard_artifacts.ExampleAnomalies()
        for name, artifact in (("examples", examples), ("stats", stats), ("schema", schema), ("out", output)):
            artifact.uri = str(folder / name)
            (folder / name).mkdir(parents=True)
        model.uri = str(self.root / "champion")
        write_examples(folder / "examples", spans, quarantined or {})
        whole = pa.concat_tables(spans.values())
        described = tfdv.generate_statistics_from_dataframe(whole.to_pandas(), n_jobs=1)
        stats.split_names = artifact_utils.encode_split_names(list(SPLITS))
        for split in SPLITS:
            (folder / "stats" / f"Split-{split}").mkdir()
            (folder / "stats" / f"Split-{split}" / "FeatureStats.pb").write_bytes(described.SerializeToString())
        (folder / "schema" / "schema.pbtxt").write_text(str(_schema(whole)))
        refusal = None
        try:
            executor.Executor().Do(
                {"statistics": [stats], "schema": [schema], "examples": [examples]}
                | ({"champion": [model]} if champion else {}),
                {"anomalies": [output]},
                {"validation": (validation or settings.Validation()).model_dump_json(), "label": self.label},
            )
        except GateRefusal as error:
            refusal = error
        outcome = Outcome(folder / "out", refusal)
        if refusal is None and champion:
            self._publish(folder)
        return outcome

    def _publish(self, folder: Path) -> None:
        """Leaves what a published model's bundle holds of the data."""
        bundle = self.root / "champion" / "bundle"
        for name in ("validation", "train_stats"):
            (bundle / name).mkdir(parents=True, exist_ok=True)
        (self.root / "champion" / "champion.json").write_text(json.dumps({"version": self.runs}))
        shutil.copy(folder / "out" / "spans.json", bundle / "validation" / "spans.json")
        shutil.copy(folder / "stats" / "Split-train" / "FeatureStats.pb", bundle / "train_stats" / "FeatureStats.pb")


def write_examples(folder: Path, spans: Mapping[int, pa.Table], quarantined: Mapping[int, int]) -> None:
    """Writes splits and `summary.json` as ExampleGen does: a shard of each split for each span."""
    for shard, table in enumerate(spans.values()):
        serialized = encoding.encode(table).to_pylist()
        parts = np.array_split(
            np.array(serialized, dtype=object), [len(serialized) * 8 // 10, len(serialized) * 9 // 10]
        )
        for split, part in zip(SPLITS, parts, strict=True):
            (folder / f"Split-{split}").mkdir(exist_ok=True)
            name = f"data_tfrecord-{shard:05d}-of-{len(spans):05d}"
            with tf.io.TFRecordWriter(str(folder / f"Split-{split}" / name)) as writer:
                for example in part:
                    writer.write(example)
    described = [
        {
            "span": number,
            "version": 1,
            "shards": [shard],
            "files": [
                {
                    "path": f"{number}.csv",
                    "size": 100 * table.num_rows,
                    "rows": table.num_rows,
                    "quarantined": quarantined.get(number, 0),
                }
            ],
        }
        for shard, (number, table) in enumerate(spans.items())
    ]
    (folder / "summary.json").write_text(json.dumps({"spans": described}))


def _stored(table: pa.Table) -> pa.Table:
    """Gives columns the types that ExampleGen reads."""
    types = {pa.float64(): pa.float32()}
    return pa.table(
        {name: table[name].cast(types.get(table[name].type, table[name].type)) for name in sorted(table.column_names)}
    )


def _schema(table: pa.Table) -> schema_pb2.Schema:
    """Returns a schema that says no more than the types, so that it is not what catches anything."""
    types = {pa.float32(): schema_pb2.FLOAT, pa.int64(): schema_pb2.INT, pa.string(): schema_pb2.BYTES}
    return schema_pb2.Schema(
        feature=[schema_pb2.Feature(name=name, type=types[table[name].type]) for name in table.column_names]
    )
