"""Small modules that every layer may use: errors, settings, spans, the registry, progress."""
