"""Sections about the model and its training."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from evergreen.settings.base import Section, YamlSwitch


class Model(Section):
    """The shape of the Keras model."""

    kind: Literal["linear", "deep", "wide_deep", "cross"] = "wide_deep"
    """A linear model, a deep network, both added up, or a cross network (DCN) over a deep one."""
    hidden_units: list[Annotated[int, pydantic.Field(ge=1)]] = [64, 32]
    """Units of each hidden layer of the deep part."""
    dropout: Annotated[float, pydantic.Field(ge=0.0, lt=1.0)] = 0.0
    """Share of hidden units that are left out at random in training."""
    l2: Annotated[float, pydantic.Field(ge=0.0)] = 0.0
    """Penalty on the squared weights of all dense layers and embeddings."""
    cross_layers: Annotated[int, pydantic.Field(ge=1)] = 2
    """Layers of the cross network; n of them express products of n + 1 inputs."""
    cross_rank: Annotated[int, pydantic.Field(ge=1)] | None = 64
    """Rank of a cross layer's matrix; `null` for a full one, whose size is the square of the inputs' width."""
    one_hot_up_to: Annotated[int, pydantic.Field(ge=1)] = 512
    """Categories with at most this many values are one-hot, larger ones are embedded."""
    function: Annotated[str, pydantic.Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")] | None = None
    """Dotted path of a function of your own that builds the Keras model in the place of `kind`."""


ClassWeights = Literal["balanced"] | dict[str, Annotated[float, pydantic.Field(gt=0.0)]] | None


class Training(Section):
    """How the model is fitted."""

    epochs: Annotated[int, pydantic.Field(ge=1)] = 10
    """How often training sees the whole train split at the most."""
    max_steps: Annotated[int, pydantic.Field(ge=1)] | None = None
    """Stops after this many steps, whatever the epochs say."""
    batch_size: Annotated[int, pydantic.Field(ge=1)] = 1024
    """Rows a step over all devices and workers (the global batch)."""
    learning_rate: Annotated[float, pydantic.Field(gt=0.0)] = 3e-3
    """The optimiser's learning rate, for the global batch: more devices do not change it."""
    learning_rate_schedule: Literal["cosine", "exponential", "constant"] = "cosine"
    """`cosine` lets the learning rate fall to zero over all steps, which ends nearer to the optimum; `exponential` to
    a hundredth."""
    warmup_share: Annotated[float, pydantic.Field(ge=0.0, lt=1.0)] = 0.0
    """Share of all steps over which the learning rate rises from zero first."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """The optimiser."""
    gradient_clip: Annotated[float, pydantic.Field(gt=0.0)] | None = None
    """Longest gradient (over all weights together) that a step follows as it is; a longer one is shortened to it."""
    class_weights: ClassWeights = None
    """How much a row of each class counts in the loss: `balanced` makes all classes count the same."""
    early_stopping_patience: Annotated[int, pydantic.Field(ge=1)] | None = 3
    """Epochs without a better loss on the eval split before training stops; `null` never stops early."""
    keep: Literal["best", "last"] = "best"
    """The weights of the epoch with the best loss on the eval split, or of the last one: a linear model with a penalty
    has one optimum, and a small eval split cannot tell a better place to stop."""
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**31)] = 42
    """Seed of everything random in training."""
    cache_mib: Annotated[int, pydantic.Field(ge=0)] = 1024
    """Memory for the decoded columns of a split; those of a larger one are kept on disk."""
    disk_cache_gib: Annotated[float, pydantic.Field(ge=0.0)] = 16.0
    """Disk for the decoded columns of a split, in the folder for temporary files (TMPDIR); a larger split is streamed
    from its files in every epoch."""
    reproducible: bool = True
    """Whether a streamed split is read in the same order in every run; without it the reading is faster."""
    distribution: Literal["auto", "none", "mirrored", "multi_worker", "parameter_server"] = "auto"
    """`auto` mirrors over all GPUs when there are several, and over all workers when TF_CONFIG names them."""
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    """What is computed with; weights and outputs are float32 always. `auto` is float32: the networks of tables are
    too small to gain from less."""
    xla: Annotated[Literal["auto", "on", "off"], YamlSwitch] = "auto"
    """Whether XLA compiles the step; `auto` does on one GPU and not on CPUs, where it was measured to be slower."""
    checkpoint_steps: Annotated[int, pydantic.Field(ge=1)] | None = None
    """Steps between two checkpoints; `null` leaves it to the minutes."""
    checkpoint_minutes: Annotated[float, pydantic.Field(gt=0.0)] | None = 1.0
    """Minutes between two checkpoints; `null` leaves it to the steps. A killed training goes on from the last one."""
    checkpoints_kept: Annotated[int, pydantic.Field(ge=1)] = 2
    """How many of the latest checkpoints stay on disk until training is through."""
    weight_histograms: bool = False
    """Whether TensorBoard gets the weights' histograms of every epoch."""
    profile_input: bool = False
    """Whether the share of the steps that waits for input is measured in the second epoch (half a second of profiler),
    for TensorBoard and `training.json`."""
    tflite: list[Literal["float16", "int8", "int8_calibrated"]] = []
    """Quantised variants of the network for TensorFlow Lite, written and measured beside the SavedModel: `int8` has
    weights of one byte, `int8_calibrated` computes in whole numbers too, for devices that have nothing else."""
