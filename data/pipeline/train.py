"""Batches of the train split: shuffled, augmented, starting at any step.

Randomness is stateless: the draws for an example are a function of (seed, epoch, position in the
epoch).
"""

import functools

import numpy as np
import tensorflow as tf

from data.pipeline import augment, batches, buffers, callbacks, order
from data.pipeline.batches import Share, as_it_is
from data.pipeline.reader import Columns, Reader
from data.shards.datasets import Dataset
from runtime import randomness

DRAWS = augment.GEOMETRY_DRAWS + 1  # the last one mirrors
_VARIED = 4  # batches varied at a time; Python runs no more in parallel


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

    The incomplete last batch of every epoch is dropped. Order and geometry depend on the shards,
    on `seed` and on the step, on nothing else.

    Args:
        dataset: The data set.
        policy: How images are varied.
        size: Side of the images in pixels, S.
        batch_size: Examples per optimizer step.
        seed: Seed of the run, not negative.
        step: Optimizer updates done.
        steps: Optimizer updates at the end of the run.
        threads: Size of the pipeline's thread pool.
        per_batch: Examples per batch, b: a divisor of `batch_size` (default: `batch_size`). Then
            batch_size / b batches in a row make one step, with the same examples in the same order.
        share: (i, n): only the i-th of n equal parts of every step's examples, for machines that
            train together; of shards with encoded images no other records are read.
        cache: One of `decoded.CACHES`: whether all images are decoded to memory first. The batches
            are the same.

    Returns:
        Batches (images uint8 [b, S, S, 3], labels int32 [b], weights float32 [b], all 1).

    Raises:
        ValueError: Fewer examples than a batch, or `per_batch` does not divide a share of it.
    """
    part = batch_size // share[1]
    per_batch = per_batch or part
    if batch_size % share[1] or part % per_batch:
        raise ValueError(f"per_batch must divide {batch_size} / {share[1]}. Received: {per_batch}")
    blocks = order.training_blocks(
        dataset.shards("train"), batch_size=batch_size, seed=seed, step=step, steps=steps
    )
    reader = _open_reader(dataset, policy, size, cache, threads)

    return batches.make(
        reader,
        _planned(reader, blocks, Share(*share, batch_size)),
        functools.partial(_finish, policy),
        batch_size=per_batch,
        count=sum(block.take for block in blocks) // batch_size * (part // per_batch),
        threads=threads,
        calls=min(threads, _VARIED) if policy.vary else None,
    )


def _finish(policy: augment.Policy, images: tf.Tensor, example: Columns) -> tuple[tf.Tensor, ...]:
    """Warps and varies a batch, uint8 [b, 1, S, S, 3]; adds labels and weights."""
    images = tf.squeeze(images, axis=1)
    if policy.warp:
        images = policy.warp(images, example["draws"])
    if policy.vary:
        vary = functools.partial(_vary, policy)
        varied = callbacks.call(vary, [images, example["draws"]], tf.uint8)
        images = tf.ensure_shape(varied, images.shape)
    return images, example["label"], tf.ones([images.shape[0]])


def _vary(policy: augment.Policy, images: np.ndarray, draws: np.ndarray) -> np.ndarray:
    result = buffers.empty(images.shape)
    for image, row, varied in zip(images, draws, result, strict=True):
        varied[...] = policy.vary(image, row)
    return result


def train_places(
    dataset: Dataset, *, batch_size: int, seed: int, step: int, steps: int
) -> tf.data.Dataset:
    """Places of the records that the batches of `train_batches` hold, in their order.

    Args:
        dataset: The data set.
        batch_size: Examples per optimizer step, b.
        seed: Seed of the run, not negative.
        step: Optimizer updates done.
        steps: Optimizer updates at the end.

    Returns:
        Batches int32 [b]: places in the stored order of the whole split.
    """
    shards = dataset.shards("train")
    blocks = order.training_blocks(shards, batch_size=batch_size, seed=seed, step=step, steps=steps)
    examples = np.array([shard.examples for shard in shards], np.int32)
    begins = np.cumsum(examples, dtype=np.int32) - examples

    def placed(block):
        members = tf.boolean_mask(block["shards"], block["shards"] >= 0)
        counts = tf.gather(examples, members)
        shifts = tf.gather(begins, members) - tf.cumsum(counts, exclusive=True)
        places = tf.range(block["records"]) + tf.repeat(shifts, counts)
        return tf.gather(places, drawn(block)[0])

    places = batches.as_tensors(blocks, batch_size).map(as_it_is(placed))
    count = sum(block.take for block in blocks) // batch_size
    return places.rebatch(batch_size, drop_remainder=True).apply(
        tf.data.experimental.assert_cardinality(count)
    )


def stages(
    dataset: Dataset,
    policy: augment.Policy,
    *,
    size: int,
    batch_size: int,
    seed: int,
    steps: int,
    threads: int,
    cache: str = "none",
) -> dict[str, tf.data.Dataset]:
    """The pipeline of `train_batches` up to and including each of its stages, to measure them.

    Args:
        dataset: The data set.
        policy: How images are varied.
        size: Side of the images in pixels.
        batch_size: Examples per optimizer step.
        seed: Seed of the run, not negative.
        steps: Optimizer updates to read batches for.
        threads: Size of the pipeline's thread pool.
        cache: One of `decoded.CACHES`.

    Returns:
        Data sets by the names read, decode (where there is something to decode), augment and batch:
        each element is the number of images that have come since the one before, int32 [].
    """
    blocks = order.training_blocks(
        dataset.shards("train"), batch_size=batch_size, seed=seed, step=0, steps=steps
    )
    reader = _open_reader(dataset, policy, size, cache, threads)
    planned = _planned(reader, blocks, Share(0, 1, batch_size))
    options = {"size": size, "batch_size": batch_size, "seed": seed, "steps": steps}
    whole = train_batches(dataset, policy, **options, threads=threads, cache=cache)
    parts = {
        "read": planned.map(as_it_is(lambda columns: columns["label"])),
        **reader.stages(planned, batch_size, threads),
        "batch": whole.map(as_it_is(lambda images, labels, weights: labels)),
    }
    return {
        name: part.map(lambda rows: tf.shape(tf.nest.flatten(rows)[0])[0]).with_options(
            batches.options(threads)
        )
        for name, part in parts.items()
    }


def drawn(block: Columns) -> tuple[tf.Tensor, tf.Tensor]:
    """The records used of a training block, in their shuffled order, and their random draws.

    Args:
        block: The fields of an `order.Block`.

    Returns:
        int32 [n], places among the block's records, and float32 [n, DRAWS], uniform in [0, 1).
    """
    places = tf.range(block["records"])
    places = tf.random.experimental.stateless_shuffle(places, block["seed"])
    stream = tf.random.experimental.stateless_fold_in(block["seed"], randomness.EXAMPLES)
    draws = tf.random.stateless_uniform([block["records"], DRAWS], stream)
    used = slice(block["skip"], block["skip"] + block["take"])
    return places[used], draws[used]


def is_mirrored(draws: tf.Tensor) -> tf.Tensor:
    """Which images are mirrored, if the policy mirrors: bool [n] for float32 [n, DRAWS]."""
    return draws[:, -1] < 0.5


def _open_reader(
    dataset: Dataset, policy: augment.Policy, size: int, cache: str, threads: int
) -> Reader:
    def windows_of(height, width, draws):
        return policy.window(height, width, size, draws)[..., tf.newaxis, :]

    def mirror_of(draws):
        return is_mirrored(draws)[:, tf.newaxis]

    return batches.open_reader(
        dataset,
        "train",
        cache,
        threads,
        windows_of=windows_of,
        mirror_of=mirror_of if policy.mirror else None,
        size=size,
    )


def _planned(reader: Reader, blocks: list[order.Block], share: Share) -> tf.data.Dataset:
    """Blocks of training records, planned one at a time while the one before is in use."""

    def planned(block):
        places, draws = share.of(block, *drawn(block))
        return reader.plan(share.rows(reader, block, places), draws)

    return batches.as_tensors(blocks, share.batch_size).map(as_it_is(planned)).prefetch(1)
