"""Keeps results run by run: a file of JSON lines, to which every run appends its own.

Days may lie between two runs, and machines may differ. Imports no framework.
"""

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path


def read(path: Path, say: Callable[[str], object] = print) -> list[dict]:
    """Reads all results in the order of their lines; a missing file has none.

    A line that was cut off, by a kill or a full disk, is left out with a message: its run counts as
    not done.

    Args:
        path: File of JSON lines.
        say: Function that prints a message.
    """
    if not path.exists():
        return []
    results = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            result = json.loads(line)
        except ValueError:
            result = None
        if isinstance(result, dict):
            results.append(result)
        elif line.strip():
            say(f"{path.name}: line {number} is damaged and left out, expected a JSON object")
    return results


def append(path: Path, result: dict) -> None:
    """Appends a result as one line, whole and on the disk when this returns.

    Raises:
        OSError: If the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
        cut_off = size and file.read(1) != b"\n"  # ends a line that was left unfinished
        file.write(b"\n" * bool(cut_off) + json.dumps(result).encode() + b"\n")
        os.fsync(file.fileno())
