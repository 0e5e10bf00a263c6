"""ExampleGen: files of rows to tf.Examples in splits, columnar."""
