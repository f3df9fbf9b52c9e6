"""What names say: of files and folders, of classes, of splits."""

import os
import re
import unicodedata

SPLIT_ORDER = ("train", "validation", "test")
# What the splits of TFDS are called.
SPLITS = {name: name for name in SPLIT_ORDER} | {"val": "validation", "valid": "validation"}
# What is left of the name of a split's folder without the words and marks around it.
SPLIT_NAMES = SPLITS | {"training": "train", "dev": "validation", "testing": "test"}
_AROUND_SPLIT = re.compile(r"[-_\s]|set|data|images|split")


def split_of(name: str) -> str | None:
    """The split that a name says, as "train_images" or "Val-2017"; None of any other."""
    words = _AROUND_SPLIT.sub("", name.casefold())
    return SPLIT_NAMES.get(words.rstrip("0123456789"))


def natural_order(name: str) -> tuple:
    """Sort key under which "img2" comes before "img10"."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part.lower() for i, part in enumerate(parts)], name


def readable(name: str) -> str:
    r"""A file's name as text: `\xe9` for a byte that is not UTF-8."""
    return os.fsencode(name).decode(errors="backslashreplace")


def composed(name: str) -> str:
    """A name in one form, however its accents are written: Unicode's NFC."""
    return unicodedata.normalize("NFC", name)
