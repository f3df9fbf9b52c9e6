"""Fingerprints of images on disk, by their content and not by path or time."""

import hashlib
import heapq
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from data.images.decode import BadImage
from data.images.examples import Example, Splits
from data.images.workers import DISK_ERRORS
from data.sources import archives

SAMPLE = 1_000  # images whose bytes are read
SAMPLE_BYTES = 1 << 20  # maximum of each
_READERS = 16  # threads: a network disk answers slowly


def fingerprint(kind: str, class_names: Iterable[str], splits: Splits) -> str:
    """Digests names, labels and sizes of all images, and the bytes of a fixed sample of them.

    Args:
        kind: Kind of the source.
        class_names: Names of the classes, by label.
        splits: Examples of each split; those of a compressed archive as listed.

    Raises:
        OSError: If an image exists, and may be read, but cannot be.
    """
    digest = hashlib.sha256(repr((kind, tuple(class_names))).encode())
    examples = []
    for split, split_examples in sorted(splits.items()):
        for example in split_examples:
            row = (split, example.name, example.label, _size(example))
            digest.update(repr(row).encode())
        examples += split_examples
    with ThreadPoolExecutor(_READERS) as readers:
        for sampled in readers.map(_sampled, _sample(examples)):
            digest.update(sampled)
    return digest.hexdigest()


def earlier_fingerprint(kind: str, class_names: Iterable[str], splits: Splits) -> str:
    """Computes the fingerprint of earlier versions, which includes offsets in archives and times.

    Their runs and converted copies refer to it.
    """
    digest = hashlib.sha256(repr((kind, tuple(class_names))).encode())
    files = set()
    for split, examples in sorted(splits.items()):
        for example in examples:
            row = (split, example.name, example.label, example.offset, example.size)
            if example.path not in files:
                files.add(example.path)
                status = os.stat(example.path, follow_symlinks=os.path.exists(example.path))
                row += (status.st_size, status.st_mtime_ns)
            digest.update(repr(row).encode())
    return digest.hexdigest()


def _size(example: Example) -> int:
    """Returns the size of the unpacked image in bytes; 0 behind a broken link."""
    if example.packing:
        return example.packing.size
    if example.size is None:
        return os.path.getsize(example.path) if os.path.exists(example.path) else 0
    return example.size


def _sample(examples: list[Example]) -> Iterator[Example]:
    """Yields the images whose names have the lowest digests, so that additions replace few of them.

    An image of a compressed archive cannot be read without all before it: the archive represents
    its images.
    """
    compressed = sorted(filter(archives.is_compressed_tar, {each.path for each in examples}))
    for path in compressed:
        size = os.path.getsize(path)
        yield Example(path, 0, path, max(0, size - SAMPLE_BYTES))  # its end has the checksums
    plain = (each for each in examples if each.path not in compressed)
    yield from heapq.nsmallest(SAMPLE, plain, key=_name_digest)


def _name_digest(example: Example) -> bytes:
    return hashlib.sha256(os.fsencode(example.name)).digest()


def _sampled(example: Example) -> bytes:
    """Digests an image's first bytes; an unreadable one gives its error, to be rejected later."""
    try:
        return hashlib.sha256(example.read(SAMPLE_BYTES)).digest()
    except (BadImage, OSError) as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        return type(error).__name__.encode()
