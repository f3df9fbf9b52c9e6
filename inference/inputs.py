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
_READ_BYTES = 1 << 16  # bytes per read
_WAIT = 0.2  # seconds per wait for stdin


def list_images(
    paths: Iterable[str], passed_over: PassedOver | None = None
) -> Iterator[sources.Example | None]:
    """Lists the images of all paths; missing files only fail when they are read.

    Args:
        paths: Files, folders, .tar files, glob patterns (unless a file has exactly that name), or
            "-" to read paths from stdin, separated by newlines or NULs. A path on stdin that
            cannot be opened counts as an unreadable image.
        passed_over: Collects the files in folders that are not images.

    Yields:
        The images, and None several times a second while waiting for the next path on stdin.

    Raises:
        PermissionError: If a folder on the command line cannot be opened.
        ValueError: If a .tar file is truncated or damaged.
    """
    for path in paths:
        if path == STDIN:
            for name in _stdin_paths(sys.stdin.fileno()):
                yield from (
                    [None] if name is None else _images(name, passed_over, OSError, ValueError)
                )
        elif glob.has_magic(path) and not os.path.lexists(path):
            for match in _matches(path) or [path]:
                yield from _images(match, passed_over)
        else:
            yield from _images(path, passed_over)


def _stdin_paths(descriptor: int) -> Iterator[str | None]:
    """Yields the names in a stream, each as soon as it is complete, and None while waiting."""
    byte_order_mark, rest, end = codecs.BOM_UTF8, b"", b"\n"
    for data in _read_stream(descriptor):
        if data is None:
            yield None
            continue
        rest += data
        if b"\0" in rest:
            end = b"\0"
        *names, rest = rest.split(end) if data else [rest, b""]
        for name in names:
            name, byte_order_mark = name.removeprefix(byte_order_mark), b""
            if end == b"\n":
                name = name.removesuffix(b"\r")
            if name:
                yield os.fsdecode(name)


def _read_stream(descriptor: int) -> Iterator[bytes | None]:
    """Yields the data of a stream and at the end b"", and None whenever no data is available.

    The first None comes without delay, each following one after `_WAIT` seconds.
    """
    timeout, data = 0.0, None
    while data != b"":
        is_ready, _, _ = select.select([descriptor], [], [], timeout)
        data = os.read(descriptor, _READ_BYTES) if is_ready else None
        timeout = 0.0 if is_ready else _WAIT
        yield data


def _matches(pattern: str) -> list[str]:
    """Returns the files that match a pattern, sorted, or the folders if it matches no files."""
    matches = sorted(glob.glob(pattern, recursive=True))
    return [path for path in matches if os.path.isfile(path)] or matches


def _images(
    path: str, passed_over: PassedOver | None, *tolerated: type[Exception]
) -> list[sources.Example]:
    try:
        return sources.open_images(path, passed_over)
    except (FileNotFoundError, *tolerated):
        return [sources.Example(path, sources.UNLABELLED, path)]
