"""Converted copies of images in the cache: found by their content, listed, removed."""

import contextlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runtime import files

DESCRIPTION = "dataset.json"
FORMAT_VERSION = 1  # of the description
_USE = "used.json"  # in a copy: the data it was last used for, and when


@dataclass(frozen=True)
class Copy:
    """Images that were converted into the cache, or a conversion that was stopped.

    Attributes:
        folder: Folder of the shards.
        fingerprints: `Dataset.fingerprints`; empty for a conversion that was stopped.
        source: Path of the images that the copy was last used for; "" if unknown.
        content: `Source.fingerprint` of these images; "" if unknown.
        last_used: Time of the last use, in seconds since 1970.
        bytes: Size of all its files.
    """

    folder: Path
    fingerprints: tuple[str, ...]
    source: str
    content: str
    last_used: float
    bytes: int

    @property
    def is_whole(self) -> bool:
        """Whether the conversion has ended."""
        return bool(self.fingerprints)

    def remove(self) -> None:
        """Removes the folder.

        Raises:
            BusyError: If a process is converting into it.
        """
        if self.is_whole:
            (self.folder / DESCRIPTION).unlink()  # first: without it the rest is no copy
            return shutil.rmtree(self.folder)
        with files.claimed(self.folder.with_suffix("")) as claimed:
            files.remove(claimed)


def listed() -> list[Copy]:
    """Returns all copies in the cache, most recently used first."""
    return sorted(_copies(), key=lambda copy: copy.last_used, reverse=True)


def find(fingerprint: str, *elsewhere: str | os.PathLike) -> Path | None:
    """Finds the folder of the copy with a fingerprint.

    Args:
        fingerprint: One of `Dataset.fingerprints`.
        *elsewhere: Folders of shards outside of the cache to look at too.
    """
    by_name = files.cache().glob(f"*-{fingerprint[:16]}")
    folders = itertools.chain(by_name, map(Path, elsewhere), _cache_folders())
    return next((path for path in folders if fingerprint in fingerprints(path)), None)


def fingerprints(path: Path) -> tuple[str, ...]:
    """Reads `Dataset.fingerprints` of a folder; empty if it holds no shards of ours."""
    description = _read(path / DESCRIPTION)
    if "fingerprint" not in description:
        return ()
    return (description["fingerprint"], *description.get("earlier_fingerprints", ()))


@dataclass(frozen=True)
class Expected:
    """The data that a run was started with.

    Attributes:
        fingerprint: `Dataset.fingerprint` at the start of the run.
        folder: Folder of the shards then; None if unknown.
    """

    fingerprint: str
    folder: str | None = None

    def copy(self) -> Path | None:
        """Finds the folder of the shards, in the cache or at the old path; None if missing."""
        return find(self.fingerprint, *filter(None, [self.folder]))


def note_use(copy: Path, source: str, content: str) -> None:
    """Records for which images a copy is used, and when, if the cache is writable."""
    use = {"source": source, "content": content, "last_used": time.time()}
    with contextlib.suppress(OSError):
        files.write(copy / _USE, json.dumps(use).encode())


def outdated(source: str, content: str) -> list[Copy]:
    """Returns the copies of a path that were made from earlier content."""
    return [each for each in listed() if each.source == source and each.content != content]


def rename(copy: Path, fingerprint: str, *earlier: str) -> None:
    """Gives a copy a new fingerprint, and keeps the earlier ones, which runs refer to.

    Args:
        copy: Folder of the copy.
        fingerprint: The new fingerprint.
        *earlier: Earlier fingerprints to add to those of the copy.
    """
    known = fingerprints(copy)
    others = [name for name in dict.fromkeys([*earlier, *known]) if name != fingerprint]
    if known[0] == fingerprint and set(others) < set(known):
        return
    names = {"fingerprint": fingerprint, "earlier_fingerprints": others}
    text = json.dumps(_read(copy / DESCRIPTION) | names, indent=1)
    with contextlib.suppress(OSError):  # another user's cache
        files.write(copy / DESCRIPTION, text.encode() + b"\n")


def _cache_folders() -> list[Path]:
    """Returns the folders in the cache."""
    return sorted(files.cache().glob("*/"))


def _copies() -> Iterator[Copy]:
    for path in _cache_folders():
        known = fingerprints(path)
        if known or path.suffix == ".partial":
            use = _read(path / _USE)
            statuses = [file.stat() for file in path.rglob("*") if file.is_file()]
            newest = max((each.st_mtime for each in statuses), default=path.stat().st_mtime)
            yield Copy(
                folder=path,
                fingerprints=known,
                source=str(use.get("source", "")),
                content=str(use.get("content", "")),
                last_used=use.get("last_used", newest),
                bytes=sum(each.st_size for each in statuses),
            )


def _read(path: Path) -> dict:
    """Reads the object in a JSON file; empty if the file is missing or damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
