"""The Adam of parameter servers takes Keras' steps, and stays on its feet when workers do not wait for each other."""

from __future__ import annotations

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.optimizers import AtomicAdam


def test_takes_the_steps_of_keras_adam() -> None:
    rng = np.random.default_rng(1)
    begin, gradients = rng.normal(size=(7, 3)), rng.normal(size=(20, 7, 3))
    ends = []
    for adam in (keras.optimizers.Adam(0.01, global_clipnorm=1.0), AtomicAdam(0.01, global_clipnorm=1.0)):
        dense, rows = keras.Variable(begin), keras.Variable(begin)
        adam.build([dense, rows])
        for gradient in gradients.astype("float32"):
            some = tf.IndexedSlices(tf.constant(gradient[:2]), tf.constant([5, 1]), dense_shape=tf.constant([7, 3]))
            adam.apply([tf.constant(gradient), some], [dense, rows])
        ends.append((dense.numpy(), rows.numpy()))
    # 20 steps of 0.01, each within a few roundings of float32.
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-6)
    assert not np.allclose(ends[0], [begin, begin], atol=0.05)


@pytest.mark.slow
def test_rows_that_one_of_two_workers_sees_are_not_thrown_away() -> None:
    """Each step has the gradient of a row of its own, so that a step between another's halves would meet a bare one."""
    rows, steps, rate = 2000, 1000, 1e-3
    table = keras.Variable(np.zeros((rows, 64), np.float32))
    adam = AtomicAdam(rate)
    adam.build([table])

    @tf.function
    def work(begin: tf.Tensor) -> None:
        for row in tf.range(begin, begin + steps):
            adam.apply([tf.scatter_nd([[row]], tf.ones([1, 64]), [rows, 64])], [table])

    workers = [threading.Thread(target=work, args=(tf.constant(begin),)) for begin in (0, steps)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    moved = np.abs(table.numpy())
    assert moved.min() > 0
    # A gradient seen once moves its row by rate x sum((1 - beta1) beta1^k) / sqrt(1 - beta2), a little more as the
    # second moment fades. With Keras' Adam a row ends at 1e3.
    assert moved.max() < 2 * rate / np.sqrt(1 - adam.beta_2)
