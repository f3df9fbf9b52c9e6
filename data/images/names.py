"""Names of files, folders, classes and splits."""

import os
import re
import unicodedata

SPLIT_ORDER = ("train", "validation", "test")
# Names of splits in TFDS.
SPLITS = {name: name for name in SPLIT_ORDER} | {"val": "validation", "valid": "validation"}
# Names of split folders, without the words and marks around them.
SPLIT_NAMES = SPLITS | {"training": "train", "dev": "validation", "testing": "test"}
_AROUND_SPLIT = re.compile(r"[-_\s]|set|data|images|split")


def split_of(name: str) -> str | None:
    """Returns the split named by "train_images" or "Val-2017"; None for other names."""
    stem = _AROUND_SPLIT.sub("", name.casefold())
    return SPLIT_NAMES.get(stem.rstrip("0123456789"))


def natural_order(name: str) -> tuple:
    """Returns a sort key under which "img2" comes before "img10"."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part.lower() for i, part in enumerate(parts)], name


def readable(name: str) -> str:
    r"""Converts a file name to text, with `\xe9` for a byte that is not UTF-8."""
    return os.fsencode(name).decode(errors="backslashreplace")


def composed(name: str) -> str:
    """Normalises a name to Unicode's form NFC: accented letters are one character each."""
    return unicodedata.normalize("NFC", name)
