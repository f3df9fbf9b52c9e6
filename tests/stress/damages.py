"""What may happen to a file."""

import random
from pathlib import Path


def put(path: Path, content: bytes | None) -> None:
    """Makes a file hold something else; None removes it."""
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)


def _flipped(data: bytes, place: int, choose: random.Random) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << choose.randrange(8)]) + data[place + 1 :]


DAMAGES = {
    "flipped bit": _flipped,
    "cut off": lambda data, place, choose: data[:place],
    "zeroed page": lambda data, place, choose: data[:place] + bytes(512) + data[place + 512 :],
    "emptied": lambda data, place, choose: b"",
    "missing": lambda data, place, choose: None,
}


def mutated(data: bytes, choose: random.Random) -> bytes:
    """Changes a file in one to eight places: bits, bytes, lengths, parts of it."""
    for _ in range(choose.choice((1, 1, 2, 4, 8))):
        place = choose.randrange(len(data) + 1)
        data = choose.choice(_MUTATIONS)(data, place, choose)
    return data


def _overwritten(data: bytes, place: int, choose: random.Random) -> bytes:
    new = choose.choice((b"\0", b"\xff", b"\x7f\xff", b"\x80\0\0\0", choose.randbytes(4)))
    return data[:place] + new + data[place + len(new) :]


def _repeated(data: bytes, place: int, choose: random.Random) -> bytes:
    return data[: place + choose.randrange(64)] + data[place:]


def _removed(data: bytes, place: int, choose: random.Random) -> bytes:
    return data[:place] + data[place + choose.randrange(64) :]


def _swapped(data: bytes, place: int, choose: random.Random) -> bytes:
    other, length = choose.randrange(len(data) + 1), choose.randrange(64)
    return data[:place] + data[other : other + length] + data[place + length :]


_MUTATIONS = (
    lambda data, place, choose: _flipped(data, place, choose) if place < len(data) else data,
    _overwritten,
    _repeated,
    _removed,
    _swapped,
)
