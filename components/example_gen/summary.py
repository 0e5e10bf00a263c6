"""What ExampleGen says of its own artifact, in a file beside the splits: for readers that need not find it out again.

schema = columns("/runs/.../examples/7")        # None where another component wrote the examples
"""

from __future__ import annotations

import json
import os

from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.dsl.io import fileio

FILE = "summary.json"
COLUMNS = "columns"
"""Key of the columns' types by name, in the schema's words; every example has all of these features and no other."""


def columns(uri: str) -> schema_pb2.Schema | None:
    """Reads which columns the examples of an artifact have.

    Args:
        uri: of an `Examples` artifact.

    Returns:
        A schema of names and types only; None where nothing is said of them.
    """
    path = os.path.join(uri, FILE)
    if not fileio.exists(path):
        return None
    with fileio.open(path, "r") as file:
        types = json.load(file).get(COLUMNS)
    if not types:
        return None
    features = [schema_pb2.Feature(name=name, type=type_) for name, type_ in sorted(types.items())]
    return schema_pb2.Schema(feature=features)
