"""Compares images, by their names, with those that were converted earlier."""

import csv
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data.conversion.description import REJECTED
from data.images.examples import Example, Source
from data.images.names import natural_order
from data.images.reading import shortened
from data.shards import datasets, records

_MANY = 200_000  # images; reading the names of more takes minutes on a slow disk
_NAMES = 3  # to list of each kind


def since(source: Source, copy: Path) -> str:
    """Describes which images were added, removed or changed, as in "1 added (cat/heron.jpg)".

    Args:
        source: The images as they are now.
        copy: Folder of the shards that were converted from them earlier.

    Raises:
        ValueError: If the copy is damaged.
        OSError: If it cannot be read.
    """
    dataset = datasets.described(copy)
    examples = [example for split_examples in source.listed.values() for example in split_examples]
    before = sum(map(dataset.num_examples, dataset.splits)) + dataset.rejected
    if max(before, len(examples)) > _MANY:
        return f"{len(examples):,} images, {before:,} before"
    earlier, current = Counter(_names(dataset)), Counter(example.name for example in examples)
    made = min(os.stat(shard.path).st_mtime for shard in dataset.shards("train"))
    newer = Counter(each.name for each in examples if each.name in earlier and _time(each) > made)
    if newer == current & earlier:  # all that are left: the images were copied since
        newer.clear()
    kinds = {"added": current - earlier, "removed": earlier - current, "changed": newer}
    parts = [
        f"{names.total():,} {kind} ({shortened(sorted(names, key=natural_order), _NAMES)})"
        for kind, names in kinds.items()
        if names
    ]
    return ", ".join(parts) or "files of the same names, or the classes, have changed"


def _names(dataset: datasets.Dataset) -> Iterator[str]:
    """Yields the names of all images that were converted or rejected."""
    for shard in (shard for shards in dataset.splits.values() for shard in shards):
        memory = np.memmap(shard.path, np.uint8, mode="r").data
        for begin, end in records.frames(memory)[0]:
            yield records.locate_image(memory, begin, end).filename
    with open(dataset.folder / REJECTED, newline="", errors="surrogateescape") as file:
        yield from (row["path"] for row in csv.DictReader(file))


def _time(example: Example) -> float:
    """Returns the modification time of an image's file; 0 if it is in an archive or missing."""
    is_file = not (example.offset or example.packing) and os.path.exists(example.path)
    return os.stat(example.path).st_mtime if is_file else 0.0
