"""Which devices train together: one strategy for a run, chosen by the configuration."""

from __future__ import annotations

import tensorflow as tf

from evergreen import settings


def strategy(training: settings.Training) -> tf.distribute.Strategy:
    """Chooses the strategy by `training.distribution`.

    `auto` mirrors over all GPUs when there are several, `mirrored` over all GPUs or, without any, over all logical
    CPUs, and `none` over nothing.

    Returns:
        A MirroredStrategy, or the default strategy, which uses the first GPU when there is one and else the CPU.
        The batch size of the configuration stays the global one: each device gets its share of it.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if training.distribution == "mirrored":
        return tf.distribute.MirroredStrategy([device.name for device in gpus or tf.config.list_logical_devices("CPU")])
    if training.distribution == "auto" and len(gpus) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()
