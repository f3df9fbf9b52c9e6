"""Writes the shards of a conversion, one whole one after the other."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data import records
from data.decode import Storage, Stored
from data.examples import Example
from data.journal import Account, Journal
from data.plan import Planned
from data.workers import Rejected, stored

_TOLERATED = 10  # rejected images, whatever `max_bad` says

Result = tuple[Example, Stored | Rejected]


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
    rejected: list[list[str]]


def allowed_bad(images: int, max_bad: float) -> float:
    """How many of `images` a conversion may reject, a part `max_bad` of them but always 10."""
    return max(_TOLERATED, max_bad * images)


class Limit:
    """Stops a conversion of which too many images are rejected."""

    def __init__(self, planned: list[Planned], max_bad: float):
        """Counts from nothing.

        Args:
            planned: All shards of the conversion.
            max_bad: Part of all images, 0..1, that may be rejected; 10 always may.
        """
        self._images = sum(len(shard.examples) for shard in planned)
        self._allowed = allowed_bad(self._images, max_bad)
        self._rejected: list[list[str]] = []

    def add(self, rejected: Iterable[list[str]]):
        """Counts rejected images.

        Raises:
            RuntimeError: If they are too many.
        """
        self._rejected += rejected
        if len(self._rejected) > self._allowed:
            raise RuntimeError(
                f"{len(self._rejected)} of {self._images} images cannot be used, expected at most "
                f"{self._allowed:.0f}: {_first(self._rejected)}, ..."
            )


def write_shards(
    journal: Journal,
    planned: list[Planned],
    storage: Storage,
    *,
    workers: int,
    limit: Limit,
    advance: Callable[[], object],
):
    """Writes shards.

    Args:
        journal: Where to; has the account of every shard when it is complete.
        planned: The shards to write.
        storage: How to store images.
        workers: Processes that decode.
        limit: Is told of every image that is rejected.
        advance: Called after every image.

    Raises:
        RuntimeError: If too many images are rejected, or a shard cannot be written.
    """
    examples = itertools.chain.from_iterable(shard.examples for shard in planned)
    previous = None
    with (
        ThreadPoolExecutor(1) as background,
        contextlib.closing(stored(examples, storage, workers)) as results,
    ):
        for shard in planned:
            part = itertools.islice(results, len(shard.examples))
            tally = _Tally(shard.split == "train", limit, advance)
            _write(journal.shards / shard.file, tally, zip(shard.examples, part, strict=True))
            if previous:
                previous.result()
            previous = background.submit(_seal, journal, shard.file, tally)
        if previous:
            previous.result()


def record(example: Example, image: Stored) -> bytes:
    """Serialises an example and the image stored for it."""
    return records.example_bytes(
        encoded=image.encoded,
        format=image.format,
        label=example.label,
        height=image.height,
        width=image.width,
        filename=example.name,
    )


@dataclass
class _Tally:
    """What has been seen of a shard so far."""

    counts_pixels: bool
    limit: Limit
    advance: Callable[[], object]
    examples: int = 0
    pixels: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    squares: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    rejected: list[list[str]] = field(default_factory=list)

    def records(self, results: Iterator[Result]) -> Iterator[bytes]:
        """Yields the records to write."""
        for example, image in results:
            self.advance()
            if isinstance(image, Rejected):
                self.rejected.append([example.name, image.reason])
                self.limit.add(self.rejected[-1:])
                continue
            self.examples += 1
            if self.counts_pixels:
                self._add_pixels(image)
            yield record(example, image)

    def _add_pixels(self, image: Stored):
        pixels = image.height * image.width
        self.pixels += pixels
        for channel in range(3):
            self.sums[channel] += pixels * image.mean[channel]
            self.squares[channel] += pixels * image.mean_of_squares[channel]


def _write(path: Path, tally: _Tally, results: Iterator[Result]):
    """Writes a shard, or nothing if it is not written to the end or has no records."""
    try:
        records.write_records(path, tally.records(results))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    if not tally.examples:
        path.unlink()


def _seal(journal: Journal, file: str, tally: _Tally) -> Account:
    """Makes sure that a shard is on the disk, and says so in the journal."""
    size, digest = records.seal(journal.shards / file) if tally.examples else (0, "")
    account = Account(
        tally.examples, size, digest, tally.pixels, tally.sums, tally.squares, tally.rejected
    )
    try:
        journal.add(file, account)
    except OSError as error:
        raise RuntimeError(f"{file} cannot be written: {error.strerror}") from None
    return account


def collected(folder: Path, planned: list[Planned], accounts: dict[str, Account]) -> Written:
    """Puts together what is known of all shards, in their order, and gives them their last names.

    Raises:
        RuntimeError: If a split has no image left.
    """
    pairs = [(shard, accounts[shard.file]) for shard in planned]
    rejected = [row for _, account in pairs for row in account.rejected]
    splits = {}
    for split in dict.fromkeys(shard.split for shard in planned):
        shards = [pair for pair in pairs if pair[0].split == split and pair[1].examples]
        if not shards:
            raise RuntimeError(f"no image of the {split} split can be used: {_first(rejected)}")
        splits[split] = _entry(folder, shards)
    return Written(splits, *_moments([account for _, account in pairs]), rejected)


def _entry(folder: Path, shards: list[tuple[Planned, Account]]) -> dict:
    """Numbers the shards of a split, where empty ones are left out, and describes them."""
    rows = []
    for i, (shard, account) in enumerate(shards):
        name = records.shard_name(shard.split, i, len(shards))
        if name != shard.file:
            (folder / shard.file).rename(folder / name)
        facts = {"examples": account.examples, "bytes": account.bytes, "sha256": account.sha256}
        rows.append({"file": name, **facts})
    return {"examples": sum(row["examples"] for row in rows), "shards": rows}


def _moments(accounts: list[Account]) -> tuple[list[float], list[float]]:
    """Mean, and deviation of at least 1: images of one colour stay finite when divided by it."""
    pixels, sums, squares = 0, np.zeros(3), np.zeros(3)
    for account in accounts:
        pixels += account.pixels
        sums += account.sums
        squares += account.squares
    mean = sums / pixels
    return mean.tolist(), np.sqrt(np.maximum(squares / pixels - mean**2, 1)).tolist()


def _first(rejected: list[list[str]]) -> str:
    return ", ".join(f"{name} ({reason})" for name, reason in rejected[:3])
