"""Folders and files that are there whole or not at all, whenever process or machine stops."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_LOCK = "conversion.lock"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextlib.contextmanager
def claimed(output: Path, on_wait: Callable[[], object] | None = None) -> Iterator[Path]:
    """Yields the folder `OUTPUT.partial`, which no other process claims meanwhile.

    It holds what an earlier process left there, and stays. Claims end with their process: the
    kernel releases the lock.

    Args:
        output: What the folder will become, or a part of it.
        on_wait: Called before waiting for another process; None not to wait.

    Raises:
        ValueError: If another process has it and there is no `on_wait`.
        FileExistsError: If there is something else of that name.
        OSError: If the file system has no locks.
    """
    folder = output.with_name(f"{output.name}.partial")
    while True:
        lock = _open_lock(folder)
        with lock:
            _acquire(lock, output, on_wait)
            if _is_same(lock, folder / _LOCK):
                yield folder
                return


def publish(folder: Path, output: Path):
    """Gives a folder whose files are on the disk its final place.

    Raises:
        FileExistsError: If `output` is taken.
    """
    sync(folder)
    try:
        folder.rename(output)
    except OSError as error:
        raise FileExistsError(f"{output} cannot be made: {error.strerror}") from None
    sync(output.parent)


def clear(folder: Path, *, keep: str = ""):
    """Empties a claimed folder but for the lock and the file or folder named `keep`."""
    for path in folder.iterdir():
        if path.name in (_LOCK, keep):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def remove(folder: Path):
    """Removes a claimed folder; the lock last, since whoever can lock it may write there."""
    clear(folder)
    (folder / _LOCK).unlink()
    with contextlib.suppress(OSError):  # claimed by another process since
        folder.rmdir()


def write(path: Path, data: bytes):
    """Writes a file that is complete on the disk when it appears under its name."""
    temporary = path.with_name(f"{path.name}.partial")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync(path.parent)


def sync(folder: Path):
    """Makes sure that the names of a folder's files are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_lock(folder: Path) -> BinaryIO:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            names = os.listdir(folder)
            if names and _LOCK not in names:
                raise FileExistsError(f"{folder} is in the way: it is not of a conversion")
            return open(folder / _LOCK, "ab")
        except FileNotFoundError:  # removed by its process just now
            continue


def _acquire(lock: BinaryIO, output: Path, on_wait: Callable[[], object] | None):
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        if on_wait is None:
            raise ValueError(f"another process is converting into {output}") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise OSError(
            f"{output}: its file system cannot lock files ({error.strerror}), expected one that can"
        ) from None
    on_wait()
    fcntl.flock(lock, fcntl.LOCK_EX)


def _is_same(lock: BinaryIO, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False
