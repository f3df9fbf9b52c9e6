"""Grain with OpenCV, from ArrayRecord files or from memory: batches [B, S, S, 3]."""

import functools
import math
from collections.abc import Iterator

import cv2
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from grain import MapDataset, MultiprocessingOptions, ReadOptions, sources

from benchmarks.peers import AREA, PREFETCH, RATIO
from benchmarks.setting import Setting

cv2.setNumThreads(0)


class Pixels:
    """Decoded images, memory-mapped by each process at its first access."""

    def __init__(self, setting: Setting) -> None:
        self._setting, self._images = setting, len(setting.labels())
        self._pixels = None

    def __len__(self) -> int:
        """Returns the number of images."""
        return self._images

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns an image."""
        if self._pixels is None:
            self._pixels = self._setting.pixels()
        return self._pixels[index]


def grain(setting: Setting) -> Iterator[np.ndarray]:
    """Loads images in worker processes, exactly shuffled."""
    if setting.about.decodes:
        source = sources.ArrayRecordDataSource([_written(setting)])
    else:
        source = Pixels(setting)
    vary = functools.partial(_varied, setting=setting)
    images = MapDataset.source(source).seed(0).shuffle().repeat().random_map(vary)
    images = images.batch(setting.batch_size, drop_remainder=True)
    read = ReadOptions(num_threads=1, prefetch_buffer_size=PREFETCH)
    workers = MultiprocessingOptions(setting.threads, per_worker_buffer_size=PREFETCH)
    yield from images.to_iter_dataset(read).mp_prefetch(workers)


def _written(setting: Setting) -> str:
    """Writes the JPEG files to an ArrayRecord file and returns its path."""
    path = str(setting.path("images.array_record"))
    writer = ArrayRecordWriter(path, "group_size:1")
    for file, _ in setting.files():
        writer.write(file.read_bytes())
    writer.close()
    return path


def _varied(element: bytes | np.ndarray, draw: np.random.Generator, *, setting: Setting):
    image = element
    if isinstance(element, bytes):
        image = cv2.imdecode(np.frombuffer(element, np.uint8), cv2.IMREAD_COLOR_RGB)
    if setting.padding:
        image = cv2.copyMakeBorder(image, *[setting.padding] * 4, cv2.BORDER_CONSTANT)
    if setting.about.resizes:
        top, left, height, width = _window(*image.shape[:2], draw)
        image = image[top : top + height, left : left + width]
        image = cv2.resize(image, [setting.size] * 2, interpolation=cv2.INTER_LINEAR)
    else:
        top = draw.integers(image.shape[0] - setting.size + 1)
        left = draw.integers(image.shape[1] - setting.size + 1)
        image = image[top : top + setting.size, left : left + setting.size]
    return cv2.flip(image, 1) if draw.random() < 0.5 else image


def _window(height: int, width: int, draw: np.random.Generator) -> tuple[int, int, int, int]:
    """Draws the window of a random-resized-crop."""
    for _ in range(10):
        area = height * width * draw.uniform(*AREA)
        ratio = math.exp(draw.uniform(*np.log(RATIO)))
        high, wide = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < high <= height and 0 < wide <= width:
            top, left = draw.integers(height - high + 1), draw.integers(width - wide + 1)
            return top, left, high, wide
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side
