"""Writes stored images as shards, in an order shuffled over the whole split."""

import contextlib
import itertools
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data import records
from data.decode import Storage, Stored
from data.examples import SPLIT_ORDER, Example, Splits
from data.workers import Rejected, stored

_MAX_SHARDS = 1024
_SHARD_EXAMPLES = 1250
_SHARD_BYTES = {"jpeg": 128 << 20, "raw": 64 << 20}  # a training holds whole shards in memory
_TOLERATED = 10  # rejected images, whatever `max_bad` says


@dataclass(frozen=True)
class Written:
    """What has been written.

    Attributes:
        splits: Entry of every split in dataset.json.
        mean: Of every channel (RGB) of the train split's stored pixels, 0..255.
        std: Likewise, at least 1.
        rejected: Name and reason of every image that did not become a record.
    """

    splits: dict[str, dict]
    mean: list[float]
    std: list[float]
    rejected: list[tuple[str, str]]


def write_splits(
    folder: Path,
    splits: Splits,
    storage: Storage,
    *,
    seed: int,
    shards: int | None,
    workers: int,
    max_bad: float,
    advance: Callable[[], object],
) -> Written:
    """Writes the shards of all splits.

    Args:
        folder: Where to.
        splits: What to store, "train" among them.
        storage: How.
        seed: Decides the stored order.
        shards: Of the train split, the others in proportion; None for 1,250 examples each, or
            more for no more than 1,024 shards, but about 128 MiB (64 MiB of raw pixels) at most.
        workers: Processes that decode.
        max_bad: Part of all images, 0..1, that may be rejected; 10 always may.
        advance: Called after every image.

    Raises:
        RuntimeError: If too many images are rejected, or a split has none left.
    """
    ordered = {
        split: _stored_order(splits[split], split, seed) for split in SPLIT_ORDER if split in splits
    }
    per_shard = _examples_per_shard(splits["train"], storage, shards)
    everything = list(itertools.chain(*ordered.values()))
    tally = _Tally(len(everything), max_bad)
    with contextlib.closing(stored(everything, storage, workers)) as results:
        entries = {
            split: _write_split(folder, split, examples, results, per_shard, tally, advance)
            for split, examples in ordered.items()
        }
    return Written(entries, tally.mean(), tally.std(), tally.rejected)


def check_space(folder: Path, splits: Splits, storage: Storage):
    """Refuses to begin what the disk cannot hold.

    Raises:
        OSError: If it is too small.
    """
    examples = itertools.chain(*splits.values())
    needed = sum(_estimated_bytes(example.size, storage) for example in examples)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"too little space for {folder}: expected {needed / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free"
        )


class _Tally:
    """What has been seen so far: rejected images, and the moments of the train split."""

    def __init__(self, images: int, max_bad: float):
        self.rejected: list[tuple[str, str]] = []
        self._images = images
        self._allowed = max(_TOLERATED, max_bad * images)
        self._pixels, self._sum, self._squares = 0, np.zeros(3), np.zeros(3)

    def reject(self, example: Example, reason: str):
        self.rejected.append((example.name, reason))
        if len(self.rejected) > self._allowed:
            raise RuntimeError(
                f"{len(self.rejected)} of {self._images} images cannot be used, expected at most "
                f"{self._allowed:.0f}: {self._first()}, ..."
            )

    def add(self, image: Stored):
        pixels = image.height * image.width
        self._pixels += pixels
        self._sum += pixels * np.array(image.mean)
        self._squares += pixels * np.array(image.mean_of_squares)

    def check_left(self, split: str, examples: int):
        if not examples:
            raise RuntimeError(f"no image of the {split} split can be used: {self._first()}")

    def mean(self) -> list[float]:
        return (self._sum / self._pixels).tolist()

    def std(self) -> list[float]:
        """At least 1: images of one colour stay finite when divided by it."""
        mean = self._sum / self._pixels
        return np.sqrt(np.maximum(self._squares / self._pixels - mean**2, 1)).tolist()

    def _first(self) -> str:
        return ", ".join(f"{name} ({reason})" for name, reason in self.rejected[:3])


def _estimated_bytes(size: int | None, storage: Storage) -> int:
    """A JPEG has at most about one byte for a pixel of the square."""
    pixels = storage.short_side**2
    if storage.encoding == "raw":
        return 3 * pixels
    return min(size or pixels, pixels or sys.maxsize)


def _stored_order(examples: list[Example], split: str, seed: int) -> list[Example]:
    order = np.random.default_rng([seed, *split.encode()]).permutation(len(examples))
    return [examples[i] for i in order]


def _examples_per_shard(train: list[Example], storage: Storage, shards: int | None) -> int:
    if shards is not None:
        return math.ceil(len(train) / shards)
    wanted = max(_SHARD_EXAMPLES, math.ceil(len(train) / _MAX_SHARDS))
    size = sum(_estimated_bytes(example.size, storage) for example in train)
    fitting = _SHARD_BYTES[storage.encoding] * len(train) // max(1, size)
    return max(1, min(wanted, fitting))


def _write_split(
    folder: Path,
    split: str,
    examples: list[Example],
    results: Iterator[Stored | Rejected],
    per_shard: int,
    tally: _Tally,
    advance: Callable[[], object],
) -> dict:
    """Writes the shards of one split, leaves out empty ones; returns its entry in dataset.json."""
    count = math.ceil(len(examples) / per_shard)
    bounds = [len(examples) * i // count for i in range(count + 1)]
    rows = []
    for start, end in itertools.pairwise(bounds):
        path = folder / f"{split}-{start}.unnamed"
        chunk = zip(examples[start:end], itertools.islice(results, end - start), strict=True)
        written, size, digest = records.write_shard(path, _serialised(chunk, split, tally, advance))
        if written:
            rows.append({"file": path, "examples": written, "bytes": size, "sha256": digest})
    for i, row in enumerate(rows):
        name = records.shard_name(split, i, len(rows))
        row["file"].rename(folder / name)
        row["file"] = name
    for empty in folder.glob("*.unnamed"):
        empty.unlink()
    total = sum(row["examples"] for row in rows)
    tally.check_left(split, total)
    return {"examples": total, "shards": rows}


def _serialised(
    chunk: Iterator[tuple[Example, Stored | Rejected]],
    split: str,
    tally: _Tally,
    advance: Callable[[], object],
) -> Iterator[bytes]:
    for example, image in chunk:
        advance()
        if isinstance(image, Rejected):
            tally.reject(example, image.reason)
            continue
        if split == "train":
            tally.add(image)
        yield records.example_bytes(
            encoded=image.encoded,
            format=image.format,
            label=example.label,
            height=image.height,
            width=image.width,
            filename=example.name,
        )
