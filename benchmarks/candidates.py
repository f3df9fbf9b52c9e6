"""Our pipeline, Keras' loader, and the table of candidates that need only our dependencies."""

from collections.abc import Iterator

import keras
import tensorflow as tf

from benchmarks.setting import Setting
from benchmarks.turns import Candidate
from data import pipeline
from data.pipeline import augment
from data.shards import datasets

EPOCHS = 5_000  # more than any turn reads
CALL = 16  # batches per call


def ours(setting: Setting) -> Iterator[tf.Tensor]:
    """Yields batches of our pipeline, uint8 [B, S, S, 3]."""
    for images, _, _ in our_batches(setting):
        yield images


def ours_in_calls(setting: Setting) -> Iterator[range]:
    """Reads our pipeline as training does, several batches per call of a graph."""
    batches = iter(our_batches(setting))

    @tf.function
    def call() -> tf.Tensor:
        images = 0
        for _ in tf.range(CALL):
            images += tf.shape(next(batches)[0])[0]
        return images

    while True:
        yield range(int(call()))


def our_batches(setting: Setting) -> tf.data.Dataset:
    """Returns the batches of our pipeline: images, labels, weights."""
    dataset = datasets.load(setting.path("shards"))
    return pipeline.train_batches(
        dataset,
        augment.POLICIES[setting.about.policy],
        size=setting.size,
        batch_size=setting.batch_size,
        seed=0,
        steps=EPOCHS * (dataset.num_examples("train") // setting.batch_size),
        threads=setting.threads,
        **setting.about.options,
    )


def keras_folder(setting: Setting) -> Iterator[tf.Tensor]:
    """Yields batches of Keras' loader and layers, float32 [B, S, S, 3].

    The loader has no random-resized-crop, so it resizes the centre of original JPEGs instead.
    """
    for images, _ in keras_batches(setting):
        yield images


def keras_batches(setting: Setting) -> tf.data.Dataset:
    """Returns batches (images, labels) of Keras' loader, augmented by layers."""
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
        + [keras.layers.RandomCrop(setting.size, setting.size)] * (not setting.about.resizes)
        + [keras.layers.RandomFlip("horizontal")]
    )
    return dataset.map(
        lambda images, labels: (vary(images, training=True), labels),
        num_parallel_calls=tf.data.AUTOTUNE,
    ).prefetch(tf.data.AUTOTUNE)


_OURS = Candidate("ours", "ours", "benchmarks.candidates:ours")
_IN_CALLS = Candidate(
    "calls",
    "ours, several batches in a call, as training does",
    "benchmarks.candidates:ours_in_calls",
)
_KERAS = Candidate(
    "keras", "keras image_dataset_from_directory", "benchmarks.candidates:keras_folder"
)
_OLD = Candidate("2017", "the 2017 way: cv2 in Python threads", "benchmarks.loader2017:batches")
_DECODING = Candidate("ceiling", "ceiling: decoding only", "benchmarks.ceilings:decoding")
_COPYING = Candidate("ceiling", "ceiling: copying only", "benchmarks.ceilings:copying")
_TAKING = Candidate("ceiling", "ceiling: copying only", "benchmarks.ceilings:taking")

CANDIDATES = {
    "original": [_OURS, _OLD, _KERAS, _DECODING],
    "256": [_OURS, _OLD, _KERAS, _DECODING],
    "squares": [_OURS, _KERAS, _DECODING],
    "raw": [_OURS, _OLD, _COPYING],
    "small": [_OURS, _IN_CALLS, _OLD, _KERAS, _TAKING],
}
