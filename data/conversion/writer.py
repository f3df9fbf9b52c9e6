"""Writes the shards of a conversion, one after the other."""

import contextlib
import csv
import io
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.conversion.journal import Account, Journal
from data.conversion.plan import Planned
from data.images.decode import Storage, Stored
from data.images.examples import UNLABELLED, Example
from data.images.reading import shortened
from data.images.workers import UNREADABLE, Rejected, stored
from data.shards import records
from runtime.files import write

_CHARACTER_SIDE = 64  # maximum pixels of an image of one character
_TOLERATED = 10  # rejected images, for any `max_bad`

Result = tuple[Example, Stored | Rejected]


@dataclass(frozen=True)
class Written:
    """Facts about all shards of a conversion, for dataset.json.

    Attributes:
        splits: Entry of each split in dataset.json.
        mean: Mean of each channel (RGB) of the train split's stored pixels, 0..255.
        std: Standard deviation of each channel, at least 1.
        rejected: Name and reason of every image that did not become a record.
        bits: `Storage.bits` of the conversion.
        small_grey: Whether all images are grey and of at most 64 x 64 pixels, like characters.
    """

    splits: dict[str, dict]
    mean: list[float]
    std: list[float]
    rejected: list[list[str]]
    bits: int
    small_grey: bool

    @property
    def unreadable(self) -> int:
        """Number of the rejected images that could not be opened."""
        return sum(reason.startswith(UNREADABLE) for _, reason in self.rejected)


def allowed_bad(images: int, max_bad: float) -> float:
    """Returns the number of images that may be rejected: the fraction `max_bad`, at least 10."""
    return max(_TOLERATED, max_bad * images)


class EmptyClassError(ValueError):
    """A class has no usable training image, or a split no usable image."""


class Limit:
    """Stops a conversion when too many images are rejected."""

    def __init__(self, planned: list[Planned], max_bad: float, table: Path):
        """Starts with no rejected images.

        Args:
            planned: All shards of the conversion.
            max_bad: Part of all images, 0..1, that may be rejected; 10 always may.
            table: Table to list the rejected images in if there are too many.
        """
        self._table = table
        self._images = sum(len(shard.examples) for shard in planned)
        self._allowed = allowed_bad(self._images, max_bad)
        self._rejected: list[list[str]] = []

    def add(self, rejected: Iterable[list[str]]):
        """Counts rejected images.

        Raises:
            ValueError: If there are too many.
        """
        self._rejected += rejected
        if len(self._rejected) > self._allowed:
            write_table(self._table, self._rejected)
            raise ValueError(
                f"{len(self._rejected)} of {self._images} images cannot be used, expected at most "
                f"{self._allowed:.0f}: {_first(self._rejected)}, ...; listed in {self._table}; "
                "python -m data.convert --max_bad=PART accepts a larger part"
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
        journal: Journal of the conversion, in whose folder the shards are written.
        planned: The shards to write.
        storage: How to store the images.
        workers: Number of decoding processes.
        limit: Counts the rejected images.
        advance: Called after every image.

    Raises:
        ValueError: If too many images are rejected.
        RuntimeError: If a shard cannot be written.
    """
    examples = itertools.chain.from_iterable(shard.examples for shard in planned)
    previous = None
    with (
        ThreadPoolExecutor(1) as background,
        contextlib.closing(stored(examples, storage, workers)) as results,
    ):
        for shard in planned:
            part = itertools.islice(results, len(shard.examples))
            tally = _Tally(shard.split == "train", limit, advance, storage.bits)
            _write(journal.shards / shard.file, tally, zip(shard.examples, part, strict=True))
            if previous:
                previous.result()
            previous = background.submit(_seal, journal, shard.file, tally)
        if previous:
            previous.result()


def record(example: Example, image: Stored) -> bytes:
    """Serialises an example and its stored image."""
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
    """Counts and sums of a shard while it is written."""

    counts_pixels: bool
    limit: Limit
    advance: Callable[[], object]
    bits: int
    examples: int = 0
    pixels: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    squares: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    rejected: list[list[str]] = field(default_factory=list)
    formats: set[str] = field(default_factory=set)
    small_grey: bool = True

    def records(self, results: Iterator[Result]) -> Iterator[bytes]:
        """Yields the records to write."""
        for example, image in results:
            self.advance()
            if isinstance(image, Rejected):
                self.rejected.append([example.name, image.reason])
                self.limit.add(self.rejected[-1:])
                continue
            self.examples += 1
            self.formats.add(image.format)
            self.small_grey &= _is_small_grey(image)
            if self.counts_pixels:
                self._add_pixels(image)
            yield record(example, image)

    def _add_pixels(self, image: Stored):
        pixels = image.height * image.width
        self.pixels += pixels
        for channel in range(3):
            self.sums[channel] += pixels * image.mean[channel]
            self.squares[channel] += pixels * image.mean_of_squares[channel]


def _is_small_grey(image: Stored) -> bool:
    """Whether an image is as small as a character, and its channels have the same moments."""
    is_grey = len(set(image.mean)) == len(set(image.mean_of_squares)) == 1
    return is_grey and max(image.height, image.width) <= _CHARACTER_SIDE


def _write(path: Path, tally: _Tally, results: Iterator[Result]):
    """Writes a shard; leaves no file after an error, or without records."""
    try:
        records.write_records(path, tally.records(results))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    if not tally.examples:
        path.unlink()


def _seal(journal: Journal, file: str, tally: _Tally) -> Account:
    """Flushes a shard to the disk and adds its account to the journal."""
    size, digest = records.seal(journal.shards / file) if tally.examples else (0, "")
    account = Account(
        tally.examples,
        size,
        digest,
        tally.pixels,
        tally.sums,
        tally.squares,
        tally.rejected,
        sorted(tally.formats),
        tally.bits,
        tally.small_grey,
    )
    try:
        journal.add(file, account)
    except OSError as error:
        raise RuntimeError(f"{file} cannot be written: {error.strerror}") from None
    return account


def collected(
    folder: Path, planned: list[Planned], accounts: dict[str, Account], class_names: Sequence[str]
) -> Written:
    """Adds up the accounts of all shards, in their order, and gives the shards their final names.

    Raises:
        EmptyClassError: If a class has no training image left, or a split no image.
    """
    pairs = [(shard, accounts[shard.file]) for shard in planned]
    rejected = [row for _, account in pairs for row in account.rejected]
    splits = {}
    for split in dict.fromkeys(shard.split for shard in planned):
        shards = [pair for pair in pairs if pair[0].split == split]
        if not any(account.examples for _, account in shards):
            raise EmptyClassError(f"no image of the {split} split can be used: {_first(rejected)}")
        splits[split] = {"classes": _class_counts(shards, len(class_names))}
        if split == "train":
            _check_classes(shards, splits[split]["classes"], class_names)
    for split, entry in splits.items():
        shards = [pair for pair in pairs if pair[0].split == split and pair[1].examples]
        entry |= _entry(folder, shards)
    accounts = [account for _, account in pairs]
    small_grey = all(account.small_grey for account in accounts)
    return Written(splits, *_moments(accounts), rejected, accounts[0].bits, small_grey)


def _class_counts(shards: list[tuple[Planned, Account]], classes: int) -> list[int]:
    """Counts the images of each class that became records, without unlabelled images."""
    counts = [0] * classes
    for shard, account in shards:
        lost = Counter(name for name, _ in account.rejected)
        for example in shard.examples:
            if lost[example.name]:
                lost[example.name] -= 1
            elif example.label != UNLABELLED:
                counts[example.label] += 1
    return counts


def _check_classes(
    shards: list[tuple[Planned, Account]], counts: list[int], class_names: Sequence[str]
):
    """Refuses classes whose images were all rejected; a source may name classes without images."""
    if all(counts):
        return
    labels = {example.name: example.label for shard, _ in shards for example in shard.examples}
    empty = {label for label in labels.values() if label != UNLABELLED and not counts[label]}
    if empty:
        rows = [row for _, account in shards for row in account.rejected if labels[row[0]] in empty]
        names = [class_names[label] for label in sorted(empty)]
        raise EmptyClassError(
            f"no training image of the class {shortened(names)} can be used: {_first(rows)}; "
            "expected one or more of every class"
        )


def _entry(folder: Path, shards: list[tuple[Planned, Account]]) -> dict:
    """Renames the non-empty shards of a split, numbering them, and describes them."""
    rows = []
    for i, (shard, account) in enumerate(shards):
        name = records.shard_name(shard.split, i, len(shards))
        if name != shard.file:
            (folder / shard.file).rename(folder / name)
        facts = {"examples": account.examples, "bytes": account.bytes, "sha256": account.sha256}
        rows.append({"file": name, **facts})
    formats = {format for _, account in shards for format in account.formats}
    return {
        "examples": sum(row["examples"] for row in rows),
        "encoding": min(formats).lower() if len(formats) == 1 else "mixed",
        "shards": rows,
    }


def _moments(accounts: list[Account]) -> tuple[list[float], list[float]]:
    """Returns the mean and the standard deviation, at least 1 so that division by it is safe."""
    pixels, sums, squares = 0, np.zeros(3), np.zeros(3)
    for account in accounts:
        pixels += account.pixels
        sums += account.sums
        squares += account.squares
    mean = sums / pixels
    return mean.tolist(), np.sqrt(np.maximum(squares / pixels - mean**2, 1)).tolist()


def _first(rejected: list[list[str]]) -> str:
    return ", ".join(f"{name} ({reason})" for name, reason in rejected[:3])


def write_table(path: Path, rejected: Iterable[Sequence[str]]):
    """Writes `rejected.csv`: name and reason of every image that did not become a record."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("path", "reason"), *rejected])
    write(path, os.fsencode(table.getvalue()))  # a name may be of bytes that are not UTF-8
