"""Test views: of every image of a split, in batches, or of images in memory."""

import functools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from data.images.decode import Stored
from data.pipeline import batches, order, pixels, views
from data.pipeline.batches import Share, as_it_is
from data.pipeline.reader import Reader
from data.shards.datasets import Dataset


def test_batches(
    dataset: Dataset,
    split: str,
    *,
    size: int,
    crops: int,
    batch_size: int,
    threads: int,
    replicas: int = 1,
    share: tuple[int, int] = (0, 1),
    cache: str = "none",
) -> tf.data.Dataset:
    """Batches of test views: every image of a split once, in stored order.

    Args:
        dataset: The data set.
        split: One of its splits.
        size: Side of the views in pixels, S.
        crops: Number of views, V, a key of `views.VIEWS`.
        batch_size: Images per batch, b.
        threads: Size of the pipeline's thread pool.
        replicas: Divisor of the number of batches of all shares together.
        share: (i, n): of `replicas` batches in a row only the i-th of n equal parts.
        cache: One of `decoded.CACHES`: whether all images are decoded to memory first.

    Returns:
        Batches (views uint8 [b, V, S, S, 3], labels int32 [b], -1 for an image without one,
        weights float32 [b], 0 for the padding of the last batches, else 1).

    Raises:
        ValueError: No such split, or no examples in it.
    """
    shards = dataset.shards(split)
    examples = dataset.num_examples(split)
    if not examples:
        raise ValueError(f"the {split} split of {dataset.folder} is empty, expected examples")
    whole = replicas * batch_size
    steps = -(-examples // whole)
    blocks = order.stored_blocks(shards, steps * whole)
    share = Share(*share, whole)
    reader = _open_reader(dataset, split, size, crops, cache, threads)

    def planned(block):
        (places,) = share.of(block, tf.range(block["take"]))
        weight = tf.cast(places < block["records"], tf.float32)
        rows = share.rows(reader, block, places % block["records"])
        draws = tf.zeros([tf.size(places), 1])  # an empty row would crash TensorFlow's rebatch
        return {**reader.plan(rows, draws), "weight": weight}

    def finish(images, example):
        return images, example["label"], example["weight"]

    return batches.make(
        reader,
        batches.as_tensors(blocks, whole).map(as_it_is(planned)).prefetch(1),
        finish,
        batch_size=batch_size,
        count=steps * (replicas // share.parts),
        threads=threads,
    )


def _open_reader(
    dataset: Dataset, split: str, size: int, crops: int, cache: str, threads: int
) -> Reader:
    def windows_of(height, width, draws):
        return views.windows(height, width, size, crops)

    def mirror_of(draws):
        return tf.tile(views.mirrored(crops)[tf.newaxis], [tf.shape(draws)[0], 1])

    return batches.open_reader(
        dataset,
        split,
        cache,
        threads,
        windows_of=windows_of,
        mirror_of=mirror_of if any(views.mirrored(crops)) else None,
        size=size,
    )


def views_of(stored: Sequence[Stored], *, size: int, crops: int) -> np.ndarray:
    """The test views of images in memory, by the same operations as those of records.

    Args:
        stored: b images as a conversion would have written them.
        size: Side of the views in pixels, S.
        crops: Number of views, V, a key of `views.VIEWS`.

    Returns:
        uint8 [b, V, S, S, 3].
    """
    windows = np.stack([_test_windows(each.height, each.width, size, crops) for each in stored])
    mirrored = np.tile(_mirrored(crops), [len(stored), 1])
    return pixels.cut([pixels.of_stored(each) for each in stored], windows, mirrored, size)


@functools.lru_cache(1000)  # most images of a set have one of a few sizes
def _test_windows(height: int, width: int, size: int, crops: int) -> np.ndarray:
    return views.windows(height, width, size, crops).numpy()


@functools.cache
def _mirrored(crops: int) -> np.ndarray:
    return views.mirrored(crops).numpy()
