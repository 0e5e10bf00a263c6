"""StatisticsGen: TFX's component with one columnar pass over all splits."""
