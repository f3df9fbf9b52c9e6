"""Converts images to shards once: `python -m data.convert SOURCE OUTPUT`, or train.py by itself.

Worker processes decode, reduce and encode; this process writes the shards, in an order shuffled
over the whole split. Everything is written into OUTPUT.partial and renamed at the end, so that a
folder with a dataset.json is complete whatever happened. A conversion that was stopped, in any
way, goes on after its last whole shard when it is started again. Several tasks, on any machines,
can make it together. The same source and options give the same bytes, however many workers and
tasks there are and however often it was stopped.
"""

import argparse
import contextlib
import functools
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import console
from data import cache, reading
from data.decode import ENCODINGS, Storage, storage_for
from data.examples import Source
from data.sources import open_source
from data.unfinished import claimed

with console.quiet_import():
    from data import tasks
    from data.conversion import MAX_BAD, AlreadyConvertedError, Conversion, leaving
    from data.datasets import SHARD_NAME, Dataset, described, load
    from data.description import DESCRIPTION, REJECTED, fingerprint
    from data.estimate import size
    from data.plan import Task


def convert(
    source: Source,
    output: str | os.PathLike,
    storage: Storage,
    *,
    on_wait: Callable[[], object] | None = None,
    **options,
) -> dict:
    """Converts every split of a source.

    What `OUTPUT.partial` holds of the same conversion is kept; an error or a signal leaves it there
    if it holds a whole shard.

    Args:
        source: As for `Conversion`.
        output: As for `Conversion`.
        storage: As for `Conversion`.
        on_wait: Called before waiting for another process that is converting into `output`; None
            not to wait.
        **options: As for `Conversion`.

    Returns:
        The content of dataset.json.

    Raises:
        ValueError: If `output` is taken, a number is out of range, too many images are rejected,
            all training images of a class, or all of a split.
        OSError: If the disk has too little space.
        RuntimeError: If writing fails.
    """
    return _convert(Conversion(source, Path(output), storage, **options), on_wait)


def _convert(conversion: Conversion, on_wait: Callable[[], object] | None = None) -> dict:
    conversion.check_free()
    with claimed(conversion.output, on_wait) as folder, leaving(folder, conversion.output):
        conversion.check_free()  # another process may have made it just now
        planned = conversion.make(folder, Task())
        return conversion.finish(folder, planned, tasks=1)


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
) -> tuple[Path, Source | None]:
    """Finds the folder of shards for `data`, converted into the cache where need be.

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
        workers: As for `Conversion`.
        progress: As for `Conversion`.

    Returns:
        The folder, and its source; None of a folder of shards.

    Raises:
        ValueError, FileNotFoundError: As `open_source`.
        OSError, RuntimeError: As `convert`.
    """
    if is_converted(data):
        if val_data is not None:
            raise ValueError(f"val_data goes with a folder of images, not with shards: {val_data}")
        return Path(data), None
    source = open_source(data, val_data=val_data, validation_fraction=validation_fraction)
    storage = source.storage or storage_for(image_size)
    earlier = _earlier(storage)
    is_earlier = earlier != storage and fingerprint(source, earlier) == expected
    found = fingerprint(source, earlier if is_earlier else storage)
    _check_fingerprint(data, expected, found)
    folder = cache.folder() / f"{source.name}-{found[:16]}"
    if (folder / DESCRIPTION).is_file():
        print(f"{data}: converted before, in {folder}", flush=True)
        return folder, source
    if is_earlier:
        raise ValueError(
            f"{data}: expected what an earlier version converted into {folder}, found nothing "
            "there: the run cannot go on; test.py RUN --data=... tests it on a new conversion"
        )
    check()
    print(f"{data}: converting, once, into {folder}", flush=True)

    def on_wait():
        print(f"{data}: another process is doing that, waiting for it", flush=True)

    with contextlib.suppress(AlreadyConvertedError):  # by that process
        convert(source, folder, storage, workers=workers, progress=progress, on_wait=on_wait)
    return folder, source


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
    folder, source = prepare(data, expected=expected, **options)
    dataset = load(folder, verify=verify)
    _check_fingerprint(data, expected, dataset.fingerprint)
    if source is None:
        return dataset
    # What is passed over changes no record: there may be more of it since the conversion.
    passed_over = tuple(source.passed_over.parts(dataset.unreadable))
    return replace(dataset, passed_over=passed_over, joined=source.joined)


def _check_fingerprint(data: str | os.PathLike, expected: str | None, found: str):
    if expected not in (None, found):
        raise ValueError(f"{data} has changed: expected fingerprint {expected}, received {found}")


def _earlier(storage: Storage) -> Storage:
    """How earlier versions stored images by default: their runs expect it."""
    encoding = "jpeg" if storage.encoding == "auto" else storage.encoding
    return Storage(storage.short_side, quality=95, encoding=encoding)


def told(dataset: Dataset) -> list[str]:
    """Returns the lines that say what a data set was made of."""
    names, counts = dataset.class_names, dataset.class_counts
    lines = reading.taken(
        names, counts.get("train"), joined=dataset.joined, passed_over=dataset.passed_over
    )
    left_out, listed = dataset.rejected - dataset.unreadable, dataset.folder / REJECTED
    lines += reading.lacking(names, counts, left_out=left_out, listed=listed)
    return list(map(console.printable, lines))


def is_converted(data: str | os.PathLike) -> bool:
    """Whether a path is a folder of shards, ours or another tool's."""
    folder = Path(data)
    if data == "digits" or not folder.is_dir():
        return False
    return _is_described(folder / DESCRIPTION) or any(
        SHARD_NAME.fullmatch(path.name) for path in folder.iterdir() if path.is_file()
    )


def _is_described(path: Path) -> bool:
    """Whether a file is a description of shards, damaged or not: other tools use its name too."""
    if not path.is_file():
        return False
    try:
        return "format_version" in json.loads(path.read_bytes())
    except (ValueError, TypeError):
        return True  # which is said when it is opened


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = console.Parser(prog="python -m data.convert", description=__doc__, allow_abbrev=False)
    parser.add_argument("source", help="digits, tfds:NAME, a folder of images or an archive of one")
    parser.add_argument("output", help="folder to make")
    parser.add_argument("--short_side", type=int, help="pixels; 0 keeps every size (256)")
    parser.add_argument("--quality", type=int, help="1 to 100; stores all images as JPEG")
    parser.add_argument(
        "--encoding",
        choices=ENCODINGS,
        help="jpeg, or raw: decoded squares (auto: JPEG, but without loss what comes without)",
    )
    parser.add_argument("--shards", type=int, help="of the train split (1,250 images each)")
    parser.add_argument("--workers", type=int, help="processes (one per core)")
    parser.add_argument("--validation_fraction", type=float, default=0.1, help="held out (0.1)")
    parser.add_argument("--seed", type=int, default=0, help="of split and stored order (0)")
    parser.add_argument("--max_bad", type=float, default=MAX_BAD, help="tolerated part (0.001)")
    parser.add_argument("--val_data", help="separate folder for validation")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--task", type=_task, help="I/N: one of N tasks, from 0; the last publishes")
    part.add_argument("--finish", action="store_true", help="publish what tasks have made")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None):
    """Converts what the command line names and prints a summary."""
    args = _parse(argv)
    with console.user_errors():
        start = time.monotonic()
        console.refuse_ambiguous(args.source, "digits")
        source = open_source(
            args.source,
            val_data=args.val_data,
            validation_fraction=args.validation_fraction,
            seed=args.seed,
        )
        given = {name: getattr(args, name) for name in ("short_side", "quality", "encoding")}
        given = {name: value for name, value in given.items() if value is not None}
        if args.quality and not args.encoding:
            given["encoding"] = "jpeg"
        conversion = Conversion(
            source,
            Path(args.output),
            replace(source.storage or Storage(), **given),
            shards=args.shards,
            workers=args.workers,
            max_bad=args.max_bad,
        )
        if description := _work(args)(conversion):
            print(_summary(args.output, description, time.monotonic() - start))
            print(*told(described(args.output)), sep="\n")


def _work(args: argparse.Namespace) -> Callable[[Conversion], dict | None]:
    if args.task:
        return functools.partial(tasks.run, task=args.task)
    return tasks.finish if args.finish else _convert


def _task(text: str) -> Task:
    """Reads the value of `--task`."""
    if found := re.fullmatch(r"([0-9]+)/([0-9]+)", text):
        task = Task(*map(int, found.groups()))
        if task.index < task.count:
            return task
    raise argparse.ArgumentTypeError(f"expected I/N with I from 0 to N-1, received {text}")


def _summary(output: str, description: dict, seconds: float) -> str:
    splits = description["splits"]
    total = sum(shard["bytes"] for split in splits.values() for shard in split["shards"])
    counts = ", ".join(f"{name} {split['examples']:,}" for name, split in splits.items())
    rejected = f"{description['rejected']} rejected"
    stored = ", ".join(sorted({split["encoding"] for split in splits.values()}))
    return (
        f"{output}: {counts}; {len(description['class_names'])} classes; {rejected}; "
        f"stored as {stored}; {size(total)}; {seconds:,.0f} s"
    )


if __name__ == "__main__":
    main()
