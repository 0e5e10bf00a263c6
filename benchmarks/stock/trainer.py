"""Training as TFX's templates do it: the stock data accessor, one thread that parses, `fit`, a saved model.

The network has the shape of ours (wide and deep over the same inputs), so that the difference is in the way there.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
import tensorflow_transform as tft
from tfx import v1 as tfx
from tfx_bsl.public import tfxio

from evergreen import settings


def run_fn(fn_args: tfx.components.FnArgs) -> None:
    """Trains, writes TensorBoard logs, and saves with the two signatures of TFX's templates.

    Args:
        fn_args: TFX's arguments; `custom_config` is `settings.TrainerConfig` as JSON.
    """
    config = settings.TrainerConfig.model_validate(fn_args.custom_config)
    graph = tft.TFTransformOutput(fn_args.transform_output)
    label = config.preprocessing.label.column
    batch_size = config.training.batch_size
    train = _dataset(fn_args.train_files, fn_args.data_accessor, graph, label=label, batch_size=batch_size)
    evaluation = _dataset(fn_args.eval_files, fn_args.data_accessor, graph, label=label, batch_size=batch_size)

    keras.utils.set_random_seed(config.training.seed)
    strategy = tf.distribute.MirroredStrategy()
    with strategy.scope():
        model = _model(graph, config, label=label)
    model.fit(
        train,
        epochs=config.training.epochs,
        validation_data=evaluation,
        callbacks=_callbacks(config.training, fn_args.model_run_dir),
        verbose=2,
    )
    _save(model, graph, label=label, path=fn_args.serving_model_dir)


def _dataset(
    pattern: list[str], accessor: tfx.components.DataAccessor, graph: Any, *, label: str, batch_size: int
) -> tf.data.Dataset:
    """Returns batches of (features, label), one pass over the files."""
    options = tfxio.TensorFlowDatasetOptions(batch_size=batch_size, label_key=label, num_epochs=1)
    return accessor.tf_dataset_factory(pattern, options, graph.transformed_metadata.schema)


def _callbacks(training: settings.Training, log_dir: str) -> list[keras.callbacks.Callback]:
    callbacks: list[keras.callbacks.Callback] = [keras.callbacks.TensorBoard(log_dir=log_dir, update_freq="epoch")]
    if training.early_stopping_patience is not None:
        callbacks.append(
            keras.callbacks.EarlyStopping(patience=training.early_stopping_patience, restore_best_weights=True)
        )
    return callbacks


def _model(graph: Any, config: settings.TrainerConfig, *, label: str) -> keras.Model:
    """Builds the wide and deep network for a regression over numbers and one-hot categories."""
    inputs, columns = {}, []
    for feature in graph.transformed_metadata.schema.feature:
        if feature.name == label:
            continue
        categorical = feature.HasField("int_domain")
        inputs[feature.name] = keras.Input((), name=feature.name, dtype="int64" if categorical else "float32")
        if categorical:
            size = int(feature.int_domain.max) + 1
            columns.append(keras.layers.CategoryEncoding(size, output_mode="one_hot")(inputs[feature.name]))
        else:
            columns.append(keras.layers.Reshape((1,))(inputs[feature.name]))
    wide = keras.layers.concatenate(columns)
    deep = wide
    for units in config.model.hidden_units:
        deep = keras.layers.Dense(units, activation="relu")(deep)
    output = keras.layers.Dense(1)(keras.layers.concatenate([wide, deep]))
    model = keras.Model(inputs, output)
    model.compile(optimizer=keras.optimizers.Adam(config.training.learning_rate), loss="mean_squared_error")
    return model


def _save(model: keras.Model, graph: Any, *, label: str, path: str) -> None:
    module = tf.Module()
    module.model = model
    module.transform = graph.transform_features_layer()
    raw_spec = graph.raw_feature_spec()
    serving_spec = {name: spec for name, spec in raw_spec.items() if name != label}
    examples = tf.TensorSpec([None], tf.string, name="examples")

    @tf.function(input_signature=[examples])
    def serve(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        features = module.transform(tf.io.parse_example(serialized, serving_spec))
        return {"outputs": module.model({name: features[name] for name in module.model.input})}

    @tf.function(input_signature=[examples])
    def transform(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        return module.transform(tf.io.parse_example(serialized, raw_spec))

    tf.saved_model.save(module, path, signatures={"serving_default": serve, "transform_features": transform})
