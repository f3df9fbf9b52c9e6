"""What a conversion says of itself: `dataset.json` and `rejected.csv`."""

import csv
import hashlib
import io
import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple
from pathlib import Path

import cv2
import numpy as np
import PIL
import tensorflow as tf

from data.datasets import FORMAT_VERSION
from data.decode import Storage
from data.examples import Source
from data.shards import Written
from data.unfinished import write

DESCRIPTION = "dataset.json"
REJECTED = "rejected.csv"


def fingerprint(source: Source, storage: Storage) -> str:
    """Digests a source and all options that change the images stored from it."""
    options = (FORMAT_VERSION, astuple(storage), source.seed, source.validation_fraction)
    return hashlib.sha256(f"{source.fingerprint} {options}".encode()).hexdigest()


def made_with() -> dict[str, str]:
    """The versions of all that the stored bytes may depend on."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "pillow": PIL.__version__,
        "tensorflow": tf.__version__,
    }


def write_description(folder: Path, source: Source, storage: Storage, written: Written) -> dict:
    """Writes both files, `dataset.json` last; returns its content."""
    description = {
        "format_version": FORMAT_VERSION,
        "name": source.name,
        "class_names": list(source.class_names),
        "mean": written.mean,
        "std": written.std,
        **asdict(storage),
        "fingerprint": fingerprint(source, storage),
        "seed": source.seed,
        "validation_fraction": source.validation_fraction,
        "rejected": len(written.rejected),
        "made_with": made_with(),
        "splits": written.splits,
    }
    write(folder / REJECTED, _csv([("path", "reason"), *written.rejected]))
    write(folder / DESCRIPTION, json.dumps(description, indent=1).encode() + b"\n")
    return description


def _csv(rows: Iterable[Sequence[str]]) -> bytes:
    """In UTF-8, but for file names that are not."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(rows)
    return os.fsencode(table.getvalue())
