"""TFX's Tuner, whose results hold every trial."""
