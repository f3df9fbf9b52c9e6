"""Lists the images on the command line of classify.py: files, folders, patterns or stdin."""

import codecs
import glob
import os
import select
import sys
from collections.abc import Iterable, Iterator

from data.images.reading import PassedOver
from data.sources import sources

STDIN = "-"
_PIECE = 1 << 16  # bytes per read
_PATIENCE = 0.2  # seconds per wait for stdin


def listed(
    places: Iterable[str], passed_over: PassedOver | None = None
) -> Iterator[sources.Example | None]:
    """Lists the images of all places; missing files only fail when they are read.

    Args:
        places: Files, folders, .tar files, glob patterns (unless a file has that very name), or
            "-" to read paths from stdin, separated by newlines or NULs. A path on stdin that
            cannot be opened counts as an unreadable image.
        passed_over: Collects the files in folders that are not images.

    Yields:
        The images, and None several times a second while waiting for the next path on stdin.

    Raises:
        PermissionError: If a folder on the command line cannot be opened.
        ValueError: If a .tar file is truncated or damaged.
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
    """Yields the names in a stream, each as soon as it is complete, and None while waiting."""
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
    """Yields the data of a stream and at the end b"", and None whenever no data is available.

    The first None comes without delay, each following one after `_PATIENCE` seconds.
    """
    patience, data = 0.0, None
    while data != b"":
        comes, _, _ = select.select([descriptor], [], [], patience)
        data = os.read(descriptor, _PIECE) if comes else None
        patience = 0.0 if comes else _PATIENCE
        yield data


def _matches(pattern: str) -> list[str]:
    """Returns the files that match a pattern, sorted, or the folders if it matches no files."""
    found = sorted(glob.glob(pattern, recursive=True))
    return [path for path in found if os.path.isfile(path)] or found


def _images(
    place: str, passed_over: PassedOver | None, *expected: type[Exception]
) -> list[sources.Example]:
    try:
        return sources.open_images(place, passed_over)
    except (FileNotFoundError, *expected):
        return [sources.Example(place, sources.UNLABELLED, place)]
