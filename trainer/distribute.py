"""Which devices train together: one strategy for a run, chosen by the configuration."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from evergreen import settings


def strategy(training: settings.Training, *, devices: Sequence[str] | None = None) -> tf.distribute.Strategy:
    """Chooses the strategy.

    Args:
        training: `distribution`: `auto` mirrors over all GPUs when there are several, `mirrored` over whatever there
            is, `none` never.
        devices: Names of the devices to mirror over, for example logical CPUs; all GPUs by default.

    Returns:
        A MirroredStrategy, or the default strategy, which uses the first GPU when there is one and else the CPU.
        The batch size of the configuration stays the global one: each device gets its share of it.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if training.distribution == "none":
        return tf.distribute.get_strategy()
    if training.distribution == "mirrored" or devices is not None or len(gpus) > 1:
        return tf.distribute.MirroredStrategy(devices)
    return tf.distribute.get_strategy()
