"""Upper bounds for any input pipeline: single parts of its work, as fast as possible."""

import itertools
import queue
import threading
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from benchmarks.setting import Setting

BUFFERS = 4  # batches per thread

cv2.setNumThreads(0)


def decoding(setting: Setting) -> Iterator[range]:
    """Only decodes whole images from memory with libjpeg-turbo."""
    encoded = [np.frombuffer(path.read_bytes(), np.uint8) for path, _ in setting.files()]
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION

    def work(worker: int) -> Iterator[None]:
        for jpeg in itertools.cycle(encoded[worker :: setting.threads] or encoded):
            cv2.imdecode(jpeg, flags)
            yield

    return _in_threads(work, setting)


def copying(setting: Setting) -> Iterator[range]:
    """Only copies windows of decoded images into a few batches."""
    pixels, size = np.array(setting.pixels()), setting.size
    room = pixels.shape[1] - size + 1

    def work(worker: int) -> Iterator[None]:
        choose = np.random.default_rng(worker)
        batches = np.empty([BUFFERS * setting.batch_size, size, size, 3], np.uint8)
        while True:
            order = choose.permutation(len(pixels))
            corners = choose.integers(room, size=[len(pixels), 2])
            for place, index, (top, left) in zip(
                itertools.cycle(range(len(batches))), order, corners, strict=False
            ):
                batches[place] = pixels[index, top : top + size, left : left + size]
                yield

    return _in_threads(work, setting)


def taking(setting: Setting) -> Iterator[range]:
    """Only copies whole small images from memory into batches."""
    pixels = np.array(setting.pixels())

    def work(worker: int) -> Iterator[None]:
        choose = np.random.default_rng(worker)
        batch = np.empty([setting.batch_size, *pixels.shape[1:]], np.uint8)
        while True:
            np.take(pixels, choose.integers(len(pixels), size=len(batch)), axis=0, out=batch)
            yield from itertools.repeat(None, len(batch))

    return _in_threads(work, setting)


def _in_threads(work: Callable[[int], Iterator[None]], setting: Setting) -> Iterator[range]:
    """Yields batches of work that threads do image by image, a few batches ahead."""
    done = queue.Queue(maxsize=2)

    def run(worker: int) -> None:
        images = work(worker)
        while True:
            for _ in itertools.islice(images, setting.batch_size):
                pass
            done.put(range(setting.batch_size))

    for worker in range(setting.threads):
        threading.Thread(target=run, args=(worker,), daemon=True).start()
    while True:
        yield done.get()
