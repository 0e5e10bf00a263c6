"""Which devices and workers train together: one strategy for a run, chosen by the configuration and by TF_CONFIG."""

from __future__ import annotations

import json
import os
from typing import Any

import tensorflow as tf

from evergreen import errors, settings
from trainer import parameter_server


def strategy(training: settings.Training) -> tf.distribute.Strategy:
    """Chooses the strategy by `training.distribution`; to be called before TensorFlow does anything else.

    `auto` mirrors over all workers when TF_CONFIG names several, else over all GPUs when there are several, and takes
    the GPU where there is one. `mirrored` mirrors over all GPUs or, without any, over all logical CPUs; `multi_worker`
    over TF_CONFIG's workers; `none` over nothing. `parameter_server` trains asynchronously over TF_CONFIG's workers; in
    the process of a worker or a parameter server it serves, and never returns.

    Returns:
        The strategy; all but the default one, which is for the CPU, prefetch batches to their devices. The batch size
        of the configuration stays the global one: each device of each worker gets its share of it, and the learning
        rate stays as it is.

    Raises:
        BadInput: for parameter servers without a TF_CONFIG that names them.
    """
    wanted = training.distribution
    if wanted == "parameter_server":
        return _parameter_servers()
    if wanted == "multi_worker" or (wanted == "auto" and _workers() > 1):
        return _Workers()
    gpus = tf.config.list_logical_devices("GPU")
    if wanted == "mirrored":
        return tf.distribute.MirroredStrategy([device.name for device in gpus or tf.config.list_logical_devices("CPU")])
    if wanted == "auto" and len(gpus) > 1:
        return tf.distribute.MirroredStrategy()
    if wanted == "auto" and gpus:
        # Unlike the default one it brings batches onto the device while those before are worked on.
        return tf.distribute.OneDeviceStrategy(gpus[0].name)
    return tf.distribute.get_strategy()


def _parameter_servers() -> tf.distribute.Strategy:
    cluster = _cluster()
    if lacking := {"chief", "ps", "worker"} - cluster.keys():
        raise errors.BadInput(
            [
                errors.Problem(
                    where="training.distribution, parameter_server",
                    found=f"a TF_CONFIG without {', '.join(sorted(lacking))}" if cluster else "no TF_CONFIG",
                    expected="the addresses of a chief, of workers and of parameter servers in TF_CONFIG",
                    action="Run it as a TFJob with these replicas, or take auto.",
                )
            ]
        )
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if resolver.task_type != "chief":
        parameter_server.serve(resolver)
    return tf.distribute.ParameterServerStrategy(resolver)


class _Workers(tf.distribute.MultiWorkerMirroredStrategy):
    """MultiWorkerMirroredStrategy for Keras 3, which asks for the mean of scalars over an axis that they lack."""

    def reduce(self, reduce_op: Any, value: Any, axis: int | None = None) -> Any:
        """Reduces over the replicas; over an axis of the values only where they have one."""
        values = self.experimental_local_results(value)
        scalars = all(each.shape.rank == 0 for each in values)
        return super().reduce(reduce_op, value, axis=None if scalars else axis)


def name(strategy: tf.distribute.Strategy) -> str:
    """Returns TensorFlow's name of a strategy."""
    workers = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    return "MultiWorkerMirroredStrategy" if workers else type(strategy).__name__.removesuffix("V2")


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Tells whether this process is the one that writes: the chief, or worker 0 where no task is called so."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    if resolver.task_type == "chief":
        return True
    has_chief = "chief" in resolver.cluster_spec().as_dict()
    return bool(resolver.task_type == "worker" and resolver.task_id == 0 and not has_chief)


def build(model: Any, dataset: tf.data.Dataset) -> None:
    """Makes the variables of a model that several workers train; to be called in the strategy's scope.

    Keras would average a first batch over the workers to learn its shapes, which fails on columns by name.

    Args:
        model: compiled.
        dataset: batches as it will be trained on; one is read.
    """
    if not isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy):
        return
    model._symbolic_build(data_batch=next(iter(dataset)))  # noqa: SLF001  what Keras does with the average
    model._maybe_symbolic_build = lambda **_: None  # noqa: SLF001  there is nothing left to build


def _workers() -> int:
    """Counts the processes that TF_CONFIG makes train together."""
    return sum(len(_cluster().get(task, [])) for task in ("chief", "worker"))


def _cluster() -> dict[str, list[str]]:
    """Returns the addresses of each kind of task in TF_CONFIG."""
    cluster: dict[str, list[str]] = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    return cluster
