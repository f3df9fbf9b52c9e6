"""Worker processes that decode images, to store or to examine them.

They are started as commands of their own: `multiprocessing` would import the main module, and
with it TensorFlow, in every one. Parent and worker exchange length-prefixed pickles over the
worker's stdin and stdout, which nobody else can reach. A worker ends when its stdin closes,
however the parent ended.
"""

import contextlib
import errno
import functools
import itertools
import os
import queue
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

from data.images import kinds
from data.images.decode import (
    BadImage,
    Storage,
    Stored,
    bits_for,
    largest_sample,
    may_be_deep,
    prepare,
    store,
)
from data.images.examples import Example
from data.images.resized import Resized
from data.images.sandbox import (
    OUT_OF_TIME,
    REPOSITORY,
    confine,
    limit_time,
    receive,
    send,
)

SECONDS_PER_IMAGE = 30  # CPU time; the largest images take 2 to 8 seconds
CRASHED = "decoder crashed"
UNREADABLE = "cannot be read"  # prefix of the reason for a file that cannot be opened

_CHUNK_EXAMPLES = 128
_CHUNK_BYTES = 4 << 20
_CHUNKS_AHEAD = 3  # per worker: results are in order, so fast workers wait for slow ones
# Errors of a disk or of the network to it: the next attempt may succeed.
DISK_ERRORS = {
    *(errno.EIO, errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM, errno.ENOLINK),
    *(errno.ESTALE, errno.EREMOTEIO, errno.ETIMEDOUT, errno.ENOTCONN, errno.ESHUTDOWN),
    *(errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
}

Result = TypeVar("Result")


@dataclass(frozen=True)
class Rejected:
    """An image that was rejected.

    Attributes:
        reason: Reason, in the form of rejected.csv.
        unread: Name of the image if the disk failed, so that the image may be sound; else empty.
    """

    reason: str
    unread: str = ""


class DiskError(RuntimeError):
    """A disk, or the network to it, fails; the images on it may be sound."""


def stored(
    examples: Iterable[Example], storage: Storage, workers: int
) -> Iterator[Stored | Rejected]:
    """Encodes images as records hold them, in worker processes, until their disk fails.

    Args:
        examples: The images.
        storage: How to store them.
        workers: Number of processes.

    Yields:
        One result for every example, in their order.

    Raises:
        DiskError: If the disk fails.
        RuntimeError: If a worker fails for another reason than the image.
    """
    return _until_disk_error(
        map_examples(examples, functools.partial(_store, storage=storage), workers)
    )


def prepared(
    examples: Iterable[Example], storage: Storage | Resized, workers: int
) -> Iterator[Stored | Rejected]:
    """Decodes images for immediate use, like `stored` but without compression."""
    return map_examples(examples, functools.partial(_prepare, storage=storage), workers)


def map_examples(
    examples: Iterable[Example], work: Callable[[Example], Result], workers: int
) -> Iterator[Result | Rejected]:
    """Calls a function for each image, in worker processes.

    If a file crashes its worker, or takes more than `SECONDS_PER_IMAGE` of CPU time, the worker is
    replaced and the file rejected; a file that needs more than `MEMORY` is rejected too. Waiting
    for a disk, or a suspended machine, does not count.

    Args:
        examples: The images.
        work: Returns the result for an example, or raises `BadImage`. Its module does not import
            TensorFlow.
        workers: Number of processes.

    Yields:
        One result for every example, in their order.

    Raises:
        RuntimeError: If a worker fails for another reason than the image.
    """
    pool = WorkerPool(workers)
    try:
        yield from pool.map_examples(examples, work)
    finally:
        pool.close()


def _until_disk_error(results: Iterator[Result | Rejected]) -> Iterator[Result | Rejected]:
    """Yields results; raises DiskError at the first that reports a failing disk."""
    with contextlib.closing(results):
        for result in results:
            if isinstance(result, Rejected) and result.unread:
                raise DiskError(
                    f"{result.unread} {result.reason}: the disk or network fails, not the image"
                )
            yield result


def bits_in_use(examples: Iterable[Example], workers: int) -> int:
    """Finds the number of bits that images with 16 bits per channel use, for `Storage.bits`.

    Args:
        examples: The images; only the first bytes of most are read.
        workers: Number of processes.

    Raises:
        DiskError: If the disk fails.
        RuntimeError: If a worker fails for another reason than the image.
    """
    with contextlib.closing(
        _until_disk_error(map_examples(examples, _largest_sample, workers))
    ) as results:
        samples = (each for each in results if not isinstance(each, Rejected))
        return bits_for(max(samples, default=0))


def _largest_sample(example: Example) -> int:
    return largest_sample(example.read()) if may_be_deep(example.read(kinds.HEAD)) else 0


class WorkerPool:
    """A pool of worker processes; several threads may give it work."""

    def __init__(self, workers: int, *, chunk_size: int = _CHUNK_EXAMPLES) -> None:
        """Starts the processes.

        Args:
            workers: Number of processes.
            chunk_size: Maximum number of examples sent to a process at once.
        """
        self._chunk_size = chunk_size
        self._workers = [_Worker() for _ in range(workers)]
        self._idle = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(workers)

    def prepared(
        self, examples: Iterable[Example], storage: Storage | Resized
    ) -> Iterator[Stored | Rejected]:
        """Decodes images for immediate use, as the function `prepared` does."""
        return self.map_examples(examples, functools.partial(_prepare, storage=storage))

    def map_examples(
        self, examples: Iterable[Example], work: Callable[[Example], Result]
    ) -> Iterator[Result | Rejected]:
        """Calls a function for each image, as the function `map_examples` does."""
        pending = deque()
        try:
            for chunk in _chunks(examples, self._chunk_size):
                pending.append(self._threads.submit(self._run_chunk, work, chunk))
                if len(pending) > _CHUNKS_AHEAD * len(self._workers):
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            for job in pending:
                job.cancel()

    def close(self) -> None:
        """Ends the processes, even in the middle of their work."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.stop()

    def _run_chunk(
        self, work: Callable[[Example], Result], chunk: list[Example]
    ) -> list[Result | Rejected]:
        worker = self._idle.get()
        try:
            return worker.do(work, chunk)
        finally:
            self._idle.put(worker)


def _chunks(examples: Iterable[Example], max_examples: int) -> Iterator[list[Example]]:
    """Groups at most `max_examples` small files, to send fewer messages to the workers."""
    chunk, size = [], 0
    for example in examples:
        chunk.append(example)
        size += example.size or 0
        if len(chunk) == max_examples or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


class _Worker:
    """The parent's end of one worker process."""

    def __init__(self):
        self._stopped = False
        self._start()

    def do(
        self, work: Callable[[Example], Result], chunk: list[Example]
    ) -> list[Result | Rejected]:
        """Sends a chunk to the process; if it crashes, sends the images one by one."""
        try:
            send(self._process.stdin, (chunk, work, SECONDS_PER_IMAGE))
            results = receive(self._process.stdout)
        except (EOFError, BrokenPipeError):
            if self._stopped:
                return []
            late = self._restart() == -OUT_OF_TIME
            reason = f"takes over {SECONDS_PER_IMAGE} s" if late else CRASHED
            if len(chunk) == 1:
                return [Rejected(reason)]
            return list(itertools.chain(*(self.do(work, [example]) for example in chunk)))
        if isinstance(results, str):
            raise RuntimeError(f"a worker failed: {results}")
        return results

    def stop(self):
        self._stopped = True
        self._process.kill()
        self._process.wait()

    def _start(self):
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from data.images import workers; workers.main()", os.getcwd()],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def _restart(self) -> int:
        """Replaces a process that has died or must end; returns its exit code."""
        self._process.kill()  # does nothing to a process that has died
        code = self._process.wait()
        self._start()
        return code


def store_example(example: Example, storage: Storage) -> Stored | Rejected:
    """Encodes one image in this process, which ends if that takes over `SECONDS_PER_IMAGE`."""
    return _run_guarded(example, functools.partial(_store, storage=storage), SECONDS_PER_IMAGE)


def _store(example: Example, storage: Storage) -> Stored:
    return store(example.read(), storage)


def _prepare(example: Example, storage: Storage | Resized) -> Stored:
    return prepare(example.read(), storage)


def _run_guarded(
    example: Example, work: Callable[[Example], Result], seconds: int
) -> Result | Rejected:
    limit_time(seconds)
    try:
        return work(example)
    except BadImage as error:
        return Rejected(str(error))
    except OSError as error:
        unread = example.name if error.errno in DISK_ERRORS else ""
        return Rejected(f"{UNREADABLE}: {error.strerror}", unread)
    except MemoryError:
        return Rejected("needs more memory than there is")
    finally:
        limit_time(0)


def _serve(requests: BinaryIO, replies: BinaryIO):
    """Answers requests until the parent closes its end or ends."""
    while True:
        try:
            chunk, work, seconds = receive(requests)
        except EOFError:
            return
        try:
            results = [_run_guarded(example, work, seconds) for example in chunk]
        except Exception:
            results = traceback.format_exc().replace("\n", " | ")
        try:
            send(replies, results)
        except BrokenPipeError:
            return


def main():
    """Serves one parent process over stdin and stdout, in its working folder."""
    confine(sys.argv[1])
    with os.fdopen(os.dup(1), "wb") as replies:
        os.dup2(2, 1)  # a stray print must not end up between the replies
        _serve(sys.stdin.buffer, replies)
        # Python would flush a reply that the parent no longer reads, and complain.
        os._exit(0)
