"""What a conversion has finished: beside its shards lies an account of every whole one.

A conversion that was stopped goes on from here. Every sum is taken shard by shard, so that it does
not matter in how many goes, or by how many tasks, the shards were written.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime.files import clear, locked, sync, write

SCRATCH = "scratch"  # so begin the names of the folders for what is of no use afterwards
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
    """A folder does not hold what a conversion needs to go on."""


@dataclass(frozen=True)
class Account:
    """What there is to know of a shard that is on the disk.

    Attributes:
        examples: How many it holds; one without any has no file.
        bytes: Of the file.
        sha256: Of the file, in hexadecimal.
        pixels: In all its images.
        sums: Of every channel (RGB) over these pixels, 0..255 each.
        squares: Likewise, of their squares.
        rejected: Name and reason of every image that did not become a record.
        formats: Of its records, each once.
        bits: `Storage.bits`, with which they were made.
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
        shards: The folder of its shards.
    """

    def __init__(self, folder: Path, key: dict, say: Callable[[str], object]):
        """Opens the journal of a conversion.

        Another conversion's is removed, with its shards; but where one of the two is made by
        several tasks that is an error, since another task may be at work.

        Args:
            folder: A claimed folder; its locks, and what has a name like `SCRATCH`, are left alone.
            key: All that the bytes of the result depend on, and the number of "tasks".
            say: Called with a line where the user should know.

        Raises:
            PartialError: If the folder is of another conversion, or of other tasks.
        """
        self._folder = folder
        self.shards = folder / SHARDS
        key = {**key, "journal_version": _VERSION}
        with locked(folder, "journal", f"{folder} is being opened", on_wait=lambda: None):
            found = _key(folder)
            if found != key:
                _make_way(folder, found, key, say)
                write(folder / _KEY, json.dumps(key, indent=1).encode() + b"\n")
            self.shards.mkdir(exist_ok=True)

    def add(self, file: str, account: Account):
        """Notes that a shard is complete and on the disk."""
        sync(self.shards)
        text = json.dumps(asdict(account)).encode()
        write(_path(self._folder, file), f"{_digest(text)}\n".encode() + text)

    def kept(self, files: Iterable[str], say: Callable[[str], object]) -> dict[str, Account]:
        """Finds the whole ones among some shards, reading all of their bytes, and removes the rest.

        Args:
            files: Names of the shards; nobody else works on them.
            say: Called with a line where there are any.

        Returns:
            The accounts of whole shards, by name, in the order of `files`.
        """
        files = list(files)
        accounts = accounts_in(self._folder, files)
        if accounts:
            say(f"going on: {len(accounts)} of {len(files)} shards are there in {self._folder}")
        with ThreadPoolExecutor() as pool:
            whole = list(pool.map(self._is_whole, accounts, accounts.values()))
        for file, is_whole in zip(list(accounts), whole, strict=True):
            if not is_whole:
                say(f"{file} is damaged, it is made again")
                del accounts[file]
        self._forget(set(files) - set(accounts))
        return accounts

    def complete(self, files: Iterable[str]) -> dict[str, Account]:
        """Finds the shards that are there in full size, and removes all else that is there.

        Args:
            files: Names of all shards of the conversion.

        Returns:
            Their accounts, by name, in the order of `files`.
        """
        accounts = accounts_in(self._folder, files)
        small = {file for file in accounts if not self._has_its_size(file, accounts[file])}
        self._forget(small | {path.name for path in self.shards.iterdir()} - set(accounts))
        return {file: account for file, account in accounts.items() if file not in small}

    def _forget(self, files: set[str]):
        """Removes shards and their accounts, where there are any."""
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
    """Returns the accounts that a folder has of some shards, by name, in the order of `files`."""
    return {file: account for file in files if (account := _account(_path(folder, file)))}


def has_shards(folder: Path) -> bool:
    """Whether a stopped conversion has left any shard to go on from."""
    return any((folder / SHARDS / path.stem).exists() for path in folder.glob(f"*{_ACCOUNT}"))


def tasks_of(folder: Path) -> int | None:
    """By how many tasks the conversion in a folder is made; None if there is none."""
    found = _key(folder)
    return found and found["tasks"]


def _account(path: Path) -> Account | None:
    digest, _, text = (_read(path) or b"").partition(b"\n")
    return Account(**json.loads(text)) if digest.decode("latin-1") == _digest(text) else None


def _path(folder: Path, file: str) -> Path:
    return folder / f"{file}{_ACCOUNT}"


def _make_way(folder: Path, found: dict | None, key: dict, say: Callable[[str], object]):
    """Clears a folder for the conversion of a key, or refuses to."""
    if found and max(key["tasks"], found["tasks"]) > 1:
        meanings = [_MEANINGS[name] for name, value in key.items() if found.get(name) != value]
        raise PartialError(
            f"{folder} is of a conversion with another {', '.join(meanings)}: expected the same; "
            "remove it to begin anew"
        )
    if has_shards(folder):
        say(f"{folder}: removed, it is of other images, options or versions")
    clear(folder, keep=SCRATCH)


def _key(folder: Path) -> dict | None:
    """What a folder is of; without the rest if that is damaged."""
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
