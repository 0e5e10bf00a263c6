"""The pipeline's own nodes: one folder a component."""
