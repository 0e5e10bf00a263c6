"""Small real SavedModels with the signature `raw`, whose answers can be worked out by hand."""

from __future__ import annotations

from pathlib import Path

SCHEMA = """
feature { name: "beta1" type: FLOAT presence { min_fraction: 1.0 min_count: 1 } }
feature { name: "weekday" type: INT presence { min_fraction: 1.0 } int_domain { min: 0 max: 6 } }
feature { name: "pressure" type: FLOAT presence { min_fraction: 0.5 } float_domain { min: 0 } }
feature { name: "count" type: INT }
feature { name: "machine" type: BYTES presence { min_fraction: 1.0 } string_domain { value: "a" value: "b" } }
feature { name: "note" type: BYTES domain: "notes" distribution_constraints { min_domain_mass: 0.9 } }
feature { name: "hot" type: INT bool_domain { } }
feature { name: "id" type: BYTES }
feature { name: "humidity" type: FLOAT presence { min_fraction: 1.0 } }
string_domain { name: "notes" value: "x" value: "y" }
"""
"""Columns of every kind; `id` is read by no model, `humidity` is the label."""


def save_regression(folder: Path) -> Path:
    """Saves 2·beta1 + 10·weekday + pressure + count + 100 for machine b + 1000 for any note; what is missing adds 0."""
    import tensorflow as tf

    class Regression(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slope = tf.Variable(2.0)

        @tf.function
        def raw(self, beta1, weekday, pressure, count, machine, note, hot):
            tens = 10.0 * tf.cast(weekday, tf.float32)
            counted = tf.where(count == tf.int64.min, tf.zeros_like(count), count)
            answer = self.slope * beta1 + tens + tf.cast(counted, tf.float32)
            answer += tf.where(tf.math.is_nan(pressure), tf.zeros_like(pressure), pressure)
            answer += 100.0 * tf.cast(machine == "b", tf.float32) + 1000.0 * tf.cast(note != "", tf.float32)
            return {"prediction": answer + 10_000.0 * tf.cast(hot == 1, tf.float32)}

    types = {
        "beta1": tf.float32,
        "weekday": tf.int64,
        "pressure": tf.float32,
        "count": tf.int64,
        "machine": tf.string,
        "note": tf.string,
        "hot": tf.int64,
    }
    module = Regression()
    specs = {name: tf.TensorSpec([None], dtype, name=name) for name, dtype in types.items()}
    tf.saved_model.save(module, str(folder), signatures={"raw": module.raw.get_concrete_function(**specs)})
    return folder


def save_classifier(folder: Path) -> Path:
    """Saves a model of two classes, "no" and "yes", with probabilities of three more."""
    import tensorflow as tf

    class Classifier(tf.Module):
        @tf.function
        def raw(self, beta1):
            probability = tf.sigmoid(beta1)
            return {
                "prediction": tf.where(probability > 0.5, "yes", "nö"),
                "probability": probability,
                "probabilities": tf.stack([1.0 - probability, probability], axis=1),
            }

    module = Classifier()
    concrete = module.raw.get_concrete_function(tf.TensorSpec([None], tf.float32, name="beta1"))
    tf.saved_model.save(module, str(folder), signatures={"raw": concrete})
    return folder


LISTS = """
feature { name: "tags" type: BYTES string_domain { value: "a" value: "b" } }
feature { name: "sizes" type: FLOAT presence { min_fraction: 1.0 } float_domain { min: 0 } }
"""
"""Columns of several values a row."""


def save_lists(folder: Path) -> Path:
    """Saves the sum of a row's sizes plus 100 for each of its tags; what is missing adds 0."""
    import tensorflow as tf

    class Lists(tf.Module):
        @tf.function
        def raw(self, tags, sizes):
            sizes = tf.where(tf.math.is_nan(sizes), tf.zeros_like(sizes), sizes)
            counted = tf.reduce_sum(tf.cast(tags != "", tf.float32), axis=1)
            return {"prediction": tf.reduce_sum(sizes, axis=1) + 100.0 * counted}

    module = Lists()
    types = {"tags": tf.string, "sizes": tf.float32}
    specs = {name: tf.TensorSpec([None, None], dtype, name=name) for name, dtype in types.items()}
    tf.saved_model.save(module, str(folder), signatures={"raw": module.raw.get_concrete_function(**specs)})
    return folder
