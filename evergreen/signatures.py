"""How raw columns are named as inputs of the SavedModel's `raw` signature: as they are, where TensorFlow lets them.

TensorFlow takes letters, digits and underscores in the name of an input. Every other character of a column's name
becomes an underscore; columns that would then have the same name are numbered. The names travel with the SavedModel, so
that rows keep the names of the table where the model is asked.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Mapping

_FOLDER, _FILE = "assets.extra", "raw_inputs.json"


def input_names(columns: Iterable[str]) -> dict[str, str]:
    """Names the input of each column.

    Args:
        columns: The raw columns that the model reads, all of them: the names depend on one another.

    Returns:
        The input's name by column; the column's own name unless TensorFlow would not take it.
    """
    ordered = sorted(columns)
    names = {column: column for column in ordered if _legal(column) == column}
    taken = set(names.values())
    for column in ordered:
        if column in names:
            continue
        base, number = _legal(column), 2
        name = base
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        names[column] = name
        taken.add(name)
    return names


def _legal(column: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_]", "_", column)
    return name if re.match("[A-Za-z]", name) else f"column_{name.lstrip('_')}"


def write_inputs(saved_model: str, names: Mapping[str, str]) -> None:
    """Writes the input's name by column into a SavedModel."""
    import tensorflow as tf

    tf.io.gfile.makedirs(posixpath.join(saved_model, _FOLDER))
    with tf.io.gfile.GFile(posixpath.join(saved_model, _FOLDER, _FILE), "w") as file:
        file.write(json.dumps(names, sort_keys=True))


def read_inputs(saved_model: str) -> dict[str, str] | None:
    """Reads the input's name by column of a SavedModel; None where it was exported without them."""
    import tensorflow as tf

    path = posixpath.join(saved_model, _FOLDER, _FILE)
    if not tf.io.gfile.exists(path):
        return None
    with tf.io.gfile.GFile(path) as file:
        names: dict[str, str] = json.loads(file.read())
    return names
