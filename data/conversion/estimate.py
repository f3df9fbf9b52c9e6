"""Estimates time and size of a conversion on this machine, from a sample."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data.conversion.plan import bytes_at_most
from data.conversion.writer import Result, record
from data.images.decode import Storage, Stored
from data.images.examples import Example
from data.images.workers import stored
from data.shards import records
from runtime import console

_MANY_PER_WORKER = 2000  # images; fewer are converted as fast as a sample
_SAMPLE = 0.05  # fraction of all images
_SAMPLE_PER_WORKER = (512, 2000)  # images: minimum, maximum
_SECONDS = 1.5  # seconds spent on the sample
_WARM_UP = 0.25  # fraction of the sample not measured, while workers start
_MARGIN = 1.05  # factor of the estimated size


@dataclass(frozen=True)
class Estimate:
    """Number of images left to convert, and their estimated time and size."""

    images: int
    seconds: float
    bytes: int

    def __str__(self) -> str:
        """Formats the estimate on one line."""
        time, size = console.duration(self.seconds), console.size(self.bytes)
        return f"{self.images:,} images: about {time}, {size}"


def estimate(
    examples: list[Example], storage: Storage, workers: int, scratch: Path
) -> Estimate | None:
    """Converts a sample, which is removed afterwards.

    Args:
        examples: The images left to convert, in their (random) stored order.
        storage: How to store the images.
        workers: Number of decoding processes.
        scratch: Folder to write to.

    Returns:
        The estimate for all examples; None for few.
    """
    if len(examples) <= _MANY_PER_WORKER * workers:
        return None
    minimum, maximum = (count * workers for count in _SAMPLE_PER_WORKER)
    count = min(max(minimum, int(_SAMPLE * len(examples))), maximum, len(examples))
    sample = examples[:: len(examples) // count]
    times, path = [time.perf_counter()], scratch / "sample.tfrecord"
    with contextlib.closing(stored(sample, storage, workers)) as results:
        records.write_records(path, _timed(zip(sample, results, strict=False), times))
    written = path.stat().st_size
    path.unlink()
    seen = len(times) - 1
    first = int(_WARM_UP * seen)
    seconds = (times[-1] - times[first]) / (seen - first)
    return Estimate(len(examples), seconds * len(examples), written * len(examples) // seen)


def check_space(
    folder: Path, examples: list[Example], storage: Storage, expected: Estimate | None
) -> int:
    """Checks that the disk has space for a conversion.

    Args:
        folder: Folder of the shards.
        examples: The images left to convert.
        storage: How to store the images.
        expected: Estimate from a sample; None to use the maximum that the images can take.

    Returns:
        Free space in bytes.

    Raises:
        OSError: If there is too little space.
    """
    needed = int(_MARGIN * expected.bytes) if expected else bytes_at_most(examples, storage)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"too little space for {folder}: expected {console.size(needed)}, "
            f"{console.size(free)} are free"
        )
    return free


def _timed(results: Iterator[Result], times: list[float]) -> Iterator[bytes]:
    """Yields records for `_SECONDS`, and appends the time of each result."""
    for example, image in results:
        times.append(time.perf_counter())
        if isinstance(image, Stored):
            yield record(example, image)
        if times[-1] - times[1] > _SECONDS:
            return
