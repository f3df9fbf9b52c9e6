"""The order in which training and tests read records, planned without reading any.

The order of an epoch is a function of seed and epoch. Shards are shuffled and grouped into blocks
that fit into memory; the records of a block are shuffled uniformly. A data set that fits into one
block is therefore shuffled uniformly as a whole.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BLOCK_BYTES = 256 * 2**20  # maximum, unless a single shard is larger


class Block(NamedTuple):
    """Shards that are read together, and which of their records are used.

    Attributes:
        shards: Indices of the shards, in the order in which they are read.
        records: Number of records in all of them.
        skip: Number of records, in shuffled order, to skip at the beginning.
        take: Number of records to use after these. If the block has fewer, its records are repeated
            (only in the last block of a test, as padding).
        seed: Key of all random numbers of the block, two int32.
        epoch: Number of the epoch, from 0; 0 in a test.
    """

    shards: list[int]
    records: int
    skip: int
    take: int
    seed: tuple[int, int]
    epoch: int = 0


def training_blocks(
    shards: Sequence, *, batch_size: int, seed: int, step: int, steps: int
) -> list[Block]:
    """Plans the blocks of a training run, from optimizer step `step` to the end.

    The incomplete last batch of every epoch is left out; the order changes every epoch.

    Args:
        shards: The shards, with `examples` and `bytes`.
        batch_size: Examples per optimizer step.
        seed: Seed of the run, not negative.
        step: First step: the number of optimizer updates done before.
        steps: End of the run: the number of optimizer updates done then.

    Raises:
        ValueError: If the shards hold less than one batch.
    """
    per_epoch = sum(shard.examples for shard in shards) // batch_size
    if not per_epoch:
        raise ValueError(
            f"too few training examples, expected at least the batch size {batch_size}. "
            f"Received: {sum(shard.examples for shard in shards)}"
        )
    planned = []
    for epoch in range(step // per_epoch, -(-steps // per_epoch)):
        begin = max(0, step - epoch * per_epoch) * batch_size
        end = min(per_epoch, steps - epoch * per_epoch) * batch_size
        planned += _epoch_blocks(shards, seed, epoch, begin, end)
    return planned


def stored_blocks(shards: Sequence, examples: int) -> list[Block]:
    """Plans a block for each shard, in stored order.

    Args:
        shards: The shards, with `examples`.
        examples: Number of examples to take in all; the last block is repeated if the shards have
            fewer.
    """
    blocks = [
        Block([index], shard.examples, 0, shard.examples, (0, 0))
        for index, shard in enumerate(shards)
        if shard.examples
    ]
    missing = examples - sum(block.take for block in blocks)
    blocks[-1] = blocks[-1]._replace(take=blocks[-1].take + missing)
    return blocks


def _epoch_blocks(shards, seed, epoch, begin, end):
    """Plans the blocks of an epoch that contain its examples `begin` to `end` - 1."""
    random = np.random.default_rng((seed, epoch))
    blocks, first = [], 0
    for members in _grouped(shards, random.permutation(len(shards)).tolist()):
        count = sum(shards[index].examples for index in members)
        skip, stop = max(begin - first, 0), min(end - first, count)
        key = tuple(random.integers(2**31, size=2).tolist())
        if skip < stop:
            blocks.append(Block(members, count, skip, stop - skip, key, epoch))
        first += count
    return blocks


def _grouped(shards, order):
    """Groups consecutive shards of an order into blocks of up to BLOCK_BYTES or a single shard."""
    blocks, size = [[]], 0
    for index in order:
        size += shards[index].bytes
        if blocks[-1] and size > BLOCK_BYTES:
            blocks.append([])
            size = shards[index].bytes
        blocks[-1].append(index)
    return blocks
