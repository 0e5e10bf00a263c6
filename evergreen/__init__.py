"""Small modules that every layer may use: errors, settings, spans, the registry, progress."""

__version__ = "0.1.0"
