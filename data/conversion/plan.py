"""Plans shards: the images of a split in shuffled order, cut into parts, and each task's share."""

import itertools
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from data.images.decode import RAW_BYTES, Storage
from data.images.examples import Example, Splits
from data.images.names import SPLIT_ORDER
from data.shards import records

_MAX_SHARDS = 1024
_SHARD_EXAMPLES = 1250
# Maximum, because a training holds whole shards in memory.
_SHARD_BYTES = {"auto": 128 << 20, "jpeg": 128 << 20, "raw": 64 << 20}
_LOSSLESS = (".png", ".bmp", ".gif", ".tif", ".tiff")  # files that may be stored as raw pixels
_PACKED = 8  # bytes of pixels per byte of such a file, unless it is a drawing


@dataclass(frozen=True)
class Planned:
    """A planned shard.

    Attributes:
        file: File name.
        split: Split that it is a part of.
        examples: Examples to store in it, in this order.
    """

    file: str
    split: str
    examples: list[Example]


@dataclass(frozen=True)
class Task:
    """A part of a conversion, by default the whole.

    Attributes:
        index: Number of the task, and of its first shard.
        count: Number of tasks; a task makes every `count`-th shard.
    """

    index: int = 0
    count: int = 1

    def __str__(self) -> str:
        """Formats the task as on the command line."""
        return f"{self.index}/{self.count}"

    def share(self, planned: list[Planned]) -> list[Planned]:
        """Returns the shards of this task."""
        return planned[self.index :: self.count]


def plan(splits: Splits, storage: Storage, *, seed: int, shards: int | None) -> list[Planned]:
    """Plans the shards of all splits.

    Args:
        splits: Examples of each split, "train" among them.
        storage: How to store them.
        seed: Seed of the stored order.
        shards: Shards of the train split, the others in proportion; None for 1,250 examples each,
            more if there would be over 1,024 shards, but at most about 128 MiB (64 MiB if raw).

    Returns:
        The shards, in the order in which to write them.
    """
    per_shard = _examples_per_shard(splits["train"], storage, shards)
    planned = []
    for split in (split for split in SPLIT_ORDER if split in splits):
        examples = _stored_order(splits[split], split, seed)
        count = math.ceil(len(examples) / per_shard)
        bounds = [len(examples) * i // count for i in range(count + 1)]
        for i, (start, end) in enumerate(itertools.pairwise(bounds)):
            planned.append(Planned(records.shard_name(split, i, count), split, examples[start:end]))
    return planned


def bytes_at_most(examples: Iterable[Example], storage: Storage) -> int:
    """Returns an upper estimate of the size of stored images in bytes."""
    return sum(_bytes_at_most(example, storage) for example in examples)


def _bytes_at_most(example: Example, storage: Storage) -> int:
    """Returns an upper estimate for an image; a JPEG takes at most about one byte per pixel."""
    pixels = storage.short_side**2
    if storage.encoding == "raw":
        return 3 * pixels
    if storage.encoding == "auto" and example.name.lower().endswith(_LOSSLESS):
        max_bytes = min(4 * pixels or RAW_BYTES, RAW_BYTES)  # 4:3
        unpacked = min(_PACKED * example.size, max_bytes) if example.size else max_bytes
        return unpacked if pixels else max(unpacked, example.size or 0)
    return min(example.size or pixels, pixels or sys.maxsize)


def _stored_order(examples: list[Example], split: str, seed: int) -> list[Example]:
    order = np.random.default_rng([seed, *split.encode()]).permutation(len(examples))
    return [examples[i] for i in order]


def _examples_per_shard(train: list[Example], storage: Storage, shards: int | None) -> int:
    if shards is not None:
        return math.ceil(len(train) / shards)
    target = max(_SHARD_EXAMPLES, math.ceil(len(train) / _MAX_SHARDS))
    fitting = _SHARD_BYTES[storage.encoding] * len(train) // max(1, bytes_at_most(train, storage))
    return max(1, min(target, fitting))
