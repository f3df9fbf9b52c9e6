"""Folders and files that are there whole or not at all, whenever process or machine stops."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_LOCKS = ".lock"
_LOCK = f"conversion{_LOCKS}"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class BusyError(ValueError):
    """Another process has what is asked for."""


def partial(output: Path) -> Path:
    """Returns `OUTPUT.partial`, the folder in which an output is made."""
    return output.with_name(f"{output.name}.partial")


@contextlib.contextmanager
def claimed(
    output: Path, on_wait: Callable[[], object] | None = None, *, shared: bool = False
) -> Iterator[Path]:
    """Yields the folder `OUTPUT.partial`, which no other process claims meanwhile.

    It holds what an earlier process left there, and stays. Claims end with their process: the
    kernel releases the lock.

    Args:
        output: What the folder will become, or a part of it.
        on_wait: Called before waiting for another process; None not to wait.
        shared: Whether other processes may have shared claims meanwhile.

    Raises:
        BusyError: If another process has it and there is no `on_wait`.
        FileExistsError: If there is something else of that name.
        OSError: If the file system has no locks.
    """
    folder = partial(output)
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        lock = _open_lock(folder)
        with lock:
            _acquire(lock, how, f"another process is converting into {output}", on_wait)
            if _is_same(lock, folder / _LOCK):
                yield folder
                return


@contextlib.contextmanager
def locked(
    folder: Path, name: str, taken: str, on_wait: Callable[[], object] | None = None
) -> Iterator[None]:
    """Holds what processes with a shared claim of a folder do one at a time.

    Args:
        folder: A claimed folder.
        name: Of what they do.
        taken: What to say if another process does it.
        on_wait: As for `claimed`.

    Raises:
        BusyError: As `claimed`.
    """
    with open(folder / f"{name}{_LOCKS}", "a+b") as lock:
        _acquire(lock, fcntl.LOCK_EX, taken, on_wait)
        yield


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
    """Empties a claimed folder but for its locks and what has a name that begins with `keep`."""
    for path in folder.iterdir():
        if path.suffix == _LOCKS or (keep and path.name.startswith(keep)):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def remove(folder: Path):
    """Removes a claimed folder; the lock last, since whoever can lock it may write there."""
    clear(folder)
    for path in folder.glob(f"*{_LOCKS}"):
        if path.name != _LOCK:
            path.unlink()
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
            return open(folder / _LOCK, "a+b")  # over NFS, a shared lock needs to read
        except FileNotFoundError:  # removed by its process just now
            continue


def _acquire(lock: BinaryIO, how: int, taken: str, on_wait: Callable[[], object] | None):
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        if on_wait is None:
            raise BusyError(taken) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise OSError(
            f"{lock.name}: its file system cannot lock files ({error.strerror}), expected one that "
            "can"
        ) from None
    on_wait()
    fcntl.flock(lock, how)


def _is_same(lock: BinaryIO, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False
