"""Mean and standard deviation of a regression label, learned by tf.Transform and kept in the transformed schema.

They travel as an annotation of type `tensorflow.metadata.v0.NumericStatistics` on the label's feature, so that the
trainer need not read the data twice and the model answers in the label's own units.
"""

from __future__ import annotations

import tensorflow as tf
import tensorflow_transform as tft
from google.protobuf import descriptor_pb2
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2
from tensorflow_transform import schema_inference

_FIELDS = ["mean", "std_dev"]


def annotate(label: tf.Tensor) -> None:
    """Adds the analyzers and the annotation to the graph that is being traced.

    Args:
        label: float32 [batch], one of the outputs of `preprocessing_fn`; NaN is left out.
    """
    mean = tf.cast(tft.mean(label), tf.float64)
    deviation = tf.sqrt(tf.cast(tft.var(label), tf.float64))
    message = statistics_pb2.NumericStatistics.DESCRIPTOR.full_name
    encoded = tf.io.encode_proto(
        sizes=tf.constant([[1, 1]]),
        values=[tf.reshape(mean, [1, 1]), tf.reshape(deviation, [1, 1])],
        field_names=_FIELDS,
        message_type=message,
        descriptor_source=b"bytes://" + _descriptors(),
    )
    schema_inference.annotate(f"type.googleapis.com/{message}", encoded[0], tensor=label)


def read(schema: schema_pb2.Schema, label: str) -> tuple[float, float]:
    """Reads mean and standard deviation of the label, in its own units.

    Raises:
        KeyError: when the schema was not written by `preprocessing_fn` for a regression.
    """
    statistics = statistics_pb2.NumericStatistics()
    for feature in schema.feature:
        if feature.name != label:
            continue
        for extra in feature.annotation.extra_metadata:
            if extra.Unpack(statistics):
                return statistics.mean, statistics.std_dev
    raise KeyError(f"no statistics of the label {label!r} in the transformed schema")


def _descriptors() -> bytes:
    """Describes the two fields that are written; the whole file of the message would need all that it imports."""
    descriptor = statistics_pb2.NumericStatistics.DESCRIPTOR
    whole = descriptor_pb2.DescriptorProto()
    descriptor.CopyToProto(whole)
    fields = [field for field in whole.field if field.name in _FIELDS]
    message = descriptor_pb2.DescriptorProto(name=whole.name, field=fields)
    file = descriptor_pb2.FileDescriptorProto(
        name="label_statistics.proto", package=descriptor.file.package, message_type=[message]
    )
    serialized: bytes = descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()
    return serialized
