"""Examines images before a training: `python -m data.doctor IMAGES`, or SHARDS.

Decodes every image, counts every class, and looks for faults that would spoil a training: the same
image in several classes or splits, classes without images, damaged shards. Changes nothing. Exit
codes: 0 no such fault, 1 a fault that would spoil a training, 2 wrong input.
"""

import argparse
import contextlib
import functools
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from data.checks.checkup import TINY, Checkup, Unsound, examine_file, examine_record
from data.checks.findings import Finding, Place, Report
from data.checks.survey import Survey
from data.images.examples import Example, Source
from data.images.names import SPLIT_ORDER
from data.images.workers import UNREADABLE, DiskError, Rejected, bits_in_use, map_examples
from data.sources.sources import open_source
from runtime import console
from runtime.cores import cores

with console.quiet_import():
    from data.checks.integrity import examine_shard
    from data.conversion.conversion import MAX_BAD
    from data.conversion.description import DESCRIPTION
    from data.conversion.writer import allowed_bad
    from data.opening import is_converted
    from data.shards.datasets import Dataset, described


def examine_source(source: Source, *, workers: int | None = None) -> Report:
    """Examines images that are not converted yet.

    Args:
        source: The images, opened with `lenient`, so that faults are found and not refused.
        workers: Number of decoding processes (default: one per core).

    Returns:
        The report.

    Raises:
        RuntimeError: If a worker fails for another reason than an image.
    """
    workers = workers or cores()
    with tempfile.TemporaryDirectory() as scratch:
        listed = source.list_splits(Path(scratch))
        splits = {split: listed[split] for split in SPLIT_ORDER if split in listed}
        survey = Survey(
            source.class_names,
            list(splits),
            [
                Place(split, example.name)
                for split, split_examples in splits.items()
                for example in split_examples
            ],
            [example.label for split_examples in splits.values() for example in split_examples],
            folders=source.classes_are_folders,
        )
        bits = 16
        if not source.eight_bit:
            with contextlib.suppress(DiskError):  # which is a finding
                bits = bits_in_use(splits["train"], workers)
        examine = functools.partial(examine_file, bits=bits)
        _decode(
            survey,
            [example for split_examples in splits.values() for example in split_examples],
            examine,
            workers,
            source.name,
        )
    if source.storage:
        _expect_tiny(survey, source.storage.short_side)
    unusable = sum(split.unusable for split in survey.splits().values())
    images = sum(map(len, splits.values()))
    if unusable > (allowed := allowed_bad(images, MAX_BAD)):
        detail = f"{unusable:,} of {images:,} images, expected at most {allowed:,.0f}"
        survey.findings.append(Finding("too_many_bad", detail=detail))
    if source.validation_fraction and "validation" not in splits:
        survey.findings.append(Finding("no_validation", detail="no class has two images"))
    passed_over = source.passed_over.parts(survey.unreadable)
    return _report(source.name, survey, joined=source.joined, passed_over=passed_over)


def examine_shards(dataset: Dataset, *, workers: int | None = None) -> Report:
    """Examines a conversion: its files, its records, its images.

    Args:
        dataset: The data set as described.
        workers: Processes that decode; None for one per core.

    Returns:
        The report.

    Raises:
        RuntimeError: If a worker fails for another reason than an image.
    """
    shards = [
        (shard, split) for split, split_shards in dataset.splits.items() for shard in split_shards
    ]
    with _bar(len(shards), dataset.folder.name, "shards") as bar:
        contents = []
        for shard, split in shards:
            contents.append(examine_shard(shard, split, dataset))
            bar.update()
    images = [image for each in contents for image in each.images]
    survey = Survey(
        dataset.class_names,
        list(dataset.splits),
        [place for each in contents for place in each.places],
        [image.label for image in images],
        folders=False,
    )
    survey.findings += [finding for each in contents for finding in each.findings]
    workers = workers or cores()
    _decode(survey, images, examine_record, workers, dataset.folder.name)
    _expect_tiny(survey, dataset.storage["short_side"])
    return _report(
        str(dataset.folder), survey, joined=dataset.joined, passed_over=dataset.passed_over
    )


def _decode(
    survey: Survey,
    examples: list[Example],
    examine: Callable[[Example], Checkup | Unsound],
    workers: int,
    name: str,
):
    """Examines all images in worker processes."""
    results = map_examples(examples, examine, workers)
    with _bar(len(examples), name, "images") as bar, contextlib.closing(results):
        for result in results:
            if isinstance(result, Rejected):
                is_closed = result.reason.startswith(UNREADABLE)
                result = Unsound("unreadable" if is_closed else "damaged", result.reason)
            survey.add(result)
            bar.update()


def _expect_tiny(survey: Survey, short_side: int):
    """Removes the findings about small images if the images are meant to be small."""
    if 0 < short_side < TINY:
        survey.findings = [each for each in survey.findings if each.kind != "tiny"]


def _bar(total: int, name: str, unit: str) -> tqdm:
    return tqdm(total=total, desc=name, unit=f" {unit}", disable=not sys.stderr.isatty())


def _report(data: str, survey: Survey, *, joined: str, passed_over: Sequence[str]) -> Report:
    findings = [*survey.findings, *survey.classes(), *survey.copies()]
    splits = survey.splits()
    return Report(data, survey.class_names, splits, findings, joined, tuple(passed_over))


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = console.Parser(prog="python -m data.doctor", description=__doc__, allow_abbrev=False)
    parser.add_argument("data", help="digits, tfds:NAME, a folder of images, or converted shards")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.add_argument("--all", action="store_true", help="show all findings of each kind")
    parser.add_argument(
        "--workers", type=int, help="number of decoding processes (default: one per core)"
    )
    parser.add_argument("--val_data", help="separate folder of images for validation")
    parser.add_argument(
        "--validation_fraction",
        type=float,
        default=0.1,
        help="fraction of train held out if there is no validation split (default: 0.1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the split (default: 0)")
    return parser.parse_args(argv)


def _examine(args: argparse.Namespace) -> Report:
    if args.workers is not None and args.workers < 1:
        raise ValueError(f"expected --workers of at least 1, received {args.workers}")
    console.refuse_ambiguous(args.data, "digits")
    if is_converted(args.data):
        if args.val_data is not None:
            raise ValueError(f"expected no --val_data with shards, received {args.val_data}")
        if not (Path(args.data) / DESCRIPTION).is_file():
            raise ValueError(f"{args.data}: expected shards with a {DESCRIPTION}")
        return examine_shards(described(args.data), workers=args.workers)
    source = open_source(
        args.data,
        val_data=args.val_data,
        validation_fraction=args.validation_fraction,
        seed=args.seed,
        lenient=True,
    )
    return examine_source(source, workers=args.workers)


def main(argv: list[str] | None = None):
    """Examines the data that the command line names and prints the report."""
    args = _parse(argv)
    with console.user_errors():
        report = _examine(args)
    if args.json:
        print(report.as_json())
    else:
        print(report.as_text(**({"first": None} if args.all else {})))
    sys.exit(console.FAILED if report.spoils else 0)


if __name__ == "__main__":
    console.open_streams(exit_on_closed_pipe=True)
    main()
