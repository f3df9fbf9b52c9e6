"""Compares shards with their description: every file, every record."""

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
    """The contents of a shard.

    Attributes:
        images: Images of sound records; the label is the class, or `UNLABELLED`.
        places: Place of each image.
        findings: Faults of the shard.
    """

    images: list[Recorded] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def examine_shard(shard: Shard, split: str, dataset: Dataset) -> Contents:
    """Compares a shard with its description and reads its records; decodes no image.

    Args:
        shard: The shard as described.
        split: "train", "validation" or "test"; only in "test" may an image have no label.
        dataset: The data set of the shard.

    Returns:
        The images and faults of the shard.
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
        record = Place(split, None, path.name, number)
        if number in damaged:
            contents.findings.append(Finding("damaged_record", (record,), "wrong checksum"))
        else:
            _add_record(contents, memory, frame, record, shard.path, dataset)
    if end < size and len(frames) <= shard.examples:
        record = Place(split, None, path.name, len(frames))
        contents.findings.append(
            Finding("damaged_record", (record,), f"it and all after byte {end:,} cannot be read")
        )
    return contents


class DamagedShard(RuntimeError):
    """A shard is damaged; the text names it and, if possible, the record."""


@contextlib.contextmanager
def naming_damage(dataset: Dataset) -> Iterator[None]:
    """Replaces TensorFlow's error about damaged data by one that names the shard and the record.

    Args:
        dataset: The data set that is read; after an error all of it is examined.

    Raises:
        DamagedShard: Instead of TensorFlow's error.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        finding = _first_in(dataset)
        if finding is None:
            raise
        title = KINDS[finding.kind].title
        raise DamagedShard(f"{title} in {dataset.folder}: {finding}") from error


def _first_in(dataset: Dataset) -> Finding | None:
    for split, shards in dataset.splits.items():
        for shard in shards:
            findings = examine_shard(shard, split, dataset).findings
            if findings := [each for each in findings if each.kind != "label_out_of_range"]:
                return min(findings, key=lambda finding: finding.places[0].record is None)
    return None


def _faults(shard: Shard, memory: memoryview, count: int) -> Iterator[tuple[str, str]]:
    if len(memory) != shard.bytes:
        yield "wrong_size", f"expected {shard.bytes:,} bytes, found {len(memory):,}"
    elif shard.sha256 and hashlib.sha256(memory).hexdigest() != shard.sha256:
        yield "wrong_sha256", f"expected {shard.sha256}"
    if count != shard.examples:
        number = f"{count:,}" if count < shard.examples else "more"
        yield "wrong_count", f"expected {shard.examples:,} records, found {number}"


def _add_record(
    contents: Contents,
    memory: memoryview,
    frame: tuple[int, int],
    place: Place,
    path: str,
    dataset: Dataset,
):
    try:
        image = records.locate_image(memory, *frame)
    except ValueError as error:
        contents.findings.append(Finding("damaged_record", (place,), str(error)))
        return
    place = Place(place.split, image.filename or None, place.shard, place.record)
    label = image.label - dataset.label_offset
    if not 0 <= label < dataset.num_classes:
        if image.label != UNLABELLED or place.split != "test":
            detail = f"expected 0 to {dataset.num_classes - 1}, found {label}"
            contents.findings.append(Finding("label_out_of_range", (place,), detail))
        label = UNLABELLED
    contents.images.append(
        Recorded(
            image.filename,
            label,
            path,
            image.begin,
            image.end - image.begin,
            format=image.format,
            height=image.height,
            width=image.width,
        )
    )
    contents.places.append(place)
