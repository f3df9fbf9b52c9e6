"""Images on disk to batches of uint8: sources, conversion, records, augmentation, pipeline."""
