"""Downloads published weights, once, into `$CONVNETS_CACHE/weights`.

A file appears there whole and checked, or not at all. Until then its bytes are in `NAME.part`, from
where the next attempt goes on. A file that was put there by hand is used without any network.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import sys
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from models.tools import transfer
from runtime import console, extras, files

_UNPACKED_BYTES = 4 << 30  # upper bound; the largest weights, VGG-19's, have 0.6 GB
# What reading a damaged or unusual ZIP archive raises; RuntimeError: of members that are encrypted.
_BAD_ZIP = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError)


class DownloadError(OSError):
    """A file could not be downloaded; the message says which one to put where."""


class _WrongError(Exception):
    """A file that came whole and is not the expected one."""


def folder() -> Path:
    """Returns the folder of the weights; it may not exist yet."""
    return files.cache() / "weights"


def local(name: str) -> Path | None:
    """Finds weights that were downloaded before or put there by hand.

    Args:
        name: Name of the file in `folder()`.

    Raises:
        ValueError: If `name` is no name of a file.
    """
    path = _place(name)
    return path if path.is_file() else None


def from_url(
    url: str,
    *,
    name: str | None = None,
    hash_prefix: str | None = None,
    algorithm: str = "sha256",
    zipped: bool = False,
) -> Path:
    """Finds or downloads a file.

    Any number of processes may ask for a file at the same time: one downloads it, the others wait.

    Args:
        url: Where the file is, or the ZIP archive that holds it.
        name: Name of the file (default: the last part of `url`, without ".zip" if `zipped`).
        hash_prefix: Hexadecimal beginning of the file's checksum (default: only the size is
            checked, if the server says it).
        algorithm: Name of the checksum in `hashlib`.
        zipped: Whether `url` is a ZIP archive, of which only the member `name` is unpacked.

    Returns:
        Path of the file in `folder()`.

    Raises:
        ValueError: If `url` is not of HTTP, or `name` is no name of a file.
        DownloadError: If it fails; the message says where to put the file by hand.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"wrong address of weights, expected http(s)://..., received {url}")
    name = name or _name(url, zipped)
    if found := local(name):
        return found
    path = _place(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _claimed(_part(path.with_name(f"{name}.zip") if zipped else path), name) as file:
        if path.is_file():  # another process has downloaded it since
            return path
        try:
            transfer.fetch(url, file, name)
            part = _unpacked(file, path) if zipped else Path(file.name)
            if hash_prefix:
                _check(part, hash_prefix, algorithm)
        except (transfer.FailedError, _WrongError) as error:
            if isinstance(error, _WrongError):  # the next attempt would not make it right
                file.truncate(0)
                _part(path).unlink(missing_ok=True)
            raise _failure(url, str(error), path) from error
        files.replace(path, part.rename)
        if zipped:
            os.unlink(file.name)
    return path


def from_hub(
    repository: str, filename: str = "model.safetensors", *, revision: str | None = None
) -> Path:
    """Finds or downloads a file of a repository on the hub that `huggingface_hub` knows.

    A file of the repository's name in `folder()`, as "resnet50.a1_in1k.safetensors", comes first,
    whatever the revision; then one that was downloaded before.

    Args:
        repository: "OWNER/NAME".
        filename: Name of the file in the repository.
        revision: Branch, tag or commit (default: the main branch).

    Returns:
        Path of the file, in `folder()` or in its folder "hub".

    Raises:
        ValueError: If `huggingface_hub` is not installed, or an argument is malformed.
        DownloadError: If it fails; the message says where to put the file by hand.
    """
    name = repository.rpartition("/")[2] + Path(filename).suffix
    if found := local(name):
        return found
    extras.require(["huggingface_hub"], f"download of {repository}", "requirements-weights.txt")
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    source = {"repo_id": repository, "filename": filename, "revision": revision}
    source["cache_dir"] = folder() / "hub"
    # Its advice is to log in, and every attempt is a line; our error says what has failed.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        known = huggingface_hub.try_to_load_from_cache(**source)
        if isinstance(known, str):
            return Path(known)
        if not sys.stderr.isatty():  # on a terminal, huggingface_hub draws a bar
            transfer.say(f"downloading {filename} of {repository}")
        url = huggingface_hub.hf_hub_url(repository, filename, revision=revision)
        huggingface_hub.get_hf_file_metadata(url)  # without a network: fails now, not after 23 s
        return Path(huggingface_hub.hf_hub_download(**source))
    except HFValidationError:
        raise
    except Exception as error:  # its HTTP library, which depends on its version, has its own
        reason = transfer.reason(error.__cause__ or error)
        raise _failure(f"{filename} of {repository}", reason, _place(name)) from error


def _name(url: str, zipped: bool) -> str:
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
    return name.removesuffix(".zip") if zipped else name


def _place(name: str) -> Path:
    if name in ("", ".", "..") or set(name) & {"/", "\\", "\0"}:
        raise ValueError(f"wrong name of weights, expected the name of a file, received {name!r}")
    return folder() / name


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _failure(what: str, reason: str, path: Path) -> DownloadError:
    line = f"cannot download {what} ({reason}): put the file at {path}, or give "
    return DownloadError(console.one_line(line) + "--model=NAME --init_from=SOURCE:FILE")


@contextlib.contextmanager
def _claimed(part: Path, name: str) -> Iterator[BinaryIO]:
    """Yields an open `NAME.part`, locked against others that download the same; none stays empty.

    The part itself is locked, so that no lock stays beside the weights. It may have become `NAME`,
    or have been removed, while its lock was waited for: then a new one is opened.
    """
    while True:
        with open(part, "a+b") as file:
            files.acquire(
                file,
                fcntl.LOCK_EX,
                f"another process is downloading {name}",
                lambda: transfer.say(f"{name}: another process is downloading it, waiting for it"),
            )
            if not files.is_same(file, part):
                continue
            try:
                yield file
            finally:
                if files.is_same(file, part) and not os.fstat(file.fileno()).st_size:
                    part.unlink()
            return


def _unpacked(archive: BinaryIO, path: Path) -> Path:
    """Unpacks the member that has the name of `path`, and nothing else, into its part.

    Raises:
        _WrongError: If there is no such member, or it is damaged.
    """
    part = _part(path)
    try:
        with zipfile.ZipFile(archive) as opened:
            names = opened.namelist()
            if names.count(path.name) != 1:
                received = ", ".join(names[:3]) or "an empty one"
                raise _WrongError(f"expected a ZIP archive of {path.name}, received {received}")
            member = opened.getinfo(path.name)
            if member.file_size > _UNPACKED_BYTES:
                raise _WrongError(f"{member.file_size:,} bytes in a ZIP archive, too many")
            with opened.open(member) as source, open(part, "wb") as unpacked:
                shutil.copyfileobj(source, unpacked, transfer.CHUNK_BYTES)
                received = unpacked.tell()
    except _BAD_ZIP as error:
        raise _WrongError(f"wrong ZIP archive: {transfer.reason(error)}") from error
    if received != member.file_size:
        raise _WrongError(f"expected {member.file_size:,} bytes, received {received:,}")
    return part


def _check(part: Path, hash_prefix: str, algorithm: str) -> None:
    """Compares the beginning of a file's checksum.

    Raises:
        _WrongError: If it is another one.
    """
    with open(part, "rb") as file:
        received = hashlib.file_digest(file, algorithm).hexdigest()
    if not received.startswith(hash_prefix.lower()):
        raise _WrongError(
            f"wrong checksum, expected {algorithm} {hash_prefix}, received "
            f"{received[: len(hash_prefix)]}"
        )
