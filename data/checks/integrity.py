"""Whether shards hold what their description says: every file, every record."""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf

from data.checks.checkup import Recorded
from data.checks.findings import KINDS, Finding, Place
from data.images.examples import UNLABELLED
from data.shards import records
from data.shards.datasets import Dataset, Shard


@dataclass
class Contents:
    """What a shard holds.

    Attributes:
        images: Of sound records; the label is the class, or `UNLABELLED`.
        places: Where every one of them is.
        findings: What is wrong with the shard.
    """

    images: list[Recorded] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def examine_shard(shard: Shard, split: str, dataset: Dataset) -> Contents:
    """Compares a shard with its description and reads its records; decodes no image.

    Args:
        shard: What should be there.
        split: "train", "validation" or "test": only in the last may an image have no label.
        dataset: What it is a part of.

    Returns:
        Its images, and what is wrong: also where a record's length leads out of the file.
    """
    contents, path = Contents(), Path(shard.path)
    place = Place(split, shard=path.name)
    if not path.is_file():
        contents.findings.append(
            Finding("missing_shard", (place,), f"expected {shard.bytes:,} bytes")
        )
        return contents
    size = path.stat().st_size
    memory = memoryview(np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8))
    frames, end = records.frames(memory, shard.examples + 1)
    intact = not (faults := list(_faults(shard, memory, len(frames))))
    contents.findings += [Finding(kind, (place,), detail) for kind, detail in faults]
    damaged = set() if intact and shard.sha256 else set(records.unsound(memory, frames))
    for number, frame in enumerate(frames):
        found = Place(split, None, path.name, number)
        if number in damaged:
            contents.findings.append(Finding("damaged_record", (found,), "wrong checksum"))
        else:
            _add_record(contents, memory, frame, found, shard.path, dataset)
    if end < size and len(frames) <= shard.examples:
        found = Place(split, None, path.name, len(frames))
        contents.findings.append(
            Finding("damaged_record", (found,), f"it and all after byte {end:,} cannot be read")
        )
    return contents


class DamagedShard(RuntimeError):
    """A shard is not as it was written; the text names it and, where it can, the record."""


@contextlib.contextmanager
def named(dataset: Dataset) -> Iterator[None]:
    """Says what is damaged where TensorFlow says only that something is, or passes our error on.

    Args:
        dataset: That is read; all of it is examined to find the place.

    Raises:
        DamagedShard: Instead of TensorFlow's error about lost data.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        found = _first_in(dataset)
        if found is None:
            raise
        raise DamagedShard(f"{KINDS[found.kind].title} in {dataset.folder}: {found}") from error


def _first_in(dataset: Dataset) -> Finding | None:
    for split, shards in dataset.splits.items():
        for shard in shards:
            findings = examine_shard(shard, split, dataset).findings
            if findings := [found for found in findings if found.kind != "label_out_of_range"]:
                return min(findings, key=lambda finding: finding.places[0].record is None)
    return None


def _faults(shard: Shard, memory: memoryview, count: int) -> Iterator[tuple[str, str]]:
    if len(memory) != shard.bytes:
        yield "wrong_size", f"expected {shard.bytes:,} bytes, found {len(memory):,}"
    elif shard.sha256 and hashlib.sha256(memory).hexdigest() != shard.sha256:
        yield "wrong_sha256", f"expected {shard.sha256}"
    if count != shard.examples:
        found = f"{count:,}" if count < shard.examples else "more"
        yield "wrong_count", f"expected {shard.examples:,} records, found {found}"


def _add_record(
    contents: Contents,
    memory: memoryview,
    frame: tuple[int, int],
    place: Place,
    path: str,
    dataset: Dataset,
):
    try:
        found = records.locate_image(memory, *frame)
    except ValueError as error:
        contents.findings.append(Finding("damaged_record", (place,), str(error)))
        return
    place = Place(place.split, found.filename or None, place.shard, place.record)
    label = found.label - dataset.label_offset
    if not 0 <= label < dataset.num_classes:
        if found.label != UNLABELLED or place.split != "test":
            detail = f"expected 0 to {dataset.num_classes - 1}, found {label}"
            contents.findings.append(Finding("label_out_of_range", (place,), detail))
        label = UNLABELLED
    contents.images.append(
        Recorded(
            found.filename,
            label,
            path,
            found.begin,
            found.end - found.begin,
            format=found.format,
            height=found.height,
            width=found.width,
        )
    )
    contents.places.append(place)
