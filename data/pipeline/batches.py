"""What training and test batches share: plans as tensors, readers, threads.

One block of shards is read, shuffled and planned while the one before it is in use: whatever can
be computed for many examples at once is computed there. What is left for each image is decoding
(`encoded`), or only cropping where its pixels are at hand (`decoded`), on a thread pool of the
pipeline's own.
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
from data.pipeline.reader import Columns, Reader
from data.shards.datasets import Dataset

# Nothing mapped here has control flow to convert, and converting leaves files behind.
as_it_is = tf.autograph.experimental.do_not_convert


class Share(NamedTuple):
    """Which examples of every step this process reads: one of several equal parts of the batch.

    Attributes:
        index: Number of the part, from 0.
        parts: Number of parts.
        batch_size: Examples per step, over all parts.
    """

    index: int
    parts: int
    batch_size: int

    def of(self, block: Columns, *columns: tf.Tensor) -> Sequence[tf.Tensor]:
        """The rows of this part.

        Args:
            block: A row of `as_tensors`.
            *columns: [take, ...], a row for every example that is taken of the block.
        """
        if self.parts == 1:
            return columns
        numbers = (block["first"] + tf.range(block["take"])) % self.batch_size
        mine = numbers // (self.batch_size // self.parts) == self.index
        return [tf.boolean_mask(column, mine) for column in columns]

    def rows(self, reader: Reader, block: Columns, places: tf.Tensor) -> tf.Tensor:
        """The records of a block at some places, int32 [n]; few of them are read one by one."""
        if self.parts == 1:
            return tf.gather(reader.read(block), places)
        return reader.pick(block, places)


def as_tensors(blocks: Sequence[order.Block], batch_size: int) -> tf.data.Dataset:
    """A plan as rows of int32 tensors; lists of shards are padded with -1.

    A column "first" is added: the place in its batch of a block's first example.
    """
    longest = max((len(block.shards) for block in blocks), default=0)
    shards = np.full([len(blocks), longest], -1, np.int32)
    for row, block in zip(shards, blocks, strict=True):
        row[: len(block.shards)] = block.shards
    columns = {
        name: np.array([getattr(block, name) for block in blocks], np.int32)
        for name in ("records", "skip", "take")
    }
    takes = np.array([block.take for block in blocks], np.int64)
    columns["first"] = ((np.cumsum(takes) - takes) % batch_size).astype(np.int32)
    seeds = np.array([block.seed for block in blocks], np.int32).reshape([-1, 2])
    return tf.data.Dataset.from_tensor_slices({**columns, "shards": shards, "seed": seeds})


def open_reader(dataset: Dataset, split: str, cache: str, threads: int, **options) -> Reader:
    """The reader of a split: it decodes images when they are needed, or has their pixels at hand.

    Args:
        dataset: The data set.
        split: One of its splits.
        cache: One of `decoded.CACHES`.
        threads: Images decoded at a time where all are decoded into memory.
        **options: The other arguments of `Reader`.
    """
    shards, encoding = dataset.shards(split), dataset.encodings[split]
    if encoding == "raw":
        return decoded.Decoded(dataset, split, open_shard=decoded.Mapped(), **options)
    if decoded.chosen_cache(dataset, cache) == "memory":
        images = decoded.in_memory(shards, encoding, threads)
        return decoded.Decoded(dataset, split, open_shard=images.__getitem__, **options)
    return encoded.READERS[encoding](dataset, split, **options)


def make(
    reader: Reader,
    planned: tf.data.Dataset,
    finish: Callable,
    *,
    batch_size: int,
    count: int,
    threads: int,
    calls: int | None = None,
) -> tf.data.Dataset:
    """Crops planned images into batches and finishes each.

    Args:
        reader: Reads the split.
        planned: Elements of `reader.plan`.
        finish: `(images, columns) -> batch`, from the elements of `reader.cut`.
        batch_size: Examples per batch.
        count: Number of batches.
        threads: Size of the pipeline's thread pool.
        calls: Calls of `finish` at a time; None for one.
    """
    _prepare_process()
    batches = reader.cut(planned, batch_size, threads)
    batches = batches.map(as_it_is(finish), num_parallel_calls=calls)
    batches = batches.apply(tf.data.experimental.assert_cardinality(count))
    return batches.prefetch(2).with_options(options(threads))


def options(threads: int) -> tf.data.Options:
    """Options of a deterministic pipeline with a thread pool of its own."""
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    return options


@functools.cache
def _prepare_process() -> None:
    """Lets glibc keep freed batches, and OpenCV leave threads to the pipeline.

    By default each new batch (19 MB) is mapped and faulted in.
    """
    cv2.setNumThreads(0)
    m_trim_threshold, m_mmap_threshold, largest_legal = -1, -3, 32 * 2**20
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(m_mmap_threshold, largest_legal)
        mallopt(m_trim_threshold, 2**30)
