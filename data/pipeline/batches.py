"""The parts that training and test batches share: planned blocks, the reader, the thread pool.

A block of shards is read, shuffled and planned while the block before it is in use; everything that
can be computed for many examples at once is computed then. Images are decoded (`encoded`) or only
cropped (`decoded`) batch by batch, on the pipeline's private thread pool.
"""

import contextlib
import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import tensorflow as tf

from data.pipeline import decoded, encoded, order
from data.pipeline.reader import Columns, Reader, no_autograph
from data.shards.datasets import Dataset


class Share(NamedTuple):
    """The examples of every step that this process reads: one of several equal parts.

    Attributes:
        index: Index of the part, from 0.
        parts: Number of parts.
        batch_size: Examples per step, over all parts.
    """

    index: int
    parts: int
    batch_size: int

    def select(self, block: Columns, *columns: tf.Tensor) -> Sequence[tf.Tensor]:
        """Selects the rows of this part.

        Args:
            block: An element of `block_dataset`.
            *columns: [take, ...], a row for each example that is used of the block.
        """
        if self.parts == 1:
            return columns
        places_in_batch = (block["first"] + tf.range(block["take"])) % self.batch_size
        mine = places_in_batch // (self.batch_size // self.parts) == self.index
        return [tf.boolean_mask(column, mine) for column in columns]

    def read(self, reader: Reader, block: Columns, indices: tf.Tensor) -> tf.Tensor:
        """Reads the records at indices int32 [n]: the whole block at once if there is one part."""
        if self.parts == 1:
            return tf.gather(reader.read(block), indices)
        return reader.read_at(block, indices)


def block_dataset(blocks: Sequence[order.Block], batch_size: int) -> tf.data.Dataset:
    """Converts blocks to a data set of their fields as int32 tensors; `shards` is padded with -1.

    The additional field "first" is the position of the block's first used example in its batch.
    """
    longest = max((len(block.shards) for block in blocks), default=0)
    shards = np.full([len(blocks), longest], -1, np.int32)
    for row, block in zip(shards, blocks, strict=True):
        row[: len(block.shards)] = block.shards
    columns = {
        name: np.array([getattr(block, name) for block in blocks], np.int32)
        for name in ("records", "skip", "take", "epoch")
    }
    takes = np.array([block.take for block in blocks], np.int64)
    columns["first"] = ((np.cumsum(takes) - takes) % batch_size).astype(np.int32)
    seeds = np.array([block.seed for block in blocks], np.int32).reshape([-1, 2])
    return tf.data.Dataset.from_tensor_slices({**columns, "shards": shards, "seed": seeds})


def open_reader(dataset: Dataset, split: str, cache: str, threads: int, **options) -> Reader:
    """Opens a split with the reader for its encoding, or decodes it into memory first.

    Args:
        dataset: The data set.
        split: One of its splits.
        cache: One of `decoded.CACHES`.
        threads: Number of threads that decode images into memory.
        **options: The other arguments of `Reader`.
    """
    shards, encoding = dataset.shards(split), dataset.encodings[split]
    if encoding == "raw":
        return decoded.Decoded(dataset, split, open_shard=decoded.Mapped(), **options)
    if decoded.chosen_cache(dataset, cache) == "memory":
        images = decoded.in_memory(shards, encoding, threads)
        return decoded.Decoded(dataset, split, open_shard=images.__getitem__, **options)
    return encoded.READERS[encoding](dataset, split, **options)


def build(
    reader: Reader,
    planned: tf.data.Dataset,
    finish: Callable,
    *,
    batch_size: int,
    count: int,
    threads: int,
    finish_calls: int | None = None,
) -> tf.data.Dataset:
    """Builds the pipeline from planned examples to finished batches, of which two are prefetched.

    Args:
        reader: Reader of the split.
        planned: Elements of `reader.plan`.
        finish: Function `(crops, columns) -> batch` of the elements of `reader.crop`.
        batch_size: Examples per batch.
        count: Number of batches.
        threads: Size of the pipeline's thread pool.
        finish_calls: Parallel calls of `finish`; None for one at a time.
    """
    _prepare_process()
    batches = reader.crop(planned, batch_size, threads)
    batches = batches.map(no_autograph(finish), num_parallel_calls=finish_calls)
    batches = batches.apply(tf.data.experimental.assert_cardinality(count))
    return batches.prefetch(2).with_options(options(threads))


def options(threads: int) -> tf.data.Options:
    """Returns the options of a deterministic pipeline with a private thread pool."""
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    return options


@functools.cache
def _prepare_process() -> None:
    """Turns off OpenCV's own threads and lets glibc keep freed memory for the next batches.

    By default glibc would return it to the system, and every new batch (19 MB for 128 images of 224
    pixels) would cause page faults.
    """
    cv2.setNumThreads(0)
    m_trim_threshold, m_mmap_threshold, largest_legal = -1, -3, 32 * 2**20
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(m_mmap_threshold, largest_legal)
        mallopt(m_trim_threshold, 2**30)
