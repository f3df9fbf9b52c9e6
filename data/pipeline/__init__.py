"""The input pipeline, from the records of shards to batches of uint8 images.

The steps and their modules, in order:

1. `order` plans in which order records are read: in blocks of shards that fit into memory.
2. A `reader` reads a block while the block before it is in use. `train` and `test` shuffle it, draw
   random numbers and compute the crop windows of all its images at once (`augment`, `views`).
3. The reader of `encoded` decodes images, of a JPEG only the part in the window; that of `decoded`
   finds pixels in memory.
4. `pixels` crops, resizes and mirrors, directly into the batch (`buffers`).
5. `train` warps and varies images as the policy says (`augment`, `variations`). Only the policy's
   colour augmentation is left to the device.
"""

from data.pipeline.facts import class_counts, has_labels, shorter_side
from data.pipeline.test import test_batches, views_of
from data.pipeline.train import draw_fn, is_mirrored, train_batches, train_indices

__all__ = [
    "class_counts",
    "draw_fn",
    "has_labels",
    "is_mirrored",
    "shorter_side",
    "test_batches",
    "train_batches",
    "train_indices",
    "views_of",
]
