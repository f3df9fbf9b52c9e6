"""Properties of a split that are read from its records: labels and image sizes."""

from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from data.pipeline import pixels
from data.shards import records
from data.shards.datasets import UNKNOWN, Dataset, Shard

_PARSED = 256  # records parsed at a time


def has_labels(dataset: Dataset, split: str) -> bool:
    """Whether the images of a split have labels: all of them or none, so the first one decides."""
    first = tf.data.TFRecordDataset([shard.path for shard in dataset.shards(split)]).take(1)
    return all(int(records.parse(serialized)["label"]) >= 0 for serialized in first)


def class_counts(dataset: Dataset, split: str) -> np.ndarray:
    """Number of examples of each class in a split, int64 [K]; reads all its records."""
    counts = np.zeros(dataset.num_classes, np.int64)
    paths = [shard.path for shard in dataset.shards(split)]
    for serialized in tf.data.TFRecordDataset(paths).batch(_PARSED):
        labels = records.parse(serialized)["label"].numpy() - dataset.label_offset
        counts += np.bincount(labels[labels >= 0], minlength=len(counts))
    return counts


def shorter_side(dataset: Dataset, sample: int = 100) -> int:
    """Median of the shorter sides of the first `sample` stored training images, in pixels."""
    return int(np.median([min(size) for size in stored_sizes(dataset, "train", sample)]))


def stored_sizes(dataset: Dataset, split: str, count: int) -> list[tuple[int, int]]:
    """Returns height and width of the first images of a split; decodes only if records lack it.

    Args:
        dataset: The data set.
        split: One of its splits.
        count: Maximum number of images.
    """
    return sizes(dataset.shards(split), dataset.encodings[split], count)


def sizes(shards: Iterable[Shard], encoding: str, count: int) -> list[tuple[int, int]]:
    """Like `stored_sizes`, for shards with the given encoding, one of `datasets.ENCODINGS`."""
    first = tf.data.TFRecordDataset([shard.path for shard in shards]).take(count)
    if encoding == UNKNOWN:
        return [pixels.from_record(records.parse(each)).shape[:2] for each in first]
    parsed = [records.parse(serialized) for serialized in first.batch(_PARSED)]
    heights, widths = (
        [side for each in parsed for side in each[name].numpy().tolist()]
        for name in ("height", "width")
    )
    return list(zip(heights, widths, strict=True))
