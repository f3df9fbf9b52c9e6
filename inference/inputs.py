"""What is named on the command line of classify.py: files, folders, patterns, or stdin."""

import codecs
import glob
import os
import select
import sys
from collections.abc import Iterable, Iterator

from data.images.reading import PassedOver
from data.sources import sources

STDIN = "-"
_PIECE = 1 << 16  # bytes
_PATIENCE = 0.2  # seconds


def listed(
    places: Iterable[str], passed_over: PassedOver | None = None
) -> Iterator[sources.Example | None]:
    """The images of all places; one that does not exist is found out when it is read.

    Args:
        places: Files, folders, .tar files, patterns that no file is called like, or "-" for those
            that are named on stdin, one on a line or with a NUL after each; one of them that
            cannot be opened is an image that cannot be read.
        passed_over: Where to add what is not taken of folders.

    Yields:
        The images; None while the next name on stdin has not come yet, several times a second.

    Raises:
        PermissionError: If a folder that is named cannot be opened.
        ValueError: If a .tar file is not a whole one.
    """
    for place in places:
        if place == STDIN:
            for name in _named(sys.stdin.fileno()):
                yield from (
                    [None] if name is None else _images(name, passed_over, OSError, ValueError)
                )
        elif glob.has_magic(place) and not os.path.lexists(place):
            for match in _matches(place) or [place]:
                yield from _images(match, passed_over)
        else:
            yield from _images(place, passed_over)


def _named(descriptor: int) -> Iterator[str | None]:
    """The names that come from a file, each as soon as it is whole; None while nothing comes."""
    mark, rest, end = codecs.BOM_UTF8, b"", b"\n"
    for data in _read(descriptor):
        if data is None:
            yield None
            continue
        rest += data
        if b"\0" in rest:
            end = b"\0"
        *names, rest = rest.split(end) if data else [rest, b""]
        for name in names:
            name, mark = name.removeprefix(mark), b""
            if end == b"\n":
                name = name.removesuffix(b"\r")
            if name:
                yield os.fsdecode(name)


def _read(descriptor: int) -> Iterator[bytes | None]:
    """What comes from a file, at last nothing; None at once where one has to wait, and again."""
    patience, data = 0.0, None
    while data != b"":
        comes, _, _ = select.select([descriptor], [], [], patience)
        data = os.read(descriptor, _PIECE) if comes else None
        patience = 0.0 if comes else _PATIENCE
        yield data


def _matches(pattern: str) -> list[str]:
    """The files of a pattern in order; its folders where it matches no file."""
    found = sorted(glob.glob(pattern, recursive=True))
    return [path for path in found if os.path.isfile(path)] or found


def _images(
    place: str, passed_over: PassedOver | None, *expected: type[Exception]
) -> list[sources.Example]:
    try:
        return sources.open_images(place, passed_over)
    except (FileNotFoundError, *expected):
        return [sources.Example(place, sources.UNLABELLED, place)]
