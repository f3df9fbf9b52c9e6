"""Describes a conversion: `dataset.json` and `rejected.csv`."""

import json
import platform
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import PIL
import pillow_heif
import tensorflow as tf

from data.conversion.identity import fingerprint
from data.conversion.writer import Written, write_table
from data.images.decode import Storage
from data.images.examples import Source
from data.shards.copies import DESCRIPTION, FORMAT_VERSION
from runtime.files import write

REJECTED = "rejected.csv"


def made_with() -> dict[str, str]:
    """Returns the versions of everything that the stored bytes may depend on."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "pillow": PIL.__version__,
        "pillow-heif": pillow_heif.__version__,
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
        **asdict(replace(storage, bits=written.bits)),
        "fingerprint": fingerprint(source, storage),
        "seed": source.seed,
        "validation_fraction": source.validation_fraction,
        "small_grey": written.small_grey,
        "joined": source.joined,
        "passed_over": source.passed_over.parts(written.unreadable),
        "rejected": len(written.rejected),
        "unreadable": written.unreadable,
        "made_with": made_with(),
        "splits": written.splits,
    }
    write_table(folder / REJECTED, written.rejected)
    write(folder / DESCRIPTION, json.dumps(description, indent=1).encode() + b"\n")
    return description
