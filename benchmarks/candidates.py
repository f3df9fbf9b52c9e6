"""Ways to read training data that need nothing but this project: ours, older ones, ceilings."""

import itertools
import queue
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import keras
import numpy as np
import tensorflow as tf

from benchmarks.setting import Setting
from benchmarks.turns import Candidate
from data import augment, datasets, pipeline

LOADER_THREADS = 4  # of the 2017 application
CROP_OF_IMAGE = 0.875  # of its crops: 224 of 256
FOREVER = 500_000  # steps
BUFFERS = 4  # of a ceiling

cv2.setNumThreads(0)


def ours(setting: Setting) -> Iterator[tf.Tensor]:
    """Our pipeline; yields uint8 [B, S, S, 3]."""
    for images, _, _ in our_batches(setting):
        yield images


def our_batches(setting: Setting) -> tf.data.Dataset:
    """Our pipeline's batches (images, labels, weights)."""
    return pipeline.train_batches(
        datasets.load(setting.path("shards")),
        augment.POLICIES[setting.about.policy],
        size=setting.size,
        batch_size=setting.batch_size,
        seed=0,
        steps=FOREVER,
        threads=setting.threads,
        **setting.about.options,
    )


def python_threads(setting: Setting) -> Iterator[np.ndarray]:
    """The 2017 application's way: cv2 in Python threads that feed a queue.

    Yields uint8 [B, S, S, 3] of the images before any conversion, BGR.
    """
    for images, _ in python_thread_batches(setting):
        yield images


def python_thread_batches(setting: Setting) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Its batches (images, labels)."""
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

    for worker in range(LOADER_THREADS):
        threading.Thread(target=load, args=(worker,), daemon=True).start()
    while True:
        images, labels = zip(*(loaded.get() for _ in range(setting.batch_size)), strict=True)
        yield np.stack(images), np.array(labels, np.int32)


def _loaded(file: str, setting: Setting, choose: random.Random) -> np.ndarray:
    """One image, reduced or padded, cropped, perhaps mirrored."""
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


def keras_folder(setting: Setting) -> Iterator[tf.Tensor]:
    """What Keras offers; yields float32 [B, S, S, 3].

    It has no random-resized-crop: of original JPEGs the centre is reduced.
    """
    for images, _ in keras_batches(setting):
        yield images


def keras_batches(setting: Setting) -> tf.data.Dataset:
    """Batches (images, labels) of `keras.utils.image_dataset_from_directory`, varied by layers."""
    stored = setting.about.storage.short_side or setting.size
    in_memory = setting.about.small
    dataset = keras.utils.image_dataset_from_directory(
        str(setting.path("files")),
        image_size=(stored, stored),
        batch_size=None if in_memory else setting.batch_size,
        crop_to_aspect_ratio=True,
        shuffle=not in_memory,
        verbose=False,
    )
    if in_memory:
        images = len(setting.labels())
        dataset = dataset.cache().shuffle(images).repeat().batch(setting.batch_size)
    else:
        dataset = dataset.repeat()
    vary = keras.Sequential(
        [keras.layers.ZeroPadding2D(setting.padding)] * bool(setting.padding)
        + [keras.layers.RandomCrop(setting.size, setting.size)] * (setting.scenario != "original")
        + [keras.layers.RandomFlip("horizontal")]
    )
    return dataset.map(
        lambda images, labels: (vary(images, training=True), labels),
        num_parallel_calls=tf.data.AUTOTUNE,
    ).prefetch(tf.data.AUTOTUNE)


def decoding(setting: Setting) -> Iterator[range]:
    """A ceiling: libjpeg-turbo decodes whole images from memory, nothing else."""
    encoded = [np.frombuffer(path.read_bytes(), np.uint8) for path, _ in setting.files()]
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION

    def work(worker: int) -> Iterator[None]:
        for jpeg in itertools.cycle(encoded[worker :: setting.threads] or encoded):
            cv2.imdecode(jpeg, flags)
            yield

    return _in_threads(work, setting)


def copying(setting: Setting) -> Iterator[range]:
    """A ceiling: windows are copied out of decoded images into a few batches, nothing else."""
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
    """A ceiling: batches of whole small images are copied out of memory, nothing else."""
    pixels = np.array(setting.pixels())

    def work(worker: int) -> Iterator[None]:
        choose = np.random.default_rng(worker)
        batch = np.empty([setting.batch_size, *pixels.shape[1:]], np.uint8)
        while True:
            np.take(pixels, choose.integers(len(pixels), size=len(batch)), axis=0, out=batch)
            yield from itertools.repeat(None, len(batch))

    return _in_threads(work, setting)


def _in_threads(work: Callable[[int], Iterator[None]], setting: Setting) -> Iterator[range]:
    """Batches of work, one image at a time, done in threads that run ahead by a few batches."""
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


_HERE = "benchmarks.candidates:"
_OLD = Candidate("2017", "the 2017 way: cv2 in Python threads", _HERE + "python_threads")
_KERAS = Candidate("keras", "keras image_dataset_from_directory", _HERE + "keras_folder")

_OURS = Candidate("ours", "ours", _HERE + "ours")
_DECODING = Candidate("ceiling", "ceiling: decoding only", _HERE + "decoding")
_COPYING = Candidate("ceiling", "ceiling: copying only", _HERE + "copying")
_TAKING = Candidate("ceiling", "ceiling: copying only", _HERE + "taking")

CANDIDATES = {
    "original": [_OURS, _OLD, _KERAS, _DECODING],
    "256": [_OURS, _OLD, _KERAS, _DECODING],
    "raw": [_OURS, _OLD, _COPYING],
    "small": [_OURS, _OLD, _KERAS, _TAKING],
}
