"""What a conversion has finished: beside its shards lies an account of every whole one.

A conversion that was stopped goes on from here. Every sum is taken shard by shard, so that it does
not matter in how many goes the shards were written.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from data.unfinished import clear, sync, write

SCRATCH = "scratch"
SHARDS = "shards"

_VERSION = 1
_KEY = "conversion.json"
_ACCOUNT = ".account"


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
    """

    examples: int
    bytes: int
    sha256: str
    pixels: int
    sums: list[float]
    squares: list[float]
    rejected: list[list[str]]


class Journal:
    """The accounts of one conversion.

    Attributes:
        shards: The folder of its shards.
    """

    def __init__(self, folder: Path, key: dict, say: Callable[[str], object]):
        """Opens the journal of a conversion; another conversion's, with its shards, is removed.

        Args:
            folder: A claimed folder; what it calls `SCRATCH` is left alone.
            key: All that the bytes of the result depend on.
            say: Called with a line where the user should know.
        """
        self._folder = folder
        self.shards = folder / SHARDS
        text = json.dumps({**key, "journal_version": _VERSION}, indent=1).encode() + b"\n"
        if _read(folder / _KEY) != text:
            if has_shards(folder):
                say(f"{folder}: removed, it is of other images, options or versions")
            clear(folder, keep=SCRATCH)
            write(folder / _KEY, text)
        self.shards.mkdir(exist_ok=True)

    def add(self, file: str, account: Account):
        """Notes that a shard is complete and on the disk."""
        sync(self.shards)
        text = json.dumps(asdict(account)).encode()
        write(self._path(file), f"{_digest(text)}\n".encode() + text)

    def kept(self, files: Iterable[str], say: Callable[[str], object]) -> dict[str, Account]:
        """Finds the whole shards, reading all of their bytes, and removes all other files there.

        Args:
            files: Names of all shards of the conversion.
            say: Called with a line where there are any.

        Returns:
            The accounts of whole shards, by name, in the order of `files`.
        """
        files = list(files)
        accounts = {file: account for file in files if (account := self._account(file))}
        if accounts:
            say(f"going on: {len(accounts)} of {len(files)} shards are there in {self._folder}")
        with ThreadPoolExecutor() as pool:
            whole = list(pool.map(self._is_whole, accounts, accounts.values()))
        for file, is_whole in zip(list(accounts), whole, strict=True):
            if not is_whole:
                say(f"{file} is damaged, it is made again")
                del accounts[file]
        for path in self.shards.iterdir():
            if path.name not in accounts:
                path.unlink()
        return accounts

    def _account(self, file: str) -> Account | None:
        digest, _, text = (_read(self._path(file)) or b"").partition(b"\n")
        return Account(**json.loads(text)) if digest.decode("latin-1") == _digest(text) else None

    def _is_whole(self, file: str, account: Account) -> bool:
        path = self.shards / file
        if not account.examples or not path.is_file():
            return not account.examples
        if path.stat().st_size != account.bytes:
            return False
        with open(path, "rb") as shard:
            return hashlib.file_digest(shard, "sha256").hexdigest() == account.sha256

    def _path(self, file: str) -> Path:
        return self._folder / f"{file}{_ACCOUNT}"


def has_shards(folder: Path) -> bool:
    """Whether a stopped conversion has left any shard to go on from."""
    return any((folder / SHARDS / path.stem).exists() for path in folder.glob(f"*{_ACCOUNT}"))


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
