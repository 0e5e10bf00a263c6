"""The same pipeline on open-source Kubeflow Pipelines: compiled, checked, run and scheduled."""
