"""Which devices and workers train together: one strategy for a run, chosen by the configuration and by TF_CONFIG."""

from __future__ import annotations

import json
import os

import tensorflow as tf

from evergreen import settings


def strategy(training: settings.Training) -> tf.distribute.Strategy:
    """Chooses the strategy by `training.distribution`; to be called before TensorFlow does anything else.

    `auto` mirrors over all workers when TF_CONFIG names several, else over all GPUs when there are several.
    `mirrored` mirrors over all GPUs or, without any, over all logical CPUs; `multi_worker` over TF_CONFIG's workers;
    `none` over nothing.

    Returns:
        The strategy; the default one uses the first GPU when there is one and else the CPU. The batch size of the
        configuration stays the global one: each device of each worker gets its share of it, and the learning rate
        stays as it is.
    """
    wanted = training.distribution
    if wanted == "multi_worker" or (wanted == "auto" and _workers() > 1):
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU")
    if wanted == "mirrored":
        return tf.distribute.MirroredStrategy([device.name for device in gpus or tf.config.list_logical_devices("CPU")])
    if wanted == "auto" and len(gpus) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Tells whether this process is the one that writes: the chief, or worker 0 where no task is called so."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    if resolver.task_type == "chief":
        return True
    has_chief = "chief" in resolver.cluster_spec().as_dict()
    return bool(resolver.task_type == "worker" and resolver.task_id == 0 and not has_chief)


def _workers() -> int:
    """Counts the processes that TF_CONFIG makes train together."""
    cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    return len(cluster.get("chief", [])) + len(cluster.get("worker", []))
