"""Shards of other tools with the record keys the field shares (TF-slim, Model Garden).

They are read through once; what was found goes, in the form of a `dataset.json`, into the cache
folder, never into the user's.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path

import tensorflow as tf

from data import cache, records
from data.unfinished import write

# Such shards do not say: ImageNet's, of pixels in 0..255.
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)


def describe(folder: Path, splits: dict[str, list[Path]]) -> dict:
    """What a dataset.json would say about these shards, from the cache if it is known.

    Args:
        folder: Where they lie, perhaps with a labels.txt of lines like "0:daisy".
        splits: The shards by split.

    Raises:
        ValueError: A shard is damaged, or no record has a label.
    """
    fingerprint, home = hashlib.sha256(), folder.resolve()
    for path in [folder / "labels.txt", *(path for paths in splits.values() for path in paths)]:
        if path.is_file():
            status = path.stat()
            fingerprint.update(
                f"{home / path.name} {status.st_size} {status.st_mtime_ns}\n".encode()
            )
    index = cache.folder() / f"index-{fingerprint.hexdigest()[:16]}.json"
    if not index.is_file():
        description = _index(folder, splits, fingerprint.hexdigest())
        index.parent.mkdir(parents=True, exist_ok=True)
        write(index, json.dumps(description, indent=1).encode())
    return json.loads(index.read_text(encoding="utf-8"))


def _index(folder: Path, splits: dict[str, list[Path]], fingerprint: str) -> dict:
    """Reads every record once: counts, labels, and whether all images are JPEGs of stated size."""
    described, labels, plain = {}, {}, True
    for split, paths in splits.items():
        shards, labels[split] = [], Counter()
        for path in paths:
            shard_labels, shard_plain = _survey(path)
            labels[split] += shard_labels
            plain &= shard_plain
            examples, size = shard_labels.total(), path.stat().st_size
            shards.append({"file": path.name, "examples": examples, "bytes": size, "sha256": ""})
        described[split] = {"examples": labels[split].total(), "shards": shards}
    class_names, label_offset = _classes(folder, set().union(*labels.values()))
    for split, counts in labels.items():
        of_classes = range(label_offset, label_offset + len(class_names))
        described[split]["classes"] = [counts[label] for label in of_classes]
    return {
        "class_names": class_names,
        "label_offset": label_offset,
        "mean": _MEAN,
        "std": _STD,
        # Other images are prepared as these are taken to be: left at their own size.
        "short_side": 0,
        "quality": 95,
        "encoding": "jpeg",
        "record_encoding": "jpeg" if plain else "mixed",
        "fingerprint": fingerprint,
        "splits": described,
    }


def _survey(path: Path) -> tuple[Counter[int], bool]:
    """Number of records of each label, and whether all are JPEGs of stated size."""

    def facts(serialized):
        record = records.parse(serialized)
        sized = (record["height"] > 0) & (record["width"] > 0)
        return record["label"], sized & tf.io.is_jpeg(record["encoded"])

    labels, plain = Counter(), True
    try:
        batches = tf.data.TFRecordDataset(str(path)).map(facts).batch(1024)
        for batch_labels, batch_plain in batches.as_numpy_iterator():
            labels.update(batch_labels.tolist())
            plain &= bool(batch_plain.all())
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        reason = error.message.splitlines()[0]
        raise ValueError(f"{path} is no whole shard of images. Received: {reason}") from error
    return labels, plain


def _classes(folder: Path, labels: set[int]) -> tuple[list[str], int]:
    """Class names from labels.txt ("0:daisy") or invented, and the label of the first class."""
    names = {}
    if (folder / "labels.txt").is_file():
        lines = (folder / "labels.txt").read_text(encoding="utf-8-sig").splitlines()
        for number, line in enumerate(line for line in lines if line.strip()):
            index, colon, name = line.partition(":")
            numbered = colon and index.strip().isdigit()
            names[int(index) if numbered else number] = (name if numbered else line).strip()
    # TF-slim keeps label 0 of ImageNet for a background class that no image has.
    known = (labels - {-1}) | {label for label in names if names[label] != "background"}
    if not known:
        raise ValueError(f"the shards in {folder} have no labels, expected {records.LABEL}")
    offset = min(1, min(known))
    return [names.get(i, f"class_{i - offset}") for i in range(offset, max(known) + 1)], offset
