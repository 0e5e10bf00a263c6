"""The same pipeline out of TFX's own components only, as its templates wire them."""
