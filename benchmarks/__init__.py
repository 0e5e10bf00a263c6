"""Benchmarks against the stock TFX components: same data, same environment, same run."""
