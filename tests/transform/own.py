"""Functions that a configuration names by their dotted paths."""

from __future__ import annotations

import tensorflow as tf


def per_room(columns: dict[str, tf.Tensor]) -> tf.Tensor:
    return columns["price"] / tf.cast(columns["rooms"], tf.float32)


def both(columns: dict[str, tf.Tensor]) -> tf.Tensor:
    return tf.stack([columns["price"] * 2.0, -columns["price"]], axis=1)


def initial(columns: dict[str, tf.Tensor]) -> tf.Tensor:
    return tf.cast(tf.io.decode_raw(tf.strings.substr(columns["city"] + "`", 0, 1), tf.uint8)[:, 0], tf.int64) - 97


def text(columns: dict[str, tf.Tensor]) -> tf.Tensor:
    return columns["city"]


number = 7
