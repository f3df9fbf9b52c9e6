"""The order of records: the plan of a training run or of a test, made of numbers only.

The order of an epoch is a function of (seed, epoch). Shards are shuffled and read in blocks that
fit into memory; the records of a block are shuffled uniformly. A data set that fits into one block
is thereby shuffled exactly.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BLOCK_BYTES = 256 * 2**20


class Block(NamedTuple):
    """Shards that are read together, and which of their records are used.

    Attributes:
        shards: Indices of the shards, in the order in which they are read.
        records: Number of records in all of them.
        skip: Number of (shuffled) records to skip.
        take: Number of records to use then; more than there are starts again from the first.
        seed: Key, two int32, of everything random in the block.
    """

    shards: list[int]
    records: int
    skip: int
    take: int
    seed: tuple[int, int]


def training_blocks(
    shards: Sequence, *, batch_size: int, seed: int, step: int, steps: int
) -> list[Block]:
    """The blocks of a training run, from optimizer step `step` to the end.

    The incomplete last batch of every epoch is left out; the order changes every epoch.

    Args:
        shards: The shards, with `examples` and `bytes`.
        batch_size: Examples per optimizer step.
        seed: Seed of the run, not negative.
        step: Optimizer updates done.
        steps: Optimizer updates at the end of the run.

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
    """All records in stored order, a shard at a time; the last block is repeated to `examples`."""
    blocks = [
        Block([index], shard.examples, 0, shard.examples, (0, 0))
        for index, shard in enumerate(shards)
        if shard.examples
    ]
    missing = examples - sum(block.take for block in blocks)
    blocks[-1] = blocks[-1]._replace(take=blocks[-1].take + missing)
    return blocks


def _epoch_blocks(shards, seed, epoch, begin, end):
    """The blocks of an epoch that hold its examples `begin` to `end`."""
    random = np.random.default_rng((seed, epoch))
    blocks, first = [], 0
    for members in _cut(shards, random.permutation(len(shards)).tolist()):
        count = sum(shards[index].examples for index in members)
        skip, stop = max(begin - first, 0), min(end - first, count)
        key = tuple(random.integers(2**31, size=2).tolist())
        if skip < stop:
            blocks.append(Block(members, count, skip, stop - skip, key))
        first += count
    return blocks


def _cut(shards, order):
    """Cuts a sequence of shards into blocks of up to BLOCK_BYTES, but at least one shard."""
    blocks, size = [[]], 0
    for index in order:
        size += shards[index].bytes
        if blocks[-1] and size > BLOCK_BYTES:
            blocks.append([])
            size = shards[index].bytes
        blocks[-1].append(index)
    return blocks
