"""An Apache Flink on this machine, for the Beam work of the pipeline: `python -m pipeline.flink up`."""
