"""Records become batches: order, decoding, augmentation, views."""
