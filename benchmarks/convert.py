"""Measures how the throughput of a conversion grows with the number of worker processes.

    python benchmarks/convert.py --data=FOLDER [--images=5000] [--repeat=5] [--short_side=256]
                                 [--encoding=auto|jpeg|raw] [--scratch=FOLDER]

FOLDER is any convertible data; its images are repeated up to `--images`. The reference is a single
process, pinned to one core, that stores the images one by one and writes them to the same shards,
without workers or communication. It is compared with a whole conversion after its estimate: start
of the workers, work of the parent on the same cores, and fsync of the shards. A ratio of 1 means
that N workers are N times as fast. All candidates take turns; the table shows median and range of
the turns. Files come from the page cache. The last columns are valid on a busy machine too: CPU
time per image, of parent and workers, and the ratio that it allows.
"""

import argparse
import itertools
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime import console

with console.quiet_import():
    import cv2

    from data.conversion import journal, plan, writer
    from data.images.decode import ENCODINGS, Storage, Stored
    from data.images.workers import store_example
    from data.shards import records
    from data.sources import sources

REFERENCE = 0  # number of workers that stands for the single process


def one_process(planned: list[plan.Planned], storage: Storage, folder: Path):
    """Stores and writes all images in this process, on one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        for shard in planned:
            images = ((example, store_example(example, storage)) for example in shard.examples)
            kept = (writer.record(*pair) for pair in images if isinstance(pair[1], Stored))
            records.write_shard(folder / shard.file, kept)
    finally:
        os.sched_setaffinity(0, cores)


def with_workers(planned: list[plan.Planned], storage: Storage, folder: Path, workers: int):
    """Runs the part of a conversion that follows its estimate."""
    writer.write_shards(
        journal.Journal(folder, {"tasks": 1}, print),
        planned,
        storage,
        workers=workers,
        limit=writer.Limit(planned, 1, folder / "rejected.csv"),
        advance=lambda: None,
    )


def candidates(planned: list[plan.Planned], storage: Storage) -> dict[int, Callable]:
    """Returns functions that convert to a new folder, by number of workers."""
    cores = len(os.sched_getaffinity(0))
    counts = sorted({2**i for i in range(cores.bit_length()) if 2**i < cores} | {cores})

    def work(workers: int) -> Callable[[Path], None]:
        if workers == REFERENCE:
            return lambda folder: one_process(planned, storage, folder)
        return lambda folder: with_workers(planned, storage, folder, workers)

    return {workers: work(workers) for workers in (REFERENCE, *counts)}


def measure(work: Callable[[Path], None], scratch: str | None) -> tuple[float, float]:
    """Measures a turn; returns its wall time and the CPU time, children included, in seconds."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        cpu, start = cpu_seconds(), time.perf_counter()
        work(Path(folder))
        return time.perf_counter() - start, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """Returns the CPU time of this process and its terminated children."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def show(turns: dict[int, list[tuple[float, float]]], images: int):
    """Prints the table."""
    reference, reference_cpu = map(statistics.median, zip(*turns[REFERENCE], strict=True))
    print(f"{images:,} images")
    print(f"{'':12} images/s {'range':>17}    ratio   CPU us/image   CPU ratio")
    for workers, times in turns.items():
        walls, cpus = zip(*times, strict=True)
        wall, cpu = statistics.median(walls), statistics.median(cpus)
        name = "one process" if workers == REFERENCE else f"{workers} workers"
        spread = f"{images / max(walls):,.0f} - {images / min(walls):,.0f}"
        row = f"{name:12} {images / wall:8,.0f} {spread:>17}"
        ratio = reference / wall / max(1, workers)
        print(f"{row} {ratio:8.3f} {cpu / images * 1e6:14,.0f} {reference_cpu / cpu:11.3f}")


def main(argv: list[str] | None = None):
    """Parses the command line, measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="what to convert")
    parser.add_argument("--images", type=int, default=5000, help="of every turn")
    parser.add_argument("--repeat", type=int, default=5, help="turns of every candidate")
    parser.add_argument("--short_side", type=int, default=256, help="of stored images, in pixels")
    parser.add_argument("--encoding", choices=ENCODINGS, default="auto")
    parser.add_argument("--scratch", help="folder to write to and remove")
    options = parser.parse_args(argv)
    cv2.setNumThreads(1)
    storage = Storage(short_side=options.short_side, encoding=options.encoding)
    source = sources.open_source(options.data, validation_fraction=0.0)
    with tempfile.TemporaryDirectory(dir=options.scratch) as spool:
        images = itertools.cycle(source.list_splits(Path(spool))["train"])
        train = list(itertools.islice(images, options.images))
        planned = plan.plan({"train": train}, storage, seed=0, shards=None)
        ways = candidates(planned, storage)
        turns = {workers: [] for workers in ways}
        for _ in range(options.repeat):
            for workers, work in ways.items():
                turns[workers].append(measure(work, options.scratch))
    show(turns, len(train))


if __name__ == "__main__":
    main()
