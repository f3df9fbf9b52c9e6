"""Measures promises of the input pipeline besides speed: memory, seeking, steady throughput.

    python benchmarks/pipeline.py memory --data=SHARDS [--seconds=120]
    python benchmarks/pipeline.py seek
    python benchmarks/pipeline.py borders --data=SHARDS [--repeat=5]

SHARDS is a folder written by `python -m data.convert`; a small train split is repeated until it is
several blocks long. `seek` makes its own data: as many records as ImageNet has, but small ones, in
1,024 shards.
"""

import argparse
import dataclasses
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime import console

with console.quiet_import():
    import cv2
    import numpy as np
    import tensorflow as tf

    from data import pipeline
    from data.pipeline import augment, order
    from data.shards import datasets, records

SIZE, BATCH_SIZE = 224, 128
BLOCKS = 6
IMAGENET = 1_281_167
SHARDS = 1024
FOREVER = 100_000  # steps, more than any measurement takes
SAMPLES = 12  # samples of the resident memory


def main(argv: list[str] | None = None):
    """Parses the command line, measures one of the promises and prints the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("promise", choices=PROMISES)
    parser.add_argument("--data", help="folder of shards")
    parser.add_argument("--seconds", type=float, default=120, help="of memory's measurement")
    parser.add_argument("--repeat", type=int, default=5, help="turns of borders")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args(argv)
    PROMISES[options.promise](options)


def memory(options: argparse.Namespace):
    """Measures resident memory while batches are made, and prints the bound from the settings."""
    dataset = several_blocks(datasets.load(options.data))
    batches = iter(training(dataset, options.threads))
    every, begin = options.seconds / SAMPLES, time.perf_counter()
    print("seconds  steps  resident MB  of it files MB")
    steps = 0
    for sample in range(SAMPLES + 1):
        while time.perf_counter() - begin < sample * every:
            next(batches)
            steps += 1
        resident, files = resident_bytes()
        print(f"{sample * every:7.0f} {steps:6} {resident / 1e6:12,.0f} {files / 1e6:15,.0f}")


def seek(options: argparse.Namespace):
    """Measures the time to the first batch of an epoch, and to the last one."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = imagenet_sized(Path(folder))
        last = IMAGENET // BATCH_SIZE - 1
        next(iter(training(dataset, options.threads, size=8)))  # start-up
        for step in (0, last):
            shards = dataset.shards("train")
            begin = time.perf_counter()
            blocks = order.training_blocks(
                shards, batch_size=BATCH_SIZE, seed=0, step=step, steps=step + 1
            )
            next(iter(training(dataset, options.threads, size=8, step=step)))
            passed = time.perf_counter() - begin
            read = sum(block.records for block in blocks)
            print(f"step {step}: first batch after {passed:.2f} s, {read:,} records read for it")


def borders(options: argparse.Namespace):
    """Measures throughput over several blocks, with and without shuffling."""
    dataset = several_blocks(datasets.load(options.data))

    def unshuffled() -> Iterator:
        while True:
            yield from pipeline.test_batches(
                dataset, "train", size=SIZE, crops=1, batch_size=BATCH_SIZE, threads=options.threads
            )

    still = augment.POLICIES["none"]
    ways = {
        "shuffled": iter(training(dataset, options.threads, policy=still)),
        "in stored order": unshuffled(),
    }
    rates = {name: [] for name in ways}
    steps = dataset.num_examples("train") // BATCH_SIZE  # an epoch, which crosses every border once
    for _, (name, batches) in itertools.product(range(options.repeat), ways.items()):
        begin = time.perf_counter()
        for _ in itertools.islice(batches, steps):
            pass
        rates[name].append(steps * BATCH_SIZE / (time.perf_counter() - begin))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    for name, found in rates.items():
        print(f"{name:16} {medians[name]:8,.0f} images/s  ({min(found):,.0f} to {max(found):,.0f})")
    print(f"ratio {medians['shuffled'] / medians['in stored order']:.3f}")


def training(
    dataset: datasets.Dataset,
    threads: int,
    *,
    policy: augment.Policy = augment.POLICIES["alexnet"],
    size: int = SIZE,
    step: int = 0,
) -> tf.data.Dataset:
    """Returns training batches, decoded on the fly."""
    return pipeline.train_batches(
        dataset,
        policy,
        size=size,
        batch_size=BATCH_SIZE,
        seed=0,
        step=step,
        steps=FOREVER,
        threads=threads,
    )


def several_blocks(dataset: datasets.Dataset) -> datasets.Dataset:
    """Repeats the shards of a data set until its train split is `BLOCKS` blocks long."""
    shards = dataset.shards("train")
    times = -(-BLOCKS * order.BLOCK_BYTES // sum(shard.bytes for shard in shards))
    return dataclasses.replace(dataset, splits={"train": times * shards})


def imagenet_sized(folder: Path) -> datasets.Dataset:
    """Writes a data set of as many records as ImageNet has, all of one 8 x 8 image."""
    jpeg = cv2.imencode(".jpg", np.full([8, 8, 3], 128, np.uint8))[1].tobytes()
    record = records.example_bytes(
        encoded=jpeg, format="JPEG", label=0, height=8, width=8, filename="grey.jpg"
    )
    shards = []
    for index in range(SHARDS):
        examples = IMAGENET * (index + 1) // SHARDS - IMAGENET * index // SHARDS
        path = folder / records.shard_name("train", index, SHARDS)
        with tf.io.TFRecordWriter(str(path)) as writer:
            for _ in range(examples):
                writer.write(record)
        shards.append(datasets.Shard(str(path), examples, path.stat().st_size, ""))
    zeros = (0.0, 0.0, 0.0)
    splits = {"train": tuple(shards)}
    encodings = {"train": "jpeg"}
    return datasets.Dataset(folder, ("grey",), zeros, zeros, {}, splits, "", encodings)


def resident_bytes() -> tuple[int, int]:
    """Returns the resident memory of this process, and how much of it is mapped files."""
    rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(1024 * int(rows[name].split()[0]) for name in ("VmRSS", "RssFile"))


PROMISES = {"memory": memory, "seek": seek, "borders": borders}

if __name__ == "__main__":
    main()
