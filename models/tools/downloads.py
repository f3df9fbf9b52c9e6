"""Downloads published weights once, into `$CONVNETS_CACHE/weights`.

A file is complete or absent: it is written as `NAME.part`, from which a broken download goes on,
checked, and renamed.
"""

import contextlib
import fcntl
import hashlib
import http.client
import os
import shutil
import socket
import sys
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tqdm import tqdm

from runtime import files

ON_HUB = "model.safetensors"  # name of the weights in a repository
_TIMEOUT = 30  # seconds without any data
_PIECE = 1 << 20  # bytes
_MOST = 10  # times the size of its archive that a file may have; weights hardly shrink


class Checksum(NamedTuple):
    """The beginning of a file's checksum."""

    algorithm: str  # of hashlib
    prefix: str  # hexadecimal


class NotDownloaded(OSError):
    """A file could not be downloaded; the message says which one to put where."""


def folder() -> Path:
    """Returns the folder of downloaded weights; it may not exist yet."""
    return files.cache() / "weights"


def from_url(url: str, name: str, checksum: Checksum | None = None) -> Path:
    """Returns a file of the folder, downloaded if it is not there.

    Args:
        url: Address of the file, or of a .zip that holds it.
        name: Name of the file.
        checksum: What its checksum begins with (default: not checked).

    Raises:
        NotDownloaded: If it cannot be downloaded, or the checksum is another.
    """
    path = folder() / name
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{path}.lock", "a+b") as lock:
        files.acquire(lock, fcntl.LOCK_EX, "", lambda: _say(f"waiting for {name}"))
        if not path.is_file():
            part = Path(f"{path}.part")
            with _explained(url, path):
                _download(url, part)
                if url.endswith(".zip"):
                    part = _extracted(part, name)
                _check(part, checksum)
            os.replace(part, path)
    return path


def from_hub(repository: str, name: str) -> Path:
    """Returns the weights of a repository on the Hugging Face hub, downloaded if need be.

    Args:
        repository: Name of the repository.
        name: Name of a file that is used instead if it is in the folder.

    Raises:
        NotDownloaded: If they cannot be downloaded.
        ValueError: If the package `huggingface_hub` is missing.
    """
    path = folder() / name
    if path.is_file():
        return path
    try:
        from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
        from huggingface_hub.utils import logging
    except ImportError:
        raise ValueError(
            "weights of timm need huggingface_hub, not installed here: "
            f"pip install -r requirements-weights.txt, or put the file at {path}"
        ) from None
    logging.set_verbosity_error()  # of its five attempts, only the last
    place = {"repo_id": repository, "filename": ON_HUB, "cache_dir": folder() / "hub"}
    found = try_to_load_from_cache(**place)
    if isinstance(found, str):
        return Path(found)
    with _explained(f"{repository}/{ON_HUB}", path):
        if not urllib.request.getproxies():  # without a network, fail at once
            socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, None)
        try:
            return Path(hf_hub_download(**place))
        except (HfHubHTTPError, LocalEntryNotFoundError) as error:
            raise OSError(" ".join(str(error).split())) from error


@contextlib.contextmanager
def _explained(what: str, path: Path):
    """Says in one line what was not downloaded, and where to put it."""
    try:
        yield
    except (OSError, http.client.HTTPException, zipfile.BadZipFile) as error:
        reason = getattr(error, "reason", None) or error
        raise NotDownloaded(f"cannot download {what} ({reason}): put the file at {path}") from error


def _download(url: str, part: Path) -> None:
    """Downloads a file, from where an earlier download broke off if the server can."""
    begun = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={begun}-"} if begun else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        part.unlink()  # nothing is left to fetch, or the file is another by now: from the beginning
        return _download(url, part)
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            begun = 0
        length = response.headers.get("Content-Length")
        total = begun + int(length) if length else None
        _say(f"downloading {url}" + (f", {total / 1e6:,.1f} MB" if total else ""))
        with (
            open(part, "ab" if begun else "wb") as file,
            tqdm(
                initial=begun, total=total, unit="B", unit_scale=True, disable=not _on_terminal()
            ) as bar,
        ):
            while piece := response.read(_PIECE):
                file.write(piece)
                bar.update(len(piece))
            received = file.tell()
    if total and received < total:
        raise ConnectionError(f"ended after {received:,} of {total:,} bytes")


def _extracted(archive: Path, name: str) -> Path:
    """Returns the one file of this name in an archive, which is removed."""
    part = archive.with_name(f"{name}.extracted")
    with zipfile.ZipFile(archive) as members:
        named = [member for member in members.infolist() if Path(member.filename).name == name]
        size = archive.stat().st_size
        if len(named) != 1 or named[0].file_size > _MOST * size:
            archive.unlink()
            raise zipfile.BadZipFile(f"expected one {name} in the archive, of plausible size")
        with members.open(named[0]) as member, open(part, "wb") as file:
            shutil.copyfileobj(member, file)
    archive.unlink()
    return part


def _check(part: Path, checksum: Checksum | None) -> None:
    """Removes a file with another checksum and raises OSError."""
    if checksum is None:
        return
    with open(part, "rb") as file:
        received = hashlib.file_digest(file, checksum.algorithm).hexdigest()
    if not received.startswith(checksum.prefix):
        part.unlink()
        raise OSError(
            f"wrong {checksum.algorithm}, expected {checksum.prefix}..., received {received}"
        )


def _on_terminal() -> bool:
    return sys.stderr.isatty()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
