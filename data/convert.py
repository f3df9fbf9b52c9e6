"""Converts images to shards: `python -m data.convert SOURCE OUTPUT`; train.py does it by itself.

Worker processes decode, reduce and encode images; this process writes the shards, in an order
shuffled over the whole split. Everything is written to OUTPUT.partial, which is renamed at the end:
a folder with a dataset.json is always complete. A conversion that was stopped in any way continues
after its last complete shard when it is started again. Several tasks, on any machines, can share a
conversion. The same source and options give the same bytes, for any number of workers, tasks and
interruptions.
"""

import argparse
import functools
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from data.images.decode import ENCODINGS, Storage
from data.sources.sources import open_source
from runtime import console

with console.quiet_import():
    from data import opening
    from data.conversion import tasks
    from data.conversion.conversion import MAX_BAD, Conversion, run
    from data.conversion.plan import Task
    from data.shards.datasets import described


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = console.Parser(prog="python -m data.convert", description=__doc__, allow_abbrev=False)
    parser.add_argument("source", help="digits, tfds:NAME, a folder of images or an archive of one")
    parser.add_argument("output", help="folder to create")
    parser.add_argument(
        "--short_side",
        type=int,
        help="shorter side in pixels; 0 keeps the size of every image (default: 256)",
    )
    parser.add_argument(
        "--quality",
        type=int,
        help="JPEG quality, 1 to 100; stores all images as JPEG (default: 90, 95 if not reduced)",
    )
    parser.add_argument(
        "--encoding",
        choices=ENCODINGS,
        help="jpeg; raw: decoded squares; auto: JPEG, or lossless like the input (default: auto)",
    )
    parser.add_argument(
        "--shards",
        type=int,
        help="number of shards of the train split (default: one per 1,250 images)",
    )
    parser.add_argument(
        "--workers", type=int, help="number of decoding processes (default: one per core)"
    )
    parser.add_argument(
        "--validation_fraction",
        type=float,
        default=0.1,
        help="fraction of train held out if there is no validation split (default: 0.1)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the split and the stored order (default: 0)"
    )
    parser.add_argument(
        "--max_bad",
        type=float,
        default=MAX_BAD,
        help="fraction of the images that may be rejected (default: 0.001)",
    )
    parser.add_argument("--val_data", help="separate folder of images for validation")
    part = parser.add_mutually_exclusive_group()
    part.add_argument(
        "--task", type=_task, help="I/N: run task I of N, from 0; the last to finish publishes"
    )
    part.add_argument("--finish", action="store_true", help="publish the shards of all tasks")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None):
    """Converts the images that the command line names and prints a summary."""
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
        options = {name: getattr(args, name) for name in ("short_side", "quality", "encoding")}
        options = {name: value for name, value in options.items() if value is not None}
        if args.quality and not args.encoding:
            options["encoding"] = "jpeg"
        conversion = Conversion(
            source,
            Path(args.output),
            replace(source.storage or Storage(), **options),
            shards=args.shards,
            workers=args.workers,
            max_bad=args.max_bad,
        )
        if description := _work(args)(conversion):
            print(_summary(args.output, description, time.monotonic() - start))
            print(*opening.summary_lines(described(args.output)), sep="\n")


def _work(args: argparse.Namespace) -> Callable[[Conversion], dict | None]:
    if args.task:
        return functools.partial(tasks.run, task=args.task)
    return tasks.finish if args.finish else run


def _task(text: str) -> Task:
    """Reads the value of `--task`."""
    if match := re.fullmatch(r"([0-9]+)/([0-9]+)", text):
        task = Task(*map(int, match.groups()))
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
        f"stored as {stored}; {console.size(total)}; {seconds:,.0f} s"
    )


if __name__ == "__main__":
    console.open_streams()
    main()
