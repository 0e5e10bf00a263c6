"""The DAG, its configuration, and how it is run: locally and on Kubeflow."""
