"""Using a published model."""
