"""Generators of the built-in data."""
