"""`run_fn`, what TFX's Trainer calls: transformed examples in, SavedModel, logs and `training.json` out."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
import time
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf
import tensorflow_transform as tft

from evergreen import progress, settings
from trainer import callbacks, data, distribute, export, warm
from trainer import features as features_lib
from trainer import model as model_lib

if TYPE_CHECKING:
    from tfx.components.trainer.fn_args_utils import FnArgs

History = dict[str, list[float]]

MODEL_FILE = "model.keras"
"""The trained Keras model, in the folder of the run."""
REPORT_FILE = "training.json"

_STEPS_PER_EXECUTION = 128
"""Steps between two returns to Python at the most."""
_EVAL_BATCHES = 8
"""How many times the batch of training the one of evaluation is: nothing is kept for a gradient."""


def run_fn(fn_args: FnArgs) -> None:
    """Trains the model and exports it.

    Args:
        fn_args: TFX's arguments; `custom_config` is `settings.TrainerConfig` as JSON. The model goes to
            `serving_model_dir`; TensorBoard logs, checkpoints, `model.keras` and `training.json` to `model_run_dir`.

    Raises:
        BadInput: when a split has no rows with a label, or when training diverged.
    """
    started = time.monotonic()
    config = settings.TrainerConfig.model_validate(fn_args.custom_config)
    transform = tft.TFTransformOutput(fn_args.transform_graph_path)
    features = features_lib.read(transform, config.preprocessing)
    progress.report("reading the examples")
    train, evaluation = _open_splits(fn_args, features, config.training)
    plan = make_plan(config.training, train.steps, fn_args.train_steps)
    strategy = distribute.strategy(config.training)
    with strategy.scope():
        model = compiled(config, features, train, plan)
        meant = warm.meaning(config, transform)
        warm_start = warm.start(model, fn_args.base_model, meant)
    progress.report(f"{train.rows:,} rows, {'warm' if warm_start.started else 'cold'} start")
    fitting = time.monotonic()
    history = _fit(
        model,
        plan,
        train,
        evaluation,
        validation_steps=fn_args.eval_steps,
        callbacks=_callbacks(config.training, plan, fn_args.model_run_dir),
    )
    fitted = time.monotonic()
    plain = _keep(model, fn_args.model_run_dir)
    export.export(fn_args.serving_model_dir, plain, transform, features, config.preprocessing)
    warm.write_meaning(fn_args.serving_model_dir, meant)
    report = {
        "steps": int(model.optimizer.iterations.numpy()),
        "epochs": len(history["loss"]),
        "steps_per_epoch": plan.steps_per_epoch,
        "rows": {"train": train.rows, "eval": evaluation.rows},
        "rows_without_label": {"train": train.skipped, "eval": evaluation.skipped},
        "cached": {"train": train.cached, "eval": evaluation.cached},
        "seconds": {
            "reading": round(fitting - started, 3),
            "fitting": round(fitted - fitting, 3),
            "exporting": round(time.monotonic() - fitted, 3),
        },
        "history": history,
        "best_epoch": 1 + min(range(len(history["val_loss"])), key=history["val_loss"].__getitem__),
        "parameters": plain.count_params(),
        "strategy": type(strategy).__name__,
        "replicas": strategy.num_replicas_in_sync,
        "warm_start": warm_start.as_json(),
        "config": config.model_dump(mode="json"),
    }
    _write(report, fn_args.model_run_dir)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How many steps training takes, in numbers that go into one another."""

    epochs: int
    steps_per_epoch: int
    steps_per_execution: int

    @property
    def steps(self) -> int:
        """Steps when nothing stops it early."""
        return self.epochs * self.steps_per_epoch


def make_plan(training: settings.Training, steps_per_epoch: int, step_limit: int | None) -> Plan:
    """Cuts epochs into executions of equal length; a limit of steps makes fewer and maybe shorter epochs."""
    limits = [limit for limit in (training.max_steps, step_limit) if limit]
    total = min([training.epochs * steps_per_epoch, *limits])
    epochs = math.ceil(total / steps_per_epoch)
    per_epoch = total // epochs
    executions = math.ceil(per_epoch / _STEPS_PER_EXECUTION)
    per_execution = per_epoch // executions
    return Plan(epochs=epochs, steps_per_epoch=per_execution * executions, steps_per_execution=per_execution)


def _open_splits(
    fn_args: FnArgs, features: features_lib.Features, training: settings.Training
) -> tuple[data.Split, data.Split]:
    common: dict[str, Any] = {
        "seed": training.seed,
        "cache_bytes": training.cache_mib << 20,
        "reproducible": training.reproducible,
    }
    train = data.open_split(fn_args.train_files, features, batch_size=training.batch_size, training=True, **common)
    evaluation = data.open_split(
        fn_args.eval_files, features, batch_size=training.batch_size * _EVAL_BATCHES, training=False, **common
    )
    return train, evaluation


def compiled(
    config: settings.TrainerConfig, features: features_lib.Features, train: data.Split, plan: Plan
) -> keras.Model:
    """Builds and compiles the model in the strategy's scope that is open."""
    regression = not features.classes
    model = model_lib.build(
        config.model,
        features,
        label_mean=train.label_mean if regression else 0.0,
        label_deviation=train.label_deviation if regression else 1.0,
        seed=config.training.seed,
    )
    alone = tf.distribute.get_strategy().num_replicas_in_sync == 1
    model.compile(
        optimizer=_optimizer(config.training, plan),
        loss=_loss(features),
        # A regression's error is weighed against the spread of its label: the same learning rate fits any unit.
        loss_weights=1.0 / train.label_deviation**2 if regression else None,
        metrics=_metrics(features),
        # Keras' loop over the steps of an execution holds a condition around each step, which collectives cannot cross.
        steps_per_execution=plan.steps_per_execution if alone else 1,
        jit_compile="auto" if alone else False,
    )
    return model


def _optimizer(training: settings.Training, plan: Plan) -> keras.optimizers.Optimizer:
    rate: Any = training.learning_rate
    if training.learning_rate_schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(training.learning_rate, plan.steps)
    if training.optimizer == "sgd":
        return keras.optimizers.SGD(rate, momentum=0.9)
    return keras.optimizers.Adam(rate)


def _loss(features: features_lib.Features) -> str:
    if not features.classes:
        return "mean_squared_error"
    return "sparse_categorical_crossentropy" if len(features.classes) > 2 else "binary_crossentropy"


def _metrics(features: features_lib.Features) -> list[keras.metrics.Metric]:
    if not features.classes:
        return [keras.metrics.RootMeanSquaredError(name="rmse"), keras.metrics.MeanAbsoluteError(name="mae")]
    if len(features.classes) > 2:
        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    return [keras.metrics.BinaryAccuracy(name="accuracy"), keras.metrics.AUC(name="auc")]


def _fit(model: keras.Model, plan: Plan, train: data.Split, evaluation: data.Split, **fit: Any) -> History:
    """Trains up to the planned epochs and leaves the weights of the best one in the model."""
    history = model.fit(
        train.dataset,
        steps_per_epoch=plan.steps_per_epoch,
        epochs=plan.epochs,
        validation_data=evaluation.dataset,
        verbose=0,
        **fit,
    )
    return {name: [float(value) for value in values] for name, values in history.history.items()}


def _callbacks(training: settings.Training, plan: Plan, folder: str) -> list[keras.callbacks.Callback]:
    return [
        callbacks.StopWhenDiverged(),
        keras.callbacks.EarlyStopping(
            patience=training.early_stopping_patience or plan.epochs, restore_best_weights=True
        ),
        callbacks.Checkpoint(os.path.join(folder, "checkpoints")),
        callbacks.tensorboard(folder),
        callbacks.Progress(),
    ]


def _keep(model: keras.Model, folder: str) -> keras.Model:
    """Writes the trained model into the run's folder and reads it back, free of strategy and optimizer."""
    tf.io.gfile.makedirs(folder)
    with tempfile.TemporaryDirectory() as scratch:
        local = os.path.join(scratch, MODEL_FILE)
        model.save(local, include_optimizer=False)
        callbacks.publish(local, os.path.join(folder, MODEL_FILE))
        return keras.models.load_model(local, compile=False)


def _write(report: dict[str, Any], folder: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        local = os.path.join(scratch, REPORT_FILE)
        with open(local, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
        callbacks.publish(local, os.path.join(folder, REPORT_FILE))
