"""Measures how many images a second different ways of reading training data give.

    python benchmarks/input.py --data=FOLDER [--seconds=5] [--repeat=3] [--size=224] [--threads=N]

FOLDER holds class folders of JPEGs, large enough to be worth reducing. All candidates run in one
process and take turns; the table shows the median of the turns. Files come from the page cache.
"""

import argparse
import itertools
import os
import queue
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import keras
import numpy as np

from data import augment, convert, datasets, decode, pipeline, sources

BATCH_SIZE = 128
LOADER_THREADS = 4  # of the 2017 application
RESIZED = 256  # its images, shorter side
WARM_UP = 6  # batches, more than any candidate prepares ahead
FOREVER = 10**6  # steps

STORAGES = {
    "jpeg": decode.Storage(short_side=256, encoding="jpeg"),
    "original": decode.Storage(short_side=0, encoding="jpeg"),
    "raw": decode.Storage(short_side=256, encoding="raw"),
}


def shards(dataset: datasets.Dataset, policy: str, size: int, threads: int) -> Iterator[int]:
    """Our pipeline; yields the size of every batch, like all candidates."""
    batches = pipeline.train_batches(
        dataset,
        augment.POLICIES[policy],
        size=size,
        batch_size=min(BATCH_SIZE, dataset.num_examples("train")),
        seed=0,
        steps=FOREVER // BATCH_SIZE,
        threads=threads,
    )
    for images, _, _ in batches:
        yield len(images)


def python_threads(files: list[str], size: int) -> Iterator[int]:
    """The 2017 application's way: cv2 in Python threads that feed a queue."""
    loaded = queue.Queue(maxsize=2 * BATCH_SIZE)

    def load(worker: int):
        choose = random.Random(worker)
        while True:
            loaded.put(_loaded(choose.choice(files), size, choose))

    for worker in range(LOADER_THREADS):
        threading.Thread(target=load, args=(worker,), daemon=True).start()
    while True:
        yield len(np.stack([loaded.get() for _ in range(BATCH_SIZE)]))


def _loaded(file: str, size: int, choose: random.Random) -> np.ndarray:
    image = cv2.imread(file)
    height, width = image.shape[:2]
    scale = RESIZED / min(height, width)
    shape = (max(RESIZED, round(scale * width)), max(RESIZED, round(scale * height)))
    image = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
    top = choose.randrange(image.shape[0] - size + 1)
    left = choose.randrange(image.shape[1] - size + 1)
    image = image[top : top + size, left : left + size]
    return cv2.flip(image, 1) if choose.random() < 0.5 else image


def keras_directory(folder: str, size: int) -> Iterator[int]:
    """What Keras offers: whole images decoded, the centre resized; float32, not mirrored."""
    batches = keras.utils.image_dataset_from_directory(
        folder,
        image_size=(size, size),
        batch_size=BATCH_SIZE,
        crop_to_aspect_ratio=True,
        verbose=False,
    )
    for images, _ in batches.repeat():
        yield len(images)


def decoding(encoded: list[bytes], threads: int) -> Iterator[int]:
    """The ceiling: libjpeg-turbo decodes whole images from memory, nothing else."""
    buffers = itertools.cycle([np.frombuffer(jpeg, np.uint8) for jpeg in encoded])

    def decode_one(buffer: np.ndarray):
        cv2.imdecode(buffer, cv2.IMREAD_COLOR)

    with ThreadPoolExecutor(threads) as pool:
        while True:
            yield len(list(pool.map(decode_one, itertools.islice(buffers, BATCH_SIZE))))


def candidates(options: argparse.Namespace, scratch: Path) -> dict[str, Iterator[int]]:
    """All ways to compare, by name; converts the folder first."""
    source = sources.open_source(options.data, validation_fraction=0.0)
    converted = {}
    for name, storage in STORAGES.items():
        convert.convert(source, scratch / name, storage)
        converted[name] = datasets.load(scratch / name)
    files = [example.path for example in sources.open_images(options.data)]
    originals = [Path(file).read_bytes() for file in files]
    reduced = [decode.store(jpeg, STORAGES["jpeg"]).encoded for jpeg in originals]
    size, threads = options.size, options.threads
    return {
        "ours, 256-pixel JPEG shards": shards(converted["jpeg"], "alexnet", size, threads),
        "ours, original JPEG shards, random-resized-crop": shards(
            converted["original"], "inception", size, threads
        ),
        "ours, raw shards": shards(converted["raw"], "alexnet", size, threads),
        "the 2017 way, cv2 in Python threads": python_threads(files, size),
        "keras image_dataset_from_directory": keras_directory(options.data, size),
        "ceiling: decoding the 256-pixel JPEGs": decoding(reduced, threads),
        "ceiling: decoding the original JPEGs": decoding(originals, threads),
    }


def images_per_second(batches: Iterator[int], seconds: float) -> float:
    """Runs one candidate for a while, after what it had prepared."""
    for _ in range(WARM_UP):
        next(batches)
    images, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        images += next(batches)
    return images / passed


def measure(ways: dict[str, Iterator[int]], seconds: float, repeat: int) -> dict[str, float]:
    """Median images a second of every candidate, which take turns."""
    turns = [
        {name: images_per_second(batches, seconds) for name, batches in ways.items()}
        for _ in range(repeat)
    ]
    return {name: statistics.median(turn[name] for turn in turns) for name in ways}


def show(rates: dict[str, float]):
    """Prints the table; ratios are to the 2017 way."""
    reference = next(rate for name, rate in rates.items() if "2017" in name)
    print(f"{'':48} images/s    ratio")
    for name, rate in rates.items():
        print(f"{name:48} {rate:8,.0f} {rate / reference:7.2f}x")


def main(argv: list[str] | None = None):
    """Parses the command line, converts, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of class folders of JPEGs")
    parser.add_argument("--seconds", type=float, default=5, help="of every turn")
    parser.add_argument("--repeat", type=int, default=3, help="turns of every candidate")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args(argv)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as scratch:
        show(measure(candidates(options, Path(scratch)), options.seconds, options.repeat))


if __name__ == "__main__":
    main()
