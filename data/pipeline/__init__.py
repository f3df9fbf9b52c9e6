"""Records become batches.

shards           order    Which records come when, in blocks of shards that fit into memory.
|              reader   A block is read; what can be computed for all its records at once is:
|                       shuffling, random draws, crop boxes, mirroring (`augment`, `views`).
|              encoded  Images are decoded, of JPEGs no more than the crop, ...
|              decoded  ... or only cut out, where their pixels are at hand.
|              pixels   The crops are resized and mirrored into the batch.
v              augment, variations  What a policy changes in whole batches or cut images.
batches          train, test          Labels and weights are added, batches are counted.
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
