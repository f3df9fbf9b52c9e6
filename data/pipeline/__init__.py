"""The input pipeline: records of shards become batches of uint8 images.

What happens to a record, in order:

1. `order` plans when it is read: shards come in a random order, in blocks that fit into memory.
2. `reader` reads its block, while the one before is in use. For all records of the block at once
   `train` or `test` shuffles, draws random numbers and computes windows and mirroring (`augment`,
   `views`).
3. `encoded` decodes the image, of a JPEG only the window; `decoded` has the pixels at hand.
4. `pixels` cuts the window out, resizes and mirrors it, straight into the batch (`buffers`).
5. `train` warps and varies the images, as the policy says (`augment`, `variations`); colour is
   left to the device.
"""

from data.pipeline.facts import class_counts, has_labels, shorter_side
from data.pipeline.test import test_batches, views_of
from data.pipeline.train import drawn, is_mirrored, stages, train_batches, train_places

__all__ = [
    "class_counts",
    "drawn",
    "has_labels",
    "is_mirrored",
    "shorter_side",
    "stages",
    "test_batches",
    "train_batches",
    "train_places",
    "views_of",
]
