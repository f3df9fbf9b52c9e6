"""Devices that consume images: a simulated accelerator, and training steps on this machine."""

import itertools
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

import models
from benchmarks import candidates, loader2017
from benchmarks.setting import Setting
from data.shards import datasets
from engine import devices, losses, optimizers
from engine.gradients import Gradients
from engine.trainer import Trainer
from engine.updates import Update

PREFETCH = 2  # batches
CALL = 4  # training steps per call
RATE = 1e-4  # learning rate, small because nothing is to be learned


@dataclass(frozen=True)
class Work:
    """The work of a device on one or a few batches.

    Attributes:
        images: Number of images.
        waited: Seconds in which the device was idle.
    """

    images: int
    waited: float

    def __len__(self) -> int:
        """Returns the number of images."""
        return self.images


def simulated(setting: Setting, *, feed: str, rate: float) -> Iterator[Work]:
    """Simulates a device that is busy for a fixed time per image and uses no CPU.

    As on a real device, the next batch is fetched while the device is busy.

    Args:
        setting: Data to read.
        feed: Source of batches, a key of `FEEDS`.
        rate: Images per second that the device can train on.
    """
    free_at = time.perf_counter()
    for images, *_ in FEEDS[feed](setting):
        now = time.perf_counter()
        begin = max(free_at, now)
        yield Work(len(images), begin - free_at)
        free_at = begin + len(images) / rate
        time.sleep(max(0.0, begin - time.perf_counter()))


def trained(setting: Setting, *, feed: str, network: str) -> Iterator[Work]:
    """Trains a network on the CPU that also reads its images.

    Args:
        setting: Data to read.
        feed: Source of batches, a key of `FEEDS`.
        network: Name of the network out of `models.names()`.
    """
    devices.configure(setting.threads)
    strategy = devices.make_strategy()
    dataset = datasets.load(setting.path("shards"))
    with strategy.scope():
        model = models.build(network, dataset.num_classes, image_size=setting.size)
        optimizer = optimizers.build("momentum", RATE, 0.9)
    options = {"batch_size": setting.batch_size, "seed": 0, "objective": losses.Objective(l2=5e-4)}
    gradients = Gradients(strategy, model, optimizer.iterations, **options)
    trainer = Trainer(strategy, model, gradients, Update(strategy, model, optimizer))
    iterator = trainer.iterate(_as_dataset(FEEDS[feed](setting), setting))
    while True:
        progress = trainer.train(iterator, [RATE] * CALL)
        yield Work(CALL * setting.batch_size, progress.waited)


def _as_dataset(batches: Iterable, setting: Setting) -> tf.data.Dataset:
    """Converts the batches of any feed to those of the training step: images, labels, weights."""
    if not isinstance(batches, tf.data.Dataset):
        shape = [setting.batch_size, setting.size, setting.size, 3]
        signature = (tf.TensorSpec(shape, tf.uint8), tf.TensorSpec(shape[:1], tf.int32))
        source = iter(batches)
        batches = tf.data.Dataset.from_generator(lambda: source, output_signature=signature)
    if len(batches.element_spec) == 3:
        return batches
    return batches.map(lambda images, labels: (images, labels, tf.ones(tf.shape(labels)))).prefetch(
        PREFETCH
    )


def _repeated(setting: Setting) -> tf.data.Dataset:
    """Repeats one batch, to measure the device with free input."""
    return candidates.our_batches(setting).take(1).cache().repeat()


def _old(setting: Setting) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields batches of the loader of 2017, prefetched as in the other feeds."""
    ready = queue.Queue(maxsize=PREFETCH)

    def fill() -> None:
        for batch in loader2017.labelled_batches(setting):
            ready.put(batch)

    threading.Thread(target=fill, daemon=True).start()
    return (ready.get() for _ in itertools.count())


FEEDS = {
    "2017": _old,
    "keras": candidates.keras_batches,
    "ours": candidates.our_batches,
    "raw": candidates.our_batches,
    "repeated": _repeated,
}
