"""Locks, and files and folders that are complete or absent, whenever process or machine stops."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO

_LOCKS = ".lock"
_LOCK = f"conversion{_LOCKS}"
_TEMPORARY = ".tmp"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class BusyError(ValueError):
    """Another process holds a lock."""


def cache() -> Path:
    """Returns `$CONVNETS_CACHE`, or `~/.cache/convnets`; the folder may not exist yet."""
    return Path(os.environ.get("CONVNETS_CACHE") or "~/.cache/convnets").expanduser()


def partial(output: Path) -> Path:
    """Returns the folder in which an output is made, `OUTPUT.partial`."""
    return output.with_name(f"{output.name}.partial")


@contextlib.contextmanager
def claimed(
    output: Path, on_wait: Callable[[], object] | None = None, *, shared: bool = False
) -> Iterator[Path]:
    """Yields the folder `OUTPUT.partial`, locked against other processes.

    Files that an earlier process left there are kept, and the folder stays afterwards. A claim ends
    with its process at the latest: the kernel releases the lock.

    Args:
        output: Path that the folder, or one in it, will be published as.
        on_wait: Function called before waiting for another process; None raises an error instead.
        shared: Whether other processes may hold shared claims at the same time.

    Raises:
        BusyError: If another process holds a claim and there is no `on_wait`.
        FileExistsError: If `OUTPUT.partial` is not a folder of a conversion.
        OSError: If the file system has no locks.
    """
    folder = partial(output)
    mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        lock = _open_lock(folder)
        with lock:
            acquire(lock, mode, f"another process is converting into {output}", on_wait)
            if is_same(lock, folder / _LOCK):
                yield folder
                return


@contextlib.contextmanager
def locked(
    folder: Path, name: str, message: str, on_wait: Callable[[], object] | None = None
) -> Iterator[None]:
    """Holds a named lock in a claimed folder, for work that its sharers do one at a time.

    Args:
        folder: A claimed folder.
        name: Name of the work.
        message: Message of the error if another process has the lock.
        on_wait: Function called before waiting for another process; None raises an error instead.

    Raises:
        BusyError: If another process has the lock and there is no `on_wait`.
    """
    with open(folder / f"{name}{_LOCKS}", "a+b") as lock:
        acquire(lock, fcntl.LOCK_EX, message, on_wait)
        yield


def acquire(lock: IO, mode: int, message: str, on_wait: Callable[[], object] | None = None) -> None:
    """Locks an open file until it is closed, at the latest by the end of the process.

    Args:
        lock: The file.
        mode: `fcntl.LOCK_EX` or `fcntl.LOCK_SH`.
        message: Message of the error if another process has the lock.
        on_wait: Function called before waiting for another process; None raises an error instead.

    Raises:
        BusyError: If another process has the lock and there is no `on_wait`.
        OSError: If the file system has no locks.
    """
    try:
        fcntl.flock(lock, mode | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        if on_wait is None:
            raise BusyError(message) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise OSError(
            f"{lock.name}: its file system cannot lock files ({error.strerror}), expected one that "
            "can"
        ) from None
    on_wait()
    fcntl.flock(lock, mode)


def is_same(lock: BinaryIO, path: Path) -> bool:
    """Whether an open file is still the file at a path."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False


def publish(folder: Path, output: Path) -> None:
    """Moves a folder, whose files are on the disk already, to its final path.

    Raises:
        FileExistsError: If `output` is taken.
    """
    sync(folder)
    try:
        folder.rename(output)
    except OSError as error:
        raise FileExistsError(f"{output} cannot be created: {error.strerror}") from None
    sync(output.parent)


def clear(folder: Path, *, keep: str = "") -> None:
    """Empties a claimed folder, except for its locks and for names that begin with `keep`."""
    for path in folder.iterdir():
        if path.suffix == _LOCKS or (keep and path.name.startswith(keep)):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def remove(folder: Path) -> None:
    """Removes a claimed folder; the lock last, since a process that can lock it may write there."""
    clear(folder)
    for path in folder.glob(f"*{_LOCKS}"):
        if path.name != _LOCK:
            path.unlink()
    (folder / _LOCK).unlink()
    with contextlib.suppress(OSError):  # claimed by another process since
        folder.rmdir()


def write(path: Path, data: bytes) -> None:
    """Writes a file atomically and durably."""
    replace(path, lambda temporary: temporary.write_bytes(data))


def replace(path: Path, save: Callable[[Path], object]) -> None:
    """Creates or replaces a file atomically and durably.

    Args:
        path: Path of the file.
        save: Function that writes the content to a temporary path in the same folder.
    """
    temporary = _temporary(path)
    try:
        mode = _mode_of_new(temporary)
        save(temporary)
        os.chmod(
            temporary, mode & path.parent.stat().st_mode
        )  # not more accessible than its folder
        _sync_file(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder, which becomes `path` once all its files are on the disk.

    After an error there is no new folder, and none of those above it that were made.
    """
    missing = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync_file(file)
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in missing:
            with contextlib.suppress(OSError):  # not empty: it holds the new folder
                parent.rmdir()


def remove_litter(folder: Path) -> None:
    """Removes the temporary files that killed processes left in a folder or one below it."""
    for path in [*folder.glob(f".*{_TEMPORARY}"), *folder.glob(f"*/.*{_TEMPORARY}")]:
        if _is_alive(path.suffixes[-2:-1]):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Flushes the names of a folder's files to the disk."""
    with contextlib.suppress(PermissionError):  # some file systems do not open folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _temporary(path: Path) -> Path:
    """Returns the temporary path of a file or folder, in a form that `remove_litter` recognises."""
    return path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")


def _mode_of_new(path: Path) -> int:
    """Returns the mode of new files here; reading the umask would change it for a moment."""
    path.unlink(missing_ok=True)
    path.touch()
    mode = path.stat().st_mode & 0o777
    path.unlink()  # a link cannot be made where there is a file
    return mode


def _sync_file(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _is_alive(suffixes: list[str]) -> bool:
    """Whether another process, named by the suffix of a temporary file, still runs."""
    number = "".join(suffixes)[1:]
    if not number.isdecimal() or int(number) == os.getpid():
        return False
    try:
        os.kill(int(number), 0)
    except PermissionError:  # another user's
        return True
    except (OSError, OverflowError):
        return False
    return True


def _open_lock(folder: Path) -> BinaryIO:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            names = os.listdir(folder)
            if names and _LOCK not in names:
                raise FileExistsError(f"{folder} exists and is not the folder of a conversion")
            return open(folder / _LOCK, "a+b")  # over NFS, a shared lock needs to read
        except FileNotFoundError:  # removed by its process just now
            continue
