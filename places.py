"""What is named on the command line of classify.py: files, folders, patterns, or stdin."""

import codecs
import glob
import os
import sys
from collections.abc import Iterable, Iterator

from data import sources
from data.reading import PassedOver

STDIN = "-"


def listed(places: Iterable[str], passed_over: PassedOver | None = None) -> list[sources.Example]:
    """The images of all places; one that does not exist is found out when it is read.

    Args:
        places: Files, folders, .tar files, patterns that no file is called like, or "-" for those
            that are named on stdin, one on a line or with a NUL after each.
        passed_over: Where to add what is not taken of folders.

    Raises:
        PermissionError: If a folder that is named cannot be opened.
        ValueError: If a .tar file is not a whole one.
    """
    return [image for place in _expanded(places) for image in _images(place, passed_over)]


def _expanded(places: Iterable[str]) -> Iterator[str]:
    for place in places:
        if place == STDIN:
            yield from _named(sys.stdin.buffer.read())
        elif glob.has_magic(place) and not os.path.lexists(place):
            yield from _matches(place) or [place]
        else:
            yield place


def _named(text: bytes) -> list[str]:
    text = text.removeprefix(codecs.BOM_UTF8)
    names = text.split(b"\0") if b"\0" in text else text.splitlines()
    return [os.fsdecode(name) for name in names if name]


def _matches(pattern: str) -> list[str]:
    """The files of a pattern in order; its folders where it matches no file."""
    found = sorted(glob.glob(pattern, recursive=True))
    return [path for path in found if os.path.isfile(path)] or found


def _images(place: str, passed_over: PassedOver | None) -> list[sources.Example]:
    try:
        return sources.open_images(place, passed_over)
    except FileNotFoundError:
        return [sources.Example(place, sources.UNLABELLED, place)]
