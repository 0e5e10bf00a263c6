"""Transform: TFX's component over large batches, with C++ on both ends."""
