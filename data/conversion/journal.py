"""The journal of a conversion: an account of every complete shard, in a file beside the shards.

A conversion that was stopped continues from here. Sums are kept per shard, so that the result does
not depend on how often the conversion was stopped, or on the number of tasks.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime.files import clear, locked, sync, write

SCRATCH = "scratch"  # prefix of the names of temporary folders
SHARDS = "shards"

_VERSION = 2
_KEY = "conversion.json"
_ACCOUNT = ".account"
_MEANINGS = {
    "fingerprint": "images or options",
    "shards": "number of shards",
    "made_with": "versions",
    "tasks": "number of tasks",
    "journal_version": "journal",
}


class PartialError(ValueError):
    """A folder lacks files that a conversion needs to continue."""


@dataclass(frozen=True)
class Account:
    """Facts about a complete shard on the disk.

    Attributes:
        examples: Number of its examples; a shard without any has no file.
        bytes: Size of the file.
        sha256: Digest of the file, in hexadecimal.
        pixels: Number of pixels of all its images.
        sums: Sum of each channel (RGB) over these pixels, 0..255 each.
        squares: Sum of the squares of each channel.
        rejected: Name and reason of every image that did not become a record.
        formats: Formats of its records, without repetitions.
        bits: `Storage.bits` of the conversion.
        small_grey: Whether all its images are grey and of at most 64 x 64 pixels.
    """

    examples: int
    bytes: int
    sha256: str
    pixels: int
    sums: list[float]
    squares: list[float]
    rejected: list[list[str]]
    formats: list[str]
    bits: int
    small_grey: bool


class Journal:
    """The accounts of one conversion.

    Attributes:
        shards: Folder of the shards.
    """

    def __init__(self, folder: Path, key: dict, report: Callable[[str], object]):
        """Opens the journal of a conversion.

        The journal of another conversion is removed, with its shards. If one of the two is made by
        several tasks, this is an error instead, because another task may be running.

        Args:
            folder: A claimed folder; its locks and `SCRATCH` folders are left alone.
            key: Everything that the bytes of the shards depend on, and the number of "tasks".
            report: Called with lines for the user.

        Raises:
            PartialError: If the folder is of another conversion, or of other tasks.
        """
        self._folder = folder
        self.shards = folder / SHARDS
        key = {**key, "journal_version": _VERSION}
        with locked(folder, "journal", f"{folder} is being opened", on_wait=lambda: None):
            existing = _key(folder)
            if existing != key:
                _clear_for(folder, existing, key, report)
                write(folder / _KEY, json.dumps(key, indent=1).encode() + b"\n")
            self.shards.mkdir(exist_ok=True)

    def add(self, file: str, account: Account):
        """Records that a shard is complete and on the disk."""
        sync(self.shards)
        text = json.dumps(asdict(account)).encode()
        write(_path(self._folder, file), f"{_digest(text)}\n".encode() + text)

    def kept(self, files: Iterable[str], report: Callable[[str], object]) -> dict[str, Account]:
        """Verifies the digests of shards and removes incomplete or damaged ones.

        Args:
            files: Names of the shards; no other process works on them.
            report: Called with lines for the user.

        Returns:
            The accounts of complete shards, by name, in the order of `files`.
        """
        files = list(files)
        accounts = accounts_in(self._folder, files)
        if accounts:
            report(f"going on: {len(accounts)} of {len(files)} shards are there in {self._folder}")
        with ThreadPoolExecutor() as pool:
            whole = list(pool.map(self._is_whole, accounts, accounts.values()))
        for file, is_whole in zip(list(accounts), whole, strict=True):
            if not is_whole:
                report(f"{file} is damaged and is written again")
                del accounts[file]
        self._remove(set(files) - set(accounts))
        return accounts

    def complete(self, files: Iterable[str]) -> dict[str, Account]:
        """Compares the sizes of shards and removes all other files from their folder.

        Args:
            files: Names of all shards of the conversion.

        Returns:
            The accounts of the shards of the right size, by name, in the order of `files`.
        """
        accounts = accounts_in(self._folder, files)
        small = {file for file in accounts if not self._has_its_size(file, accounts[file])}
        self._remove(small | {path.name for path in self.shards.iterdir()} - set(accounts))
        return {file: account for file, account in accounts.items() if file not in small}

    def _remove(self, files: set[str]):
        """Removes shards and their accounts, if they exist."""
        for file in files:
            _path(self._folder, file).unlink(missing_ok=True)
            (self.shards / file).unlink(missing_ok=True)

    def _is_whole(self, file: str, account: Account) -> bool:
        if not account.examples or not self._has_its_size(file, account):
            return not account.examples
        with open(self.shards / file, "rb") as shard:
            return hashlib.file_digest(shard, "sha256").hexdigest() == account.sha256

    def _has_its_size(self, file: str, account: Account) -> bool:
        path = self.shards / file
        return not account.examples or path.is_file() and path.stat().st_size == account.bytes


def accounts_in(folder: Path, files: Iterable[str]) -> dict[str, Account]:
    """Returns the accounts of shards in a folder, by name, in the order of `files`."""
    return {file: account for file in files if (account := _account(_path(folder, file)))}


def has_shards(folder: Path) -> bool:
    """Whether a stopped conversion has left a complete shard."""
    return any((folder / SHARDS / path.stem).exists() for path in folder.glob(f"*{_ACCOUNT}"))


def tasks_of(folder: Path) -> int | None:
    """Returns the number of tasks of the conversion in a folder; None if there is none."""
    key = _key(folder)
    return key and key["tasks"]


def _account(path: Path) -> Account | None:
    digest, _, text = (_read(path) or b"").partition(b"\n")
    return Account(**json.loads(text)) if digest.decode("latin-1") == _digest(text) else None


def _path(folder: Path, file: str) -> Path:
    return folder / f"{file}{_ACCOUNT}"


def _clear_for(folder: Path, existing: dict | None, key: dict, report: Callable[[str], object]):
    """Clears a folder for a conversion, or refuses if another conversion may be running there."""
    if existing and max(key["tasks"], existing["tasks"]) > 1:
        meanings = [_MEANINGS[name] for name, value in key.items() if existing.get(name) != value]
        raise PartialError(
            f"{folder} is of a conversion with another {', '.join(meanings)}: expected the same; "
            "remove it to begin anew"
        )
    if has_shards(folder):
        report(f"{folder}: removed, it is of other images, options or versions")
    clear(folder, keep=SCRATCH)


def _key(folder: Path) -> dict | None:
    """Returns the key of the conversion in a folder; if damaged, only "tasks"; None if missing."""
    text, whole = _read(folder / _KEY), {"tasks": 1}
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        return {**whole, **json.loads(text)}
    return whole


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
