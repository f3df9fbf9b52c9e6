"""Batches of the train split: shuffled, augmented, starting at any step.

Randomness is stateless: the random numbers of an example are a function of seed, epoch and position
in the epoch.
"""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from data.pipeline import augment, batches, buffers, callbacks, order
from data.pipeline.batches import Share
from data.pipeline.reader import Columns, Reader, no_autograph
from data.shards.datasets import Dataset
from runtime import randomness

DRAWS = augment.GEOMETRY_DRAWS + 1  # random numbers per example; the last one decides on mirroring
# Fields of an `order.Block` -> indices of its records int32 [n], draws float32 [n, DRAWS].
Draw = Callable[[Columns], tuple[tf.Tensor, tf.Tensor]]
_MOST_VARY_CALLS = 4  # batches varied in parallel; with more, threads wait for Python's lock


def train_batches(
    dataset: Dataset,
    policy: augment.Policy,
    *,
    size: int,
    batch_size: int,
    seed: int,
    step: int = 0,
    steps: int,
    threads: int,
    per_batch: int | None = None,
    share: tuple[int, int] = (0, 1),
    cache: str = "none",
) -> tf.data.Dataset:
    """Batches of the train split, from optimizer step `step` to the end of the run.

    The incomplete last batch of every epoch is dropped. Order, crops and variations depend only on
    the shards, `seed` and the step. The policy's colour augmentation is left to the device.

    Args:
        dataset: The data set.
        policy: Augmentation policy.
        size: Side of the images in pixels, S.
        batch_size: Examples per optimizer step.
        seed: Seed of the run, not negative.
        step: First step: the number of optimizer updates done before.
        steps: End of the run: the number of optimizer updates done then.
        threads: Size of the pipeline's thread pool.
        per_batch: Examples per batch, b: a divisor of this process's share of `batch_size`
            (default: that share). Consecutive batches make up a step, with the same examples in the
            same order for every b.
        share: (i, n): only the i-th of n equal parts of every step's examples, for n processes that
            train together. If the images are encoded, the other records are not even read.
        cache: One of `decoded.CACHES`: whether all images are first decoded to memory, which does
            not change the batches.

    Returns:
        Batches (images uint8 [b, S, S, 3], labels int32 [b], sample weights float32 [b], all 1).

    Raises:
        ValueError: If there are fewer examples than `batch_size`, or n or b does not divide it.
    """
    part = batch_size // share[1]
    per_batch = per_batch or part
    if batch_size % share[1] or part % per_batch:
        raise ValueError(f"per_batch must divide {batch_size} / {share[1]}. Received: {per_batch}")
    blocks = order.training_blocks(
        dataset.shards("train"), batch_size=batch_size, seed=seed, step=step, steps=steps
    )
    reader = open_reader(dataset, policy, size, cache, threads)
    draw = draw_fn(dataset, policy, seed)
    return batches.build(
        reader,
        plan_blocks(reader, blocks, Share(*share, batch_size), draw),
        functools.partial(_finish, policy),
        batch_size=per_batch,
        count=sum(block.take for block in blocks) // batch_size * (part // per_batch),
        threads=threads,
        finish_calls=min(threads, _MOST_VARY_CALLS) if policy.vary else None,
    )


def open_reader(
    dataset: Dataset, policy: augment.Policy, size: int, cache: str, threads: int
) -> Reader:
    """Opens the train split for crops that the policy decides on; arguments of `train_batches`."""

    def windows_fn(height, width, draws):
        return policy.window(height, width, size, draws)[..., tf.newaxis, :]

    def mirror_fn(draws):
        return is_mirrored(draws)[:, tf.newaxis]

    return batches.open_reader(
        dataset,
        "train",
        cache,
        threads,
        windows_fn=windows_fn,
        mirror_fn=mirror_fn if policy.mirror else None,
        reflects=policy.reflects,
        size=size,
    )


def plan_blocks(
    reader: Reader, blocks: list[order.Block], share: Share, draw: Draw
) -> tf.data.Dataset:
    """Reads, shuffles and plans blocks, each while the one before it is in use.

    Args:
        reader: Reader of the train split.
        blocks: The blocks.
        share: The examples of every step that this process reads.
        draw: Function from `draw_fn`.

    Returns:
        Elements of `reader.plan`, one for each block.
    """

    def plan(block):
        indices, draws = share.select(block, *draw(block))
        return reader.plan(share.read(reader, block, indices), draws)

    return batches.block_dataset(blocks, share.batch_size).map(no_autograph(plan)).prefetch(1)


def shuffle_and_draw(block: Columns) -> tuple[tf.Tensor, tf.Tensor]:
    """Shuffles the records of a block and draws random numbers for each record that is used.

    Args:
        block: The fields of an `order.Block`.

    Returns:
        Indices of the n used records within the block, in shuffled order, int32 [n], and their
        random numbers, float32 [n, DRAWS], uniform in [0, 1).
    """
    indices = tf.range(block["records"])
    indices = tf.random.experimental.stateless_shuffle(indices, block["seed"])
    key = tf.random.experimental.stateless_fold_in(block["seed"], randomness.EXAMPLES)
    draws = tf.random.stateless_uniform([block["records"], DRAWS], key)
    used = slice(block["skip"], block["skip"] + block["take"])
    return indices[used], draws[used]


def draw_fn(dataset: Dataset, policy: augment.Policy, seed: int) -> Draw:
    """Returns `shuffle_and_draw`, or where the policy alternates, a variant that mirrors in turn.

    The draw that decides on mirroring is then half a unit further in every epoch, from a first one
    that depends on seed and record.

    Args:
        dataset: The data set.
        policy: Augmentation policy.
        seed: Seed of the run, not negative.
    """
    if not policy.alternates:
        return shuffle_and_draw
    key = tf.random.experimental.stateless_fold_in([seed, 0], randomness.ALTERNATION)
    first = tf.random.stateless_uniform([dataset.num_examples("train")], key)
    locate = _locator(dataset)

    def draw(block):
        indices, draws = shuffle_and_draw(block)
        turn = tf.gather(first, locate(block, indices)) + 0.5 * tf.cast(block["epoch"], tf.float32)
        return indices, tf.concat([draws[:, :-1], turn[:, tf.newaxis] % 1], axis=1)

    return draw


def is_mirrored(draws: tf.Tensor) -> tf.Tensor:
    """Which images are mirrored, if the policy mirrors: bool [n] for float32 [n, DRAWS]."""
    return draws[:, -1] < 0.5


def _finish(policy: augment.Policy, images: tf.Tensor, columns: Columns) -> tuple[tf.Tensor, ...]:
    """Warps and varies a batch, uint8 [b, 1, S, S, 3]; adds labels and sample weights."""
    images = tf.squeeze(images, axis=1)
    if policy.warp:
        images = policy.warp(images, columns["draws"])
    if policy.vary:
        vary = functools.partial(_vary, policy)
        varied = callbacks.call(vary, [images, columns["draws"]], tf.uint8)
        images = tf.ensure_shape(varied, images.shape)
    return images, columns["label"], tf.ones([images.shape[0]])


def _vary(policy: augment.Policy, images: np.ndarray, draws: np.ndarray) -> np.ndarray:
    result = buffers.empty(images.shape)
    for image, row, varied in zip(images, draws, result, strict=True):
        varied[...] = policy.vary(image, row)
    return result


def train_indices(
    dataset: Dataset, *, batch_size: int, seed: int, step: int, steps: int
) -> tf.data.Dataset:
    """Indices of the records in the batches of `train_batches`, in the same order.

    Args:
        dataset: The data set.
        batch_size: Examples per optimizer step, b.
        seed: Seed of the run, not negative.
        step: First step: the number of optimizer updates done before.
        steps: End of the run: the number of optimizer updates done then.

    Returns:
        Batches int32 [b] of indices into the whole split in stored order.
    """
    shards = dataset.shards("train")
    blocks = order.training_blocks(shards, batch_size=batch_size, seed=seed, step=step, steps=steps)
    locate = _locator(dataset)

    def indices_in_split(block):
        return locate(block, shuffle_and_draw(block)[0])

    indices = batches.block_dataset(blocks, batch_size).map(no_autograph(indices_in_split))
    count = sum(block.take for block in blocks) // batch_size
    return indices.rebatch(batch_size, drop_remainder=True).apply(
        tf.data.experimental.assert_cardinality(count)
    )


def _locator(dataset: Dataset) -> Callable[[Columns, tf.Tensor], tf.Tensor]:
    """Returns a function from a block and indices within it to indices in the split, int32 [n]."""
    examples = np.array([shard.examples for shard in dataset.shards("train")], np.int32)
    begins = np.cumsum(examples, dtype=np.int32) - examples

    def locate(block, indices):
        members = tf.boolean_mask(block["shards"], block["shards"] >= 0)
        counts = tf.gather(examples, members)
        shifts = tf.gather(begins, members) - tf.cumsum(counts, exclusive=True)
        return indices + tf.gather(tf.repeat(shifts, counts), indices)

    return locate
