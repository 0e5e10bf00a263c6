"""Preprocessing: the one preprocessing_fn."""
