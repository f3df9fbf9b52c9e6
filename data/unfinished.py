"""Folders and files that are there whole or not at all, whenever process or machine stops."""

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def unfinished(output: Path) -> Iterator[Path]:
    """Yields a folder beside `output` that takes its name at the end, or is removed.

    What processes of this machine that are gone have left there is removed first.

    Raises:
        FileExistsError: If `output` is taken at the end.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    ours = f"{output.name}.partial-{socket.gethostname()}-"
    for path in output.parent.iterdir():
        if path.name.startswith(ours) and not _is_alive(path.name.removeprefix(ours)):
            shutil.rmtree(path, ignore_errors=True)
    folder = output.with_name(f"{ours}{os.getpid()}")
    folder.mkdir()
    try:
        yield folder
        _sync(folder)
        try:
            folder.rename(output)
        except OSError as error:
            raise FileExistsError(f"{output} cannot be made: {error.strerror}") from None
        _sync(output.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write(path: Path, data: bytes):
    """Writes a file that is complete on the disk when it appears under its name."""
    temporary = path.with_name(f"{path.name}.partial")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync(path.parent)


def _sync(folder: Path):
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_alive(process: str) -> bool:
    """Whether a process other than this one runs under a number."""
    try:
        os.kill(int(process), 0)
    except PermissionError:
        return True
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    return int(process) != os.getpid()
