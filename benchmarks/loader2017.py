"""The loader of the application of 2017: OpenCV in Python threads that feed a queue."""

import queue
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from benchmarks.setting import Setting

THREADS = 4
CROP_OF_IMAGE = 0.875  # 224 of 256 pixels

cv2.setNumThreads(0)


def batches(setting: Setting) -> Iterator[np.ndarray]:
    """Yields batches of the original images, uint8 [B, S, S, 3], BGR."""
    for images, _ in labelled_batches(setting):
        yield images


def labelled_batches(setting: Setting) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the batches of `batches` with labels, int32 [B]."""
    folders = sorted(Path(setting.originals).iterdir())
    files = [
        (str(path), label) for label, folder in enumerate(folders) for path in folder.iterdir()
    ]
    loaded = queue.Queue(maxsize=2 * setting.batch_size)

    def load(worker: int) -> None:
        choose = random.Random(worker)
        while True:
            file, label = choose.choice(files)
            loaded.put((_loaded(file, setting, choose), label))

    for worker in range(THREADS):
        threading.Thread(target=load, args=(worker,), daemon=True).start()
    while True:
        images, labels = zip(*(loaded.get() for _ in range(setting.batch_size)), strict=True)
        yield np.stack(images), np.array(labels, np.int32)


def _loaded(file: str, setting: Setting, choose: random.Random) -> np.ndarray:
    """Loads an image, resizes or pads it, and crops and mirrors it at random."""
    image, size = cv2.imread(file), setting.size
    if setting.padding:
        image = cv2.copyMakeBorder(image, *[setting.padding] * 4, cv2.BORDER_CONSTANT)
    else:
        height, width = image.shape[:2]
        shorter = round(size / CROP_OF_IMAGE)
        scale = shorter / min(height, width)
        shape = (max(shorter, round(scale * width)), max(shorter, round(scale * height)))
        image = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
    top = choose.randrange(image.shape[0] - size + 1)
    left = choose.randrange(image.shape[1] - size + 1)
    image = image[top : top + size, left : left + size]
    return cv2.flip(image, 1) if choose.random() < 0.5 else image
