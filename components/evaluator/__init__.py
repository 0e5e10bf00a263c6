"""Evaluator: the model gate; TFMA's metrics on the test split, and a verdict in words."""
