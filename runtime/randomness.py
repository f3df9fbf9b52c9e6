"""Every stream of random numbers that comes from a seed, in one list: no two have the same key.

NumPy generators are keyed by integers:

    (seed, epoch)             data.pipeline.order       order of the shards, keys of their blocks
    (number, *draws)          data.pipeline.variations  one variation of an image, by its own draws
    (seed, label)             data.images.examples      validation images held out of a class
    (seed, *name of a split)  data.conversion.plan      stored order of a split

The seeds of the last two are the conversion's, not the training's. TensorFlow's stateless
operations take a key of two integers, into which the number of a stream is folded. Where weights or
masks are drawn by name, the key is a checksum of seed and name.
"""

import zlib

# Folded into the key of a block; the key itself shuffles the block.
EXAMPLES = 1  # data.pipeline.train: crop, mirroring and variations of each example

# Folded into (seed, 0).
ALTERNATION = 3  # data.pipeline.train: images that are mirrored in the first epoch

# Folded into (seed, step).
COLOUR = 1  # data.pipeline.augment: colour of each image of the batch
MIXING = 2  # engine.mixing: mixup and CutMix of each pair of images


def named_key(seed: int, name: str) -> int:
    """Returns the 32-bit key of a layer's dropout masks or of a kernel's initial values."""
    return zlib.crc32(f"{seed}/{name}".encode())
