"""Test views: of all images of a split, in batches, or of images in memory."""

import functools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from data.images.decode import Stored
from data.pipeline import batches, order, pixels, views
from data.pipeline.batches import Share
from data.pipeline.reader import Reader, no_autograph
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
        replicas: Divisor of the number of batches of all processes together; padding ensures it.
        share: (i, n): of every `replicas` consecutive batches only the i-th of n equal parts.
        cache: One of `decoded.CACHES`: whether all images are first decoded to memory.

    Returns:
        Batches (views uint8 [b, V, S, S, 3], labels int32 [b], -1 for an unlabelled image, sample
        weights float32 [b], 0 for the padding of the last batches, else 1).

    Raises:
        ValueError: If the split does not exist or has no examples.
    """
    shards = dataset.shards(split)
    examples = dataset.num_examples(split)
    if not examples:
        raise ValueError(f"the {split} split of {dataset.folder} is empty, expected examples")
    step_size = replicas * batch_size
    steps = -(-examples // step_size)
    blocks = order.stored_blocks(shards, steps * step_size)
    share = Share(*share, step_size)
    reader = _open_reader(dataset, split, size, crops, cache, threads)

    def plan(block):
        (indices,) = share.select(block, tf.range(block["take"]))
        weight = tf.cast(indices < block["records"], tf.float32)  # the others are padding
        rows = share.read(reader, block, indices % block["records"])
        draws = tf.zeros([tf.size(indices), 1])  # unused; rows of length 0 crash tf.data's rebatch
        return {**reader.plan(rows, draws), "weight": weight}

    def finish(images, columns):
        return images, columns["label"], columns["weight"]

    return batches.build(
        reader,
        batches.block_dataset(blocks, step_size).map(no_autograph(plan)).prefetch(1),
        finish,
        batch_size=batch_size,
        count=steps * (replicas // share.parts),
        threads=threads,
    )


def _open_reader(
    dataset: Dataset, split: str, size: int, crops: int, cache: str, threads: int
) -> Reader:
    def windows_fn(height, width, draws):
        return views.windows(height, width, size, crops)

    def mirror_fn(draws):
        return tf.tile(views.mirrored(crops)[tf.newaxis], [tf.shape(draws)[0], 1])

    return batches.open_reader(
        dataset,
        split,
        cache,
        threads,
        windows_fn=windows_fn,
        mirror_fn=mirror_fn if any(views.mirrored(crops)) else None,
        size=size,
    )


def views_of(stored: Sequence[Stored], *, size: int, crops: int) -> np.ndarray:
    """Returns the test views of images in memory, computed as in `test_batches`.

    Args:
        stored: b images as a conversion would have written them.
        size: Side of the views in pixels, S.
        crops: Number of views, V, a key of `views.VIEWS`.

    Returns:
        uint8 [b, V, S, S, 3].
    """
    windows = np.stack([_windows(each.height, each.width, size, crops) for each in stored])
    mirrored = np.tile(_mirrored(crops), [len(stored), 1])
    return pixels.crop([pixels.from_stored(each) for each in stored], windows, mirrored, size)


@functools.lru_cache(1000)  # the images of a data set usually have few different sizes
def _windows(height: int, width: int, size: int, crops: int) -> np.ndarray:
    return views.windows(height, width, size, crops).numpy()


@functools.cache
def _mirrored(crops: int) -> np.ndarray:
    return views.mirrored(crops).numpy()
