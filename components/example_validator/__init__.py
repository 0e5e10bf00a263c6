"""ExampleValidator: the data gate; it stops the run where the data are not what the schema and the champion knew."""
