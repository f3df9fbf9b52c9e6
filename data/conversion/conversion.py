"""Runs a conversion: writes shards in a claimed folder, describes and publishes them."""

import collections
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from data.conversion.description import (
    DESCRIPTION,
    REJECTED,
    made_with,
    write_description,
)
from data.conversion.estimate import check_space, estimate
from data.conversion.identity import fingerprint
from data.conversion.journal import SCRATCH, SHARDS, Journal, PartialError, has_shards
from data.conversion.plan import Planned, Task, plan
from data.conversion.writer import EmptyClassError, Limit, collected, write_shards
from data.images.decode import Storage
from data.images.examples import Source
from data.images.workers import bits_in_use
from data.shards.datasets import described
from runtime import console
from runtime.cores import cores
from runtime.files import claimed, publish, remove

_MANY = 10_000  # images whose first bytes take some time to read
MAX_BAD = 0.001  # part of all images that may be rejected


class AlreadyConvertedError(ValueError):
    """The output holds a conversion already."""


@dataclass(frozen=True)
class Conversion:
    """The source, the output and the options of a conversion.

    Attributes:
        source: The images; its seed decides the stored order.
        output: Folder to create; it may exist if it is empty.
        storage: How to store the images.
        shards: Shards of the train split, the others in proportion; None for about 1,250 images
            each.
        workers: Processes that decode; None for one per core.
        max_bad: Part of all images, 0..1, that may be rejected (10 images always may).
        progress: Whether to report on stderr: a bar on a terminal, else lines at begin and end.

    Raises:
        ValueError: If a number is out of range.
    """

    source: Source
    output: Path
    storage: Storage
    shards: int | None = None
    workers: int | None = None
    max_bad: float = MAX_BAD
    progress: bool = True

    def __post_init__(self):
        """Checks the numbers."""
        for name in ("shards", "workers"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"expected {name} of at least 1, received {value}")
        if not 0 <= self.max_bad <= 1:
            raise ValueError(f"expected max_bad from 0 to 1, received {self.max_bad}")

    def check_free(self):
        """Refuses an output that is taken.

        Raises:
            AlreadyConvertedError: If it holds a conversion.
            ValueError: If it holds something else.
        """
        if (self.output / DESCRIPTION).exists():
            raise AlreadyConvertedError(
                f"{self.output} holds a conversion already, expected a folder to create"
            )
        if self.output.exists() and (not self.output.is_dir() or any(self.output.iterdir())):
            raise ValueError(
                f"{self.output} exists already, expected a folder to create or an empty one"
            )

    def is_published(self) -> bool:
        """Whether the output holds this conversion.

        Raises:
            ValueError: If it holds something else.
        """
        if (self.output / DESCRIPTION).is_file():
            if described(self.output).fingerprint == fingerprint(self.source, self.storage):
                return True
        self.check_free()
        return False

    def plan(self, scratch: Path) -> list[Planned]:
        """Plans all shards; images that lie in no file are written to a scratch folder."""
        splits = self.source.list_splits(scratch)
        return plan(splits, self.storage, seed=self.source.seed, shards=self.shards)

    def make(self, folder: Path, task: Task) -> list[Planned]:
        """Writes a task's shards, except those that exist already.

        Args:
            folder: The claimed folder.
            task: The task, which has a share of the shards.

        Returns:
            All shards of the conversion.

        Raises:
            OSError: If the disk has too little space.
            PartialError: If the folder is of another conversion, or of other tasks.
            ValueError: If too many images are rejected.
            RuntimeError: If writing fails.
        """
        with scratch_folder(folder, task) as scratch:
            planned = self.plan(scratch)
            share = task.share(planned)
            journal = self._journal(folder, planned, task.count)
            kept = journal.kept([shard.file for shard in share], self.say)
            limit = self._limit(planned)
            limit.add(row for account in kept.values() for row in account.rejected)
            if left := [shard for shard in share if shard.file not in kept]:
                storage = replace(self.storage, bits=self._bits(planned))
                self._write(folder, journal, left, storage, limit, scratch)
        return planned

    def finish(self, folder: Path, planned: list[Planned], tasks: int) -> dict:
        """Describes and publishes the shards of all tasks.

        Args:
            folder: The folder of the shards, claimed by this process alone.
            planned: All shards of the conversion.
            tasks: Number of tasks.

        Returns:
            The content of dataset.json.

        Raises:
            PartialError: If shards are missing, or the folder is of another conversion.
            ValueError: If too many images are rejected, all training images of a class, or all of
                a split.
        """
        journal = self._journal(folder, planned, tasks)
        accounts = journal.complete([shard.file for shard in planned])
        if missing := [i for i, shard in enumerate(planned) if shard.file not in accounts]:
            makers = sorted({i % tasks for i in missing})
            raise PartialError(
                f"{folder}: missing shards: {len(missing)} of {len(planned)}, those of "
                f"{', '.join(f'--task={Task(i, tasks)}' for i in makers)}"
            )
        rejected = (row for account in accounts.values() for row in account.rejected)
        self._limit(planned).add(rejected)
        written = collected(journal.shards, planned, accounts, self.source.class_names)
        description = write_description(journal.shards, self.source, self.storage, written)
        try:
            publish(folder / SHARDS, self.output)
        except FileExistsError:
            self.check_free()
            raise
        self._too_many.unlink(missing_ok=True)  # from an attempt that accepted fewer
        return description

    def say(self, line: str):
        """Prints a line on stderr, if progress is to be reported."""
        if self.progress:
            _say(line)

    def _journal(self, folder: Path, planned: list[Planned], tasks: int) -> Journal:
        """Opens the journal; its key is everything that the bytes of the shards depend on."""
        key = {
            "fingerprint": fingerprint(self.source, self.storage),
            "shards": dict(collections.Counter(shard.split for shard in planned)),
            "made_with": made_with(),
            "tasks": tasks,
        }
        return Journal(folder, key, self.say)

    @property
    def _workers(self) -> int:
        return self.workers or cores()

    @property
    def _too_many(self) -> Path:
        """The table of the rejected images if there are too many."""
        return self.output.with_name(f"{self.output.name}.{REJECTED}")

    def _limit(self, planned: list[Planned]) -> Limit:
        return Limit(planned, self.max_bad, self._too_many)

    def _bits(self, planned: list[Planned]) -> int:
        """Returns the bits in use in training images with 16 bits per channel."""
        if self.source.eight_bit:
            return self.storage.bits
        train = [each for shard in planned if shard.split == "train" for each in shard.examples]
        if len(train) > _MANY:
            self.say(f"looking for 16 bits per channel in {len(train):,} images")
        return bits_in_use(train, self._workers)

    def _write(
        self,
        folder: Path,
        journal: Journal,
        left: list[Planned],
        storage: Storage,
        limit: Limit,
        scratch: Path,
    ):
        examples = [example for shard in left for example in shard.examples]
        workers = self._workers
        expected = estimate(examples, storage, workers, scratch)
        free = check_space(folder, examples, storage, expected)
        if expected:
            self.say(f"{expected} of {console.size(free)} that are free")
        with _progress(len(examples), self.source.name, self.progress) as advance:
            write_shards(journal, left, storage, workers=workers, limit=limit, advance=advance)


def convert(
    source: Source,
    output: str | os.PathLike,
    storage: Storage,
    *,
    on_wait: Callable[[], object] | None = None,
    **options,
) -> dict:
    """Converts every split of a source.

    Shards of the same conversion in `OUTPUT.partial` are used; after an error or a signal that
    folder stays if it holds a complete shard.

    Args:
        source: The images.
        output: Folder to create; it may exist if it is empty.
        storage: How to store the images.
        on_wait: Function called before waiting for another process that is converting into
            `output`; None raises an error instead of waiting.
        **options: The other attributes of `Conversion`.

    Returns:
        The content of dataset.json.

    Raises:
        ValueError: If `output` is taken, a number is out of range, too many images are rejected,
            all training images of a class, or all of a split.
        OSError: If the disk has too little space.
        RuntimeError: If writing fails.
    """
    return run(Conversion(source, Path(output), storage, **options), on_wait)


def run(conversion: Conversion, on_wait: Callable[[], object] | None = None) -> dict:
    """Runs a whole conversion, as `convert` does."""
    conversion.check_free()
    with claimed(conversion.output, on_wait) as folder, leaving(folder, conversion.output):
        conversion.check_free()  # another process may have made it just now
        planned = conversion.make(folder, Task())
        return conversion.finish(folder, planned, tasks=1)


@contextlib.contextmanager
def scratch_folder(folder: Path, task: Task) -> Iterator[Path]:
    """Yields an empty folder, which is removed afterwards."""
    scratch = folder / f"{SCRATCH}-{task.index}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def leaving(folder: Path, output: Path) -> Iterator[None]:
    """Removes a claimed folder after the block, unless the conversion can continue from it."""
    try:
        yield
    finally:
        useless = isinstance(sys.exception(), EmptyClassError)  # it would fail again
        if useless or not has_shards(folder) or (output / DESCRIPTION).exists():
            remove(folder)
        elif not isinstance(sys.exception(), PartialError):  # its message says why
            _say(f"{folder} is kept: started again, the conversion goes on from there")


def _say(line: str):
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _progress(images: int, name: str, enabled: bool) -> Iterator[Callable[[], object]]:
    """Yields a function to call after every image."""
    terminal = enabled and sys.stderr.isatty()
    start = time.monotonic()
    if enabled and not terminal:
        _say(f"converting {images} images of {name}")
    with tqdm(total=images, desc=name, unit=" images", disable=not terminal) as bar:
        yield bar.update
    if enabled and not terminal:
        seconds = time.monotonic() - start
        rate = f"{images / seconds:,.0f} images/s"
        _say(f"converted {images} images in {seconds:.0f} s, {rate}")
