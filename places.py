"""What is named on the command line of classify.py: files, folders, patterns, or stdin."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator

from data import sources

STDIN = "-"


def listed(places: Iterable[str]) -> list[sources.Example]:
    """The images of all places; one that does not exist is found out when it is read.

    Args:
        places: Files, folders, .tar files, patterns that no file is called like, or "-" for those
            that are named on stdin, one on a line or with a NUL after each.

    Raises:
        ValueError: If a .tar file is not a whole one.
    """
    return [image for place in _expanded(places) for image in _images(place)]


def _expanded(places: Iterable[str]) -> Iterator[str]:
    for place in places:
        if place == STDIN:
            yield from _named(sys.stdin.buffer.read())
        elif glob.has_magic(place) and not os.path.lexists(place):
            yield from _matches(place) or [place]
        else:
            yield place


def _named(text: bytes) -> list[str]:
    names = text.split(b"\0") if b"\0" in text else text.splitlines()
    return [os.fsdecode(name) for name in names if name]


def _matches(pattern: str) -> list[str]:
    """The files of a pattern in order; its folders where it matches no file."""
    found = sorted(glob.glob(pattern, recursive=True))
    return [path for path in found if os.path.isfile(path)] or found


def _images(place: str) -> list[sources.Example]:
    try:
        return sources.open_images(place)
    except FileNotFoundError:
        return [sources.Example(place, sources.UNLABELLED, place)]
