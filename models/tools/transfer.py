"""Downloads a file over HTTP, going on where an earlier attempt was broken off."""

import http.client
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from email.utils import formatdate
from http import HTTPStatus
from typing import BinaryIO

from tqdm import tqdm

from runtime import console

TIMEOUT = 30  # seconds without a byte
CHUNK_BYTES = 1 << 20
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+)")
_START_OVER = {HTTPStatus.PRECONDITION_FAILED, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE}


class FailedError(Exception):
    """A download that failed; its message is the reason."""


def fetch(url: str, file: BinaryIO, name: str) -> None:
    """Completes a file, with a progress bar on a terminal or one line elsewhere.

    Args:
        url: Where the file is.
        file: File, open for appending, that may hold the beginning already.
        name: What to call it on the terminal.

    Raises:
        FailedError: If there is no answer, or not the whole file; what came stays in `file`.
        OSError: If the disk is full or fails.
    """
    response, total = _answer(url, file)
    if response is None:
        return
    received = file.seek(0, os.SEEK_END)
    is_terminal = sys.stderr.isatty()
    if not is_terminal:
        size = "" if total is None else f" ({console.size(total)})"
        say(f"downloading {name}{size}")
    bar = {"total": total, "initial": received, "desc": name, "unit": "B", "unit_scale": True}
    with response, tqdm(**bar, disable=not is_terminal) as shown:
        for chunk in _chunks(response):
            file.write(chunk)
            received += len(chunk)
            shown.update(len(chunk))
    file.flush()
    if total is not None and received != total:
        raise FailedError(f"expected {total:,} bytes, received {received:,}")


def say(line: str) -> None:
    """Writes a line to stderr."""
    print(console.printable(line), file=sys.stderr, flush=True)


def reason(error: BaseException) -> str:
    """Returns what the system says of an error, or the first line of its message."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}".strip()
    cause = getattr(error, "reason", error)  # of a URLError: the error that it is for
    text = getattr(cause, "strerror", None) or str(cause).strip() or type(cause).__name__
    return text.splitlines()[0].rstrip(".")


def _answer(url: str, file: BinaryIO) -> tuple[http.client.HTTPResponse | None, int | None]:
    """Asks for what a file lacks; empties the file if all of it is sent.

    Returns:
        The response, and the size of the whole file in bytes, None if unknown. There is no response
        if the file is complete.
    """
    begun = file.seek(0, os.SEEK_END)
    response = _request(url, file, begun)
    first, total = _content_range(response.headers)
    if response.status == HTTPStatus.PARTIAL_CONTENT and begun and first == begun:
        return response, total
    if response.status == HTTPStatus.OK:
        file.truncate(0)
        length = response.headers.get("Content-Length", "")
        return response, int(length) if length.isdecimal() else None
    response.close()
    if begun and response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and total == begun:
        return None, total
    if not begun:
        raise FailedError(f"unexpected answer, HTTP {response.status}")
    file.truncate(0)
    return _answer(url, file)


def _request(url: str, file: BinaryIO, begun: int) -> http.client.HTTPResponse:
    """Returns the response, which may be one of `_START_OVER` if there are bytes already."""
    headers = {"User-Agent": "convnets"}
    if begun:
        # A file that was changed since is another one: its rest does not fit.
        since = formatdate(os.fstat(file.fileno()).st_mtime, usegmt=True)
        headers |= {"Range": f"bytes={begun}-", "If-Unmodified-Since": since}
    try:
        request = urllib.request.Request(url, headers=headers)
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if begun and error.code in _START_OVER:
            return error
        error.close()
        raise FailedError(reason(error)) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FailedError(reason(error)) from error


def _content_range(headers: Message) -> tuple[int | None, int | None]:
    """Returns the first byte of a partial response, and the size of the file; None if unknown."""
    match = _CONTENT_RANGE.match(headers.get("Content-Range", ""))
    first, total = match.groups() if match else (None, None)
    return (first and int(first)), (total and int(total))


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yields the body as it comes; errors of the network, unlike those of the disk, are reasons."""
    while True:
        try:
            chunk = response.read1(CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise FailedError(reason(error)) from error
        if not chunk:
            return
        yield chunk
