"""TFRecord files of tf.Examples as Arrow record batches and back: what the data nodes read and write with."""
