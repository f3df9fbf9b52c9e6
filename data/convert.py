"""Converts images to shards once: `python -m data.convert SOURCE OUTPUT`, or train.py by itself.

Worker processes decode, reduce and encode; this process writes the shards, in an order shuffled
over the whole split. Everything is written into OUTPUT.partial and renamed at the end, so that a
folder with a dataset.json is complete whatever happened. A conversion that was stopped, in any
way, goes on after its last whole shard when it is started again. The same source and options give
the same bytes, however many workers there are and however often it was stopped.
"""

import argparse
import collections
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

import console
from data import cache
from data.decode import ENCODINGS, Storage, storage_for
from data.examples import Source
from data.journal import SCRATCH, SHARDS, Journal, has_shards
from data.sources import open_source
from data.unfinished import claimed, publish, remove

with console.quiet_import():
    from data.datasets import SHARD_NAME, Dataset, load
    from data.description import DESCRIPTION, fingerprint, made_with, write_description
    from data.estimate import check_space, estimate, size
    from data.plan import Planned, plan
    from data.shards import write_shards


MAX_BAD = 0.001  # part of all images that may be rejected


class AlreadyConvertedError(ValueError):
    """The output holds a conversion."""


def convert(
    source: Source,
    output: str | os.PathLike,
    storage: Storage,
    *,
    shards: int | None = None,
    workers: int | None = None,
    max_bad: float = MAX_BAD,
    progress: bool = True,
    on_wait: Callable[[], object] | None = None,
) -> dict:
    """Converts every split of a source.

    What `OUTPUT.partial` holds of the same conversion is kept; an error or a signal leaves it there
    if it holds a whole shard.

    Args:
        source: What to convert; its seed decides the stored order.
        output: Folder to make; it may exist if it is empty.
        storage: How to store the images.
        shards: Of the train split, the others in proportion; None for about 1,250 images each.
        workers: Processes that decode; None for one per core.
        max_bad: Part of all images, 0..1, that may be rejected (10 images always may).
        progress: Whether to report on stderr: a bar on a terminal, else a line at either end.
        on_wait: Called before waiting for another process that is converting into `output`; None
            not to wait.

    Returns:
        The content of dataset.json.

    Raises:
        ValueError: If `output` is taken or a number is out of range.
        OSError: If the disk has too little space.
        RuntimeError: If too many images are rejected, a split has none left, or writing fails.
    """
    _check_numbers(shards, workers, max_bad)
    output = Path(output)
    _check_free(output)
    try:
        with claimed(output, on_wait) as folder, _leaving(folder, output):
            _check_free(output)  # another process may have made it just now
            description = _convert(
                source,
                folder,
                storage,
                shards=shards,
                workers=workers or os.cpu_count() or 1,
                max_bad=max_bad,
                progress=progress,
            )
            publish(folder / SHARDS, output)
            return description
    except FileExistsError:
        _check_free(output)
        raise


def _convert(
    source: Source,
    folder: Path,
    storage: Storage,
    *,
    shards: int | None,
    workers: int,
    max_bad: float,
    progress: bool,
) -> dict:
    """Makes, in a claimed folder, the shards that it lacks, and at last their description."""
    say = _say if progress else _say_nothing
    with _scratch(folder) as scratch:
        planned = plan(source.list_splits(scratch), storage, seed=source.seed, shards=shards)
        journal = Journal(folder, _key(source, storage, planned), say)
        kept = journal.kept([shard.file for shard in planned], say)
        left = [
            example for shard in planned if shard.file not in kept for example in shard.examples
        ]
        expected = estimate(left, storage, workers, scratch)
        free = check_space(folder, left, storage, expected)
        if expected:
            say(f"{expected} of {size(free)} that are free")
        with _progress(len(left), source.name, progress) as advance:
            written = write_shards(
                journal, planned, kept, storage, workers=workers, max_bad=max_bad, advance=advance
            )
    return write_description(journal.shards, source, storage, written)


def _key(source: Source, storage: Storage, planned: list[Planned]) -> dict:
    """All that the bytes of a conversion depend on."""
    return {
        "fingerprint": fingerprint(source, storage),
        "shards": collections.Counter(shard.split for shard in planned),
        "made_with": made_with(),
    }


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Yields a new folder and removes it; one that a killed process left is removed first."""
    scratch = folder / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _leaving(folder: Path, output: Path) -> Iterator[None]:
    """Removes a claimed folder at the end, unless a conversion can go on from there."""
    try:
        yield
    finally:
        if has_shards(folder) and not (output / DESCRIPTION).exists():
            _say(f"{folder} is kept: started again, the conversion goes on from there")
        else:
            remove(folder)


def _say(line: str):
    print(line, file=sys.stderr, flush=True)


def _say_nothing(line: str):
    pass


def prepare(
    data: str | os.PathLike,
    *,
    image_size: int,
    val_data: str | os.PathLike | None = None,
    validation_fraction: float = 0.1,
    check: Callable[[], object] = lambda: None,
    expected: str | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Returns the folder of shards for `data`, converted into the cache where need be.

    The cache is `$CONVNETS_CACHE`, else `~/.cache/convnets`. A conversion is used again until the
    source or an option changes; says in one line on stdout what it does, and in another if it waits
    for a process that is doing the same.

    Args:
        data: As for `open_source`, or a folder of shards, which is returned as it is.
        image_size: Side of the crops it is for, in pixels; images are stored with room for them.
        val_data: As for `open_source`.
        validation_fraction: As for `open_source`.
        check: Called before a conversion: may raise what would make it useless.
        expected: The fingerprint that the data must have.
        workers: As for `convert`.
        progress: As for `convert`.

    Raises:
        ValueError, FileNotFoundError: As `open_source`.
        OSError, RuntimeError: As `convert`.
    """
    if is_converted(data):
        if val_data is not None:
            raise ValueError(f"val_data goes with a folder of images, not with shards: {val_data}")
        return Path(data)
    source = open_source(data, val_data=val_data, validation_fraction=validation_fraction)
    storage = source.storage or storage_for(image_size)
    found = fingerprint(source, storage)
    _check_fingerprint(data, expected, found)
    folder = cache.folder() / f"{source.name}-{found[:16]}"
    if (folder / DESCRIPTION).is_file():
        print(f"{data}: converted before, in {folder}", flush=True)
        return folder
    check()
    print(f"{data}: converting, once, into {folder}", flush=True)

    def on_wait():
        print(f"{data}: another process is doing that, waiting for it", flush=True)

    with contextlib.suppress(AlreadyConvertedError):  # by that process
        convert(source, folder, storage, workers=workers, progress=progress, on_wait=on_wait)
    return folder


def open_dataset(
    data: str | os.PathLike, *, expected: str | None = None, verify: bool = False, **options
) -> Dataset:
    """Opens `data` as shards, converted where need be.

    Args:
        data: As for `prepare`.
        expected: The fingerprint that the data must have.
        verify: Whether to compare every shard's sha256, which reads all bytes.
        **options: As for `prepare`.

    Raises:
        ValueError: If the data has changed, or a shard is damaged; and as `prepare`.
    """
    dataset = load(prepare(data, expected=expected, **options), verify=verify)
    _check_fingerprint(data, expected, dataset.fingerprint)
    return dataset


def _check_fingerprint(data: str | os.PathLike, expected: str | None, found: str):
    if expected not in (None, found):
        raise ValueError(f"{data} has changed: expected fingerprint {expected}, received {found}")


def is_converted(data: str | os.PathLike) -> bool:
    """Whether a path is a folder of shards, ours or another tool's."""
    folder = Path(data)
    if data == "digits" or not folder.is_dir():
        return False
    return (folder / DESCRIPTION).is_file() or any(
        SHARD_NAME.fullmatch(path.name) for path in folder.iterdir() if path.is_file()
    )


def _check_free(output: Path):
    if (output / DESCRIPTION).exists():
        raise AlreadyConvertedError(
            f"{output} holds a conversion already, expected a folder to make"
        )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} exists already, expected a folder to make or an empty one")


def _check_numbers(shards: int | None, workers: int | None, max_bad: float):
    for name, value in (("shards", shards), ("workers", workers)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1: {value}")
    if not 0 <= max_bad <= 1:
        raise ValueError(f"max_bad must be 0 to 1: {max_bad}")


@contextlib.contextmanager
def _progress(images: int, name: str, wanted: bool) -> Iterator[Callable[[], object]]:
    """Yields what to call after every image."""
    terminal = wanted and sys.stderr.isatty()
    start = time.monotonic()
    if wanted and not terminal:
        print(f"converting {images} images of {name}", file=sys.stderr, flush=True)
    with tqdm(total=images, desc=name, unit=" images", disable=not terminal) as bar:
        yield bar.update
    if wanted and not terminal:
        seconds = time.monotonic() - start
        rate = f"{images / seconds:,.0f} images/s"
        print(f"converted {images} images in {seconds:.0f} s, {rate}", file=sys.stderr, flush=True)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = console.Parser(prog="python -m data.convert", description=__doc__, allow_abbrev=False)
    parser.add_argument("source", help="digits, tfds:NAME or a folder of images")
    parser.add_argument("output", help="folder to make")
    parser.add_argument("--short_side", type=int, help="pixels; 0 keeps every size (256)")
    parser.add_argument("--quality", type=int, help="of JPEGs, 1 to 100 (95)")
    parser.add_argument("--encoding", choices=ENCODINGS, help="raw: decoded squares (jpeg)")
    parser.add_argument("--shards", type=int, help="of the train split (1,250 images each)")
    parser.add_argument("--workers", type=int, help="processes (one per core)")
    parser.add_argument("--validation_fraction", type=float, default=0.1, help="held out (0.1)")
    parser.add_argument("--seed", type=int, default=0, help="of split and stored order (0)")
    parser.add_argument("--max_bad", type=float, default=MAX_BAD, help="tolerated part (0.001)")
    parser.add_argument("--val_data", help="separate folder for validation")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None):
    """Converts what the command line names and prints a summary."""
    args = _parse(argv)
    with console.user_errors():
        start = time.monotonic()
        source = open_source(
            args.source,
            val_data=args.val_data,
            validation_fraction=args.validation_fraction,
            seed=args.seed,
        )
        given = {name: getattr(args, name) for name in asdict(Storage())}
        given = {name: value for name, value in given.items() if value is not None}
        description = convert(
            source,
            args.output,
            replace(source.storage or Storage(), **given),
            shards=args.shards,
            workers=args.workers,
            max_bad=args.max_bad,
        )
        print(_summary(args.output, description, time.monotonic() - start))


def _summary(output: str, description: dict, seconds: float) -> str:
    splits = description["splits"]
    total = sum(shard["bytes"] for split in splits.values() for shard in split["shards"])
    counts = ", ".join(f"{name} {split['examples']:,}" for name, split in splits.items())
    rejected = f"{description['rejected']} rejected"
    return (
        f"{output}: {counts}; {len(description['class_names'])} classes; {rejected}; "
        f"{size(total)}; {seconds:,.0f} s"
    )


if __name__ == "__main__":
    main()
