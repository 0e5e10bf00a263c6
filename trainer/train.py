"""`run_fn`, what TFX's Trainer calls: transformed examples in, SavedModel, logs and `training.json` out."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf
import tensorflow_transform as tft

from evergreen import progress, settings
from trainer import callbacks, data, distribute, export, hyperparameters, input_share, parameter_server, tflite, warm
from trainer import checkpoints as checkpoints_lib
from trainer import features as features_lib
from trainer import fitting as fitting_lib
from trainer import model as model_lib
from trainer import optimizers as optimizers_lib

if TYPE_CHECKING:
    from tfx.components.trainer.fn_args_utils import FnArgs

Plan = fitting_lib.Plan

MODEL_FILE = "model.keras"
"""The trained Keras model, in the folder of the run."""
REPORT_FILE = "training.json"

_STEPS_PER_EXECUTION = 128
"""Steps between two returns to Python at the most."""
_EVAL_BATCHES = 8
"""How many times the batch of training the one of evaluation is: nothing is kept for a gradient."""


def run_fn(fn_args: FnArgs) -> None:
    """Trains the model and exports it; after a kill, the next call with the same inputs goes on where it was.

    Args:
        fn_args: TFX's arguments; `custom_config` is `settings.TrainerConfig` as JSON, `hyperparameters` what Tuner
            found, if it ran. The model goes to `serving_model_dir`; TensorBoard logs, `model.keras` and `training.json`
            to `model_run_dir`. Of several workers only the chief writes.

    Raises:
        BadInput: when a split has no rows with a label, or when training diverged.
    """
    started = time.monotonic()
    given = settings.TrainerConfig.model_validate(fn_args.custom_config)
    config, tuned = hyperparameters.apply(given, fn_args.hyperparameters)
    strategy = distribute.strategy(config.training)
    transform = tft.TFTransformOutput(fn_args.transform_graph_path)
    features = features_lib.read(transform, config.preprocessing)
    progress.report("reading the examples")
    train, evaluation = open_splits(fn_args.train_files, fn_args.eval_files, features, config.training)
    plan = make_plan(config.training, train.steps, fn_args.train_steps)
    chief = distribute.is_chief(strategy)
    checkpoints = _checkpoints(fn_args, config)
    asynchronous = isinstance(strategy, tf.distribute.ParameterServerStrategy)
    plain = compiled(config, features, train, plan) if asynchronous else None
    with strategy.scope():
        model = compiled(config, features, train, plan)
        distribute.build(model, train.dataset)
        meant = warm.meaning(config, transform, features)
        warm_start = warm.start(model, fn_args.base_model, meant, transform)
        fitting = fitting_lib.Fitting(
            model,
            plan,
            train,
            evaluation,
            patience=config.training.early_stopping_patience,
            keep=config.training.keep,
            checkpoints=checkpoints,
            every_steps=config.training.checkpoint_steps,
            every_minutes=config.training.checkpoint_minutes,
            writes=chief,
            fit=None if plain is None else parameter_server.Fit(model, plain, strategy, train),
        )
        resumed = fitting.resume()
    begun = f"goes on from step {resumed:,}" if resumed else f"{'warm' if warm_start.started else 'cold'} start"
    progress.report(f"{train.rows:,} rows, {begun}")
    fitting_since = time.monotonic()
    share = input_share.InputShare(fn_args.model_run_dir)
    seen = _callbacks(config.training, plan, fn_args.model_run_dir, share) if chief else []
    history = fitting.run([callbacks.StopWhenDiverged(), *seen], validation_steps=fn_args.eval_steps)
    fitted = time.monotonic()
    if not chief:
        return
    kept = _keep(model, fn_args.model_run_dir)
    export.export(fn_args.serving_model_dir, kept, transform, features, config.preprocessing)
    warm.write_meaning(fn_args.serving_model_dir, meant)
    variants = tflite.export(
        fn_args.serving_model_dir,
        kept,
        features,
        kinds=config.training.tflite,
        batches=evaluation.dataset,
        metrics=lambda: _metrics(features),
    )
    report = {
        "steps": int(model.optimizer.iterations.numpy()),
        "resumed_from_step": resumed,
        "epochs": len(history["loss"]),
        "steps_per_epoch": plan.steps_per_epoch,
        "rows": {"train": train.rows, "eval": evaluation.rows},
        "rows_without_label": {"train": train.skipped, "eval": evaluation.skipped},
        "input": {"train": train.tier, "eval": evaluation.tier},
        "seconds": {
            "reading": round(fitting_since - started, 3),
            "fitting": round(fitted - fitting_since, 3),
            "exporting": round(time.monotonic() - fitted, 3),
        },
        "history": history,
        "best_epoch": 1 + min(range(len(history["val_loss"])), key=history["val_loss"].__getitem__),
        "parameters": kept.count_params(),
        "input_share": share.share,
        "strategy": distribute.name(strategy),
        "replicas": strategy.num_replicas_in_sync,
        "warm_start": warm_start.as_json(),
        "hyperparameters": tuned,
        "tflite": variants,
        "config": config.model_dump(mode="json"),
    }
    _write(report, fn_args.model_run_dir)
    checkpoints.remove()


def make_plan(training: settings.Training, steps_per_epoch: int, step_limit: int | None) -> Plan:
    """Cuts epochs into executions of equal length; a limit of steps makes fewer and maybe shorter epochs."""
    limits = [limit for limit in (training.max_steps, step_limit) if limit]
    total = min([training.epochs * steps_per_epoch, *limits])
    epochs = math.ceil(total / steps_per_epoch)
    per_epoch = total // epochs
    longest = min(_STEPS_PER_EXECUTION, training.checkpoint_steps or _STEPS_PER_EXECUTION)
    executions = math.ceil(per_epoch / longest)
    per_execution = per_epoch // executions
    return Plan(epochs=epochs, steps_per_epoch=per_execution * executions, steps_per_execution=per_execution)


def _checkpoints(fn_args: FnArgs, config: settings.TrainerConfig) -> checkpoints_lib.Checkpoints:
    """Names the folder of this training's checkpoints by all that decides what it becomes."""
    folder = config.checkpoint_folder or os.path.join(fn_args.model_run_dir, "checkpoints")
    files = [file for pattern in [*fn_args.train_files, *fn_args.eval_files] for file in tf.io.gfile.glob(pattern)]
    files += tf.io.gfile.glob(os.path.join(fn_args.transform_graph_path, "transform_fn", "assets", "*"))
    if fn_args.base_model:
        files += tf.io.gfile.glob(os.path.join(fn_args.base_model, "variables", "*"))
    said = config.model_copy(update={"checkpoint_folder": None}).model_dump_json()
    key = checkpoints_lib.fingerprint(
        [said, str(fn_args.train_steps), str(fn_args.eval_steps), tf.__version__, keras.__version__],
        files=sorted(files),
    )
    return checkpoints_lib.Checkpoints(os.path.join(folder, key[:32]), keep=config.training.checkpoints_kept)


def open_splits(
    train_files: Sequence[str], eval_files: Sequence[str], features: features_lib.Features, training: settings.Training
) -> tuple[data.Split, data.Split]:
    """Opens the split to train on and the one to evaluate on."""
    common: dict[str, Any] = {
        "seed": training.seed,
        "cache_bytes": training.cache_mib << 20,
        # The workers of parameter servers are sent what is cached; a disk is one machine's.
        "disk_bytes": 0 if training.distribution == "parameter_server" else int(training.disk_cache_gib * 2**30),
        "reproducible": training.reproducible,
        "class_weights": training.class_weights,
    }
    train = data.open_split(train_files, features, batch_size=training.batch_size, training=True, **common)
    evaluation = data.open_split(
        eval_files, features, batch_size=training.batch_size * _EVAL_BATCHES, training=False, **common
    )
    return train, evaluation


def compiled(
    config: settings.TrainerConfig, features: features_lib.Features, train: data.Split, plan: Plan
) -> keras.Model:
    """Builds and compiles the model in the strategy's scope that is open."""
    regression = not features.classes
    with _precision(config.training.precision):
        model = model_lib.build(
            config.model,
            features,
            label_mean=train.label_mean if regression else 0.0,
            label_deviation=train.label_deviation if regression else 1.0,
            seed=config.training.seed,
        )
    alone = tf.distribute.get_strategy().num_replicas_in_sync == 1
    model.compile(
        optimizer=optimizers_lib.build(config.training, steps=plan.steps),
        loss=_loss(features),
        # A regression's error is weighed against the spread of its label: the same learning rate fits any unit.
        loss_weights=1.0 / train.label_deviation**2 if regression else None,
        metrics=_metrics(features),
        # Keras' loop over the steps of an execution holds a condition around each step, which collectives cannot cross.
        steps_per_execution=plan.steps_per_execution if alone else 1,
        jit_compile={"auto": "auto", "on": True, "off": False}[config.training.xla] if alone else False,
    )
    return model


@contextlib.contextmanager
def _precision(name: str) -> Iterator[None]:
    """Builds layers that compute in the named precision; what is built later does not."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if name == "auto" else name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


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


def _callbacks(
    training: settings.Training, plan: Plan, folder: str, share: input_share.InputShare
) -> list[keras.callbacks.Callback]:
    """What the chief watches the training with."""
    logs = callbacks.tensorboard(folder, histograms=training.weight_histograms)
    return [callbacks.Progress(plan.epochs), logs, *([share] if training.profile_input else [])]


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
