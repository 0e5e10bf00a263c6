"""Training: input, model, distribution and export."""
