"""The optimizer of a training and its learning rate over the steps."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from evergreen import settings


def build(training: settings.Training, *, steps: int) -> keras.optimizers.Optimizer:
    """Returns the optimizer that the configuration names, for a training of so many steps."""
    clip = {"global_clipnorm": training.gradient_clip}
    if training.optimizer == "sgd":
        return keras.optimizers.SGD(rate(training, steps=steps), momentum=0.9, **clip)
    adam = AtomicAdam if training.distribution == "parameter_server" else keras.optimizers.Adam
    return adam(rate(training, steps=steps), **clip)


def rate(training: settings.Training, *, steps: int) -> Any:
    """Returns the learning rate over the steps: up from zero over the warm-up, then along the schedule."""
    peak, warmup = training.learning_rate, round(training.warmup_share * steps)
    after: Any = peak
    if training.learning_rate_schedule == "cosine":
        after = keras.optimizers.schedules.CosineDecay(peak, max(1, steps - warmup))
    elif training.learning_rate_schedule == "exponential":
        after = keras.optimizers.schedules.ExponentialDecay(peak, max(1, steps - warmup), 0.01)
    return WarmUp(peak, warmup, after) if warmup else after


@keras.saving.register_keras_serializable(package="evergreen")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises from zero in a line and then follows another schedule."""

    def __init__(self, peak: float, steps: int, after: Any) -> None:
        """Takes the highest rate, the steps to it, and what follows: a schedule that begins there, or a rate."""
        super().__init__()
        self.peak, self.steps, self.after = peak, steps, after

    def __call__(self, step: Any) -> Any:
        """Returns the rate of a step."""
        step = keras.ops.cast(step, "float32")
        after = self.after(keras.ops.maximum(step - self.steps, 0.0)) if callable(self.after) else self.after
        return keras.ops.where(step < self.steps, self.peak * step / self.steps, after)

    def get_config(self) -> dict[str, Any]:
        """Returns what the schedule is rebuilt from."""
        after = keras.optimizers.schedules.serialize(self.after) if callable(self.after) else self.after
        return {"peak": self.peak, "steps": self.steps, "after": after}


class AtomicAdam(keras.optimizers.Adam):
    """Adam for workers that do not wait for each other: a step of a variable is one locked operation of TensorFlow.

    Keras adds to the first moment, to the second one and to the variable in three operations. Between the first two of
    one worker another may take its own step: the first moment of a row that only one of them has seen is then divided
    by the root of a second moment that is still zero, which throws the row a million steps away. The formula is the
    same (Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, section 2).
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Moves a variable along its gradient, of the variable's shape and dtype or `tf.IndexedSlices` of it."""
        place, dtype = self._get_variable_index(variable), variable.dtype
        step = tf.cast(self.iterations + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(self._momentums[place]),
            v=_handle(self._velocities[place]),
            beta1_power=tf.pow(tf.cast(self.beta_1, dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, dtype), step),
            lr=tf.cast(learning_rate, dtype),
            beta1=tf.cast(self.beta_1, dtype),
            beta2=tf.cast(self.beta_2, dtype),
            epsilon=tf.cast(self.epsilon, dtype),
            grad=tf.cast(tf.convert_to_tensor(gradient), dtype),
            use_locking=True,
        )


def _handle(variable: Any) -> tf.Tensor:
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle
