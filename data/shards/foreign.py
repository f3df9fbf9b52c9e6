"""Shards of other tools with the usual record keys (TF-slim, Model Garden).

They are read through once; their description, in the form of a `dataset.json`, is kept in the cache
folder, never in the user's.
"""

import contextlib
import hashlib
import json
import os
import sys
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf

from data.images import kinds
from data.shards import class_names, records, series
from data.shards.series import Series
from runtime.files import cache, write

_VERSION = 2  # version of the description; cached descriptions of other versions are ignored
_RECORDS = 256  # parsed at a time
_COMPRESSIONS = {"gzip": (b"\x1f\x8b", "gzip -dc"), "zlib": (b"\x78", "pigz -dc")}
_ANY_HEADER = 47  # argument of zlib for a gzip or zlib header

# Foreign shards do not state them: those of ImageNet, for pixels in 0..255.
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)


def describe(shards: Series) -> dict:
    """Describes shards in the form of a dataset.json, read from the cache if it is there.

    Args:
        shards: The shards, perhaps with one of `class_names.FILES` beside them.

    Raises:
        ValueError: If a shard is damaged or holds no records of images, labels are missing, or
            their names are ambiguous.
    """
    labels = class_names.file_in(shards.folder)
    paths = [path for split_paths in shards.splits.values() for path in split_paths]
    fingerprint = series.fingerprint([*([labels] if labels else []), *paths])
    index = cache() / f"index-{_VERSION}-{fingerprint[:16]}.json"
    if not index.is_file():
        description = _index(shards.folder, shards.splits, fingerprint)
        index.parent.mkdir(parents=True, exist_ok=True)
        write(index, json.dumps(description, indent=1).encode())
    return json.loads(index.read_text(encoding="utf-8"))


def earlier_fingerprint(shards: Series) -> str:
    """Computes the fingerprint of earlier versions (by paths and times), which runs refer to."""
    fingerprint, home = hashlib.sha256(), shards.folder.resolve()
    paths = [
        path for split_paths in sorted(shards.splits.values(), key=min) for path in split_paths
    ]
    for path in [shards.folder / "labels.txt", *paths]:
        if path.is_file():
            status = path.stat()
            line = f"{home / path.name} {status.st_size} {status.st_mtime_ns}\n"
            fingerprint.update(os.fsencode(line))
    return fingerprint.hexdigest()


def _index(folder: Path, splits: dict[str, list[Path]], fingerprint: str) -> dict:
    """Describes shards; reads every record once."""
    described, labels, texts, plain = {}, {}, {}, True
    for split, paths in splits.items():
        shards, labels[split] = [], Counter()
        for path in paths:
            shard_labels, shard_texts, shard_plain = _survey(path)
            labels[split] += shard_labels
            _add_texts(texts, shard_texts, path)
            plain &= shard_plain
            examples, size = shard_labels.total(), path.stat().st_size
            shards.append({"file": path.name, "examples": examples, "bytes": size, "sha256": ""})
        described[split] = {"examples": labels[split].total(), "shards": shards}
    seen = {label for counts in labels.values() for label in counts if label >= 0}
    for split, counts in labels.items():
        # Only a test split may lack labels, and only if another split has some.
        if any(label < 0 for label in counts) and (split != "test" or not seen):
            raise ValueError(_unlabelled(folder, split, splits[split], counts))
    if not seen:
        raise ValueError(f"{folder}: expected records of images, found none in its shards")
    names, label_offset = class_names.assign_names(folder, seen, texts)
    for split, counts in labels.items():
        class_labels = range(label_offset, label_offset + len(names))
        described[split]["classes"] = [counts[label] for label in class_labels]
    return {
        "class_names": names,
        "label_offset": label_offset,
        "mean": _MEAN,
        "std": _STD,
        # Other images are prepared as these are assumed to be: at their own size.
        "short_side": 0,
        "quality": 95,
        "encoding": "jpeg",
        "record_encoding": "jpeg" if plain else "mixed",
        "fingerprint": fingerprint,
        "splits": described,
    }


def _add_texts(texts: dict[int, str], more: Iterable[tuple[int, str]], path: Path) -> None:
    """Adds a shard's texts of labels; a label must have one text in all shards."""
    for label, text in more:
        if texts.setdefault(label, text) != text:
            raise ValueError(
                f"{path}: expected one {records.TEXT} for every {records.LABEL}; label {label} has "
                f"{texts[label]!r} and {text!r}"
            )


def _unlabelled(folder: Path, split: str, paths: list[Path], counts: Counter[int]) -> str:
    without = sum(count for label, count in counts.items() if label < 0)
    first = next(iter(tf.data.TFRecordDataset(list(map(str, paths))))).numpy()
    return (
        f"{folder}: {without:,} of {counts.total():,} {split} records have no labels, expected "
        f"{records.LABEL} from 0 or 1 on; the first has the keys {records.keys(first)}"
    )


def _survey(path: Path) -> tuple[Counter[int], set[tuple[int, str]], bool]:
    """Counts the labels of a shard, and reads their texts.

    Returns:
        Number of records of each label; labels with their texts; whether all images are JPEGs with
        stated sizes.

    Raises:
        ValueError: If the shard is damaged, or holds something else.
    """

    def facts(serialized):
        record = records.parse(serialized, filename=True, text=True)
        sized = (record["height"] > 0) & (record["width"] > 0)
        return record["label"], record["text"], sized & tf.io.is_jpeg(record["encoded"])

    if fault := _fault(path, max_records=1):
        raise ValueError(fault)
    labels, texts, plain = Counter(), set(), True
    try:
        batches = tf.data.TFRecordDataset(str(path)).batch(_RECORDS).map(facts)
        for batch_labels, batch_texts, batch_plain in batches.as_numpy_iterator():
            labels.update(batch_labels.tolist())
            texts.update(zip(batch_labels.tolist(), batch_texts.tolist(), strict=True))
            plain &= bool(batch_plain.all())
    except tf.errors.OpError as error:
        raise ValueError(_fault(path) or f"{path} cannot be read as a shard") from error
    decoded = {(label, text.decode(errors="backslashreplace").strip()) for label, text in texts}
    return labels, {(label, text) for label, text in decoded if text and label >= 0}, plain


def _fault(path: Path, max_records: int = sys.maxsize) -> str:
    """Describes the first fault in a shard's first records; "" if there is none."""
    if not path.stat().st_size:
        return ""
    memory = memoryview(np.memmap(path, np.uint8, "r"))
    if not records.begins(memory):
        return f"{path}: {_kind(bytes(memory[: kinds.HEAD]))}"
    frames, end = records.frames(memory, max_records)
    for number, (begin, stop) in enumerate(frames):
        if records.unsound(memory, [(begin, stop)]):
            return f"{path} is no whole shard: record {number}, at byte {begin:,}, is damaged"
        if complaint := records.complaint(bytes(memory[begin:stop])):
            return f"{path}: record {number} has {complaint}"
    if len(frames) < max_records and end < len(memory):
        return f"{path} is no whole shard: record {len(frames)} is cut off or damaged"
    return ""


def _kind(head: bytes) -> str:
    """Describes a file that is no shard, by its first bytes."""
    expected = f"expected TFRecords with {records.ENCODED} and {records.LABEL}"
    for kind, (beginning, command) in _COMPRESSIONS.items():
        with contextlib.suppress(zlib.error):
            unpacked = zlib.decompressobj(_ANY_HEADER).decompress(head, records.HEADER_BYTES)
            if head.startswith(beginning) and records.begins(unpacked):
                return f"compressed ({kind}); {expected}, not compressed: {command} FILE > NEW"
    kind = kinds.detect(head)
    return f"{expected}; found {kind.name if kind else 'no TFRecords'}"
