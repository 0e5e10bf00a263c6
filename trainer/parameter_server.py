"""Asynchronous training over parameter servers: a loop over TensorFlow's coordinator, as Keras' `fit` knows none.

    serve(resolver)         # where a parameter server or a worker stays until its job ends it
    fit = Fit(model, plain, strategy, train)
    fit(0, initial_epoch=0, epochs=10, steps_per_epoch=100, validation_data=batches, callbacks=[...])

The chief hands out a few steps at a time to whichever worker is free; variables lie on the parameter servers, and each
worker applies its gradients as soon as it has them. What a worker that dies had taken is given to another one. Every
worker draws permutations of its own: over an epoch a row is seen once on average, and no two runs are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer import data

_STEPS = 16
"""Steps that are handed out at once at the most: what a worker that dies takes with it."""
_ORDERS = 2**20
"""From how many different orders of the rows a worker draws its first one."""


def serve(resolver: tf.distribute.cluster_resolver.ClusterResolver) -> None:
    """Works for the chief, as TF_CONFIG says, until the process is ended from outside."""
    server = tf.distribute.Server(
        resolver.cluster_spec(), job_name=resolver.task_type, task_index=resolver.task_id, protocol="grpc", start=True
    )
    server.join()


class Fit:
    """What `Fitting` trains with in the place of Keras' `fit`."""

    def __init__(self, model: keras.Model, plain: keras.Model, strategy: Any, train: data.Split) -> None:
        """Prepares the workers' input.

        Args:
            model: compiled in the scope of the strategy.
            plain: the same one, compiled outside of it: the chief evaluates with it.
            strategy: a `tf.distribute.ParameterServerStrategy`.
            train: what the workers train on; what is cached in memory is sent to each of them once.
        """
        self._model, self._plain = model, plain
        model.optimizer.build(model.trainable_variables)
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)

        def batches() -> tf.data.Dataset:
            # Traced once and run by every worker: without seeds the operation draws another number in each process,
            # whatever global seed there is.
            number = tf.raw_ops.RandomUniformInt(
                shape=tf.constant([], tf.int32), minval=tf.constant(0, tf.int64), maxval=tf.constant(_ORDERS, tf.int64)
            )
            return train.start(number * train.steps)

        @tf.function
        def some_steps(iterator: Any, steps: tf.Tensor) -> tf.Tensor:
            loss = 0.0
            for _ in tf.range(steps):
                loss += strategy.run(self._step, args=(next(iterator),))
            return loss

        self._iterator = iter(self._coordinator.create_per_worker_dataset(batches))
        self._some_steps = some_steps

    def __call__(
        self,
        step: int,
        *,
        initial_epoch: int,
        epochs: int,
        steps_per_epoch: int,
        steps_per_execution: int,
        validation_data: tf.data.Dataset,
        callbacks: Sequence[keras.callbacks.Callback],
        validation_steps: int | None = None,
    ) -> None:
        """Trains as `keras.Model.fit` does; of the train split only the loss is told.

        Args:
            step: steps that were done before.
            initial_epoch: the number of the first epoch.
            epochs: the number after the last one.
            steps_per_epoch: steps over all workers together.
            steps_per_execution: steps between two calls of the callbacks, at which all workers are waited for.
            validation_data: what the chief evaluates on after each epoch.
            callbacks: Keras'.
            validation_steps: batches of an evaluation at the most.
        """
        told = keras.callbacks.CallbackList(
            list(callbacks), model=self._model, epochs=epochs, steps=steps_per_epoch, verbose=0
        )
        self._model.stop_training = False
        told.on_train_begin()
        for epoch in range(initial_epoch, epochs):
            told.on_epoch_begin(epoch)
            total, done = 0.0, 0
            while done < steps_per_epoch:
                length = min(steps_per_execution, steps_per_epoch - done)
                told.on_train_batch_begin(done)
                total += self._execute(length)
                done += length
                step += length
                # Two workers that count at the same time count once.
                self._model.optimizer.iterations.assign(step)
                told.on_train_batch_end(done - 1, {"loss": total / done})
            told.on_epoch_end(epoch, {"loss": total / done, **self._evaluate(validation_data, validation_steps)})
            if self._model.stop_training:
                break
        told.on_train_end()

    def _execute(self, steps: int) -> float:
        """Has the workers do steps and returns the sum of their losses."""
        losses = [
            self._coordinator.schedule(self._some_steps, args=(self._iterator, tf.constant(part)))
            for part in _parts(steps)
        ]
        self._coordinator.join()
        return float(np.sum(self._coordinator.fetch(losses)))

    def _step(self, batch: data.Batch) -> tf.Tensor:
        inputs, label, weights = keras.utils.unpack_x_y_sample_weight(batch)
        with tf.GradientTape() as tape:
            scores = self._model(inputs, training=True)
            loss = self._model.compute_loss(x=inputs, y=label, y_pred=scores, sample_weight=weights)
            scaled = self._model.optimizer.scale_loss(loss)
        variables = self._model.trainable_variables
        gradients = tape.gradient(scaled, [variable.value for variable in variables])
        self._model.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    def _evaluate(self, batches: tf.data.Dataset, steps: int | None) -> Mapping[str, float]:
        self._plain.set_weights(self._model.get_weights())
        found = self._plain.evaluate(batches, steps=steps, return_dict=True, verbose=0)
        return {f"val_{name}": value for name, value in found.items()}


def _parts(steps: int) -> Iterator[int]:
    for begin in range(0, steps, _STEPS):
        yield min(_STEPS, steps - begin)
