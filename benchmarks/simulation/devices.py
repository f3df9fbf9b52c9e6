"""What images are read for: a simulated accelerator, and real training steps on this machine."""

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
from engine.trainer import Trainer

PREFETCH = 2  # batches
CALL = 4  # training steps of one call
RATE = 1e-4  # the learning rate: small, for labels are learnt in vain


@dataclass(frozen=True)
class Work:
    """What a device did with one batch, or with a few.

    Attributes:
        images: How many.
        waited: Seconds in which it had nothing to do.
    """

    images: int
    waited: float

    def __len__(self) -> int:
        """How many images."""
        return self.images


def simulated(setting: Setting, *, feed: str, rate: float) -> Iterator[Work]:
    """A device which is busy for a fixed time with each image, and uses no CPU.

    As with a real one, the next batch is fetched while it is busy; it waits when that takes longer.

    Args:
        setting: Where to read.
        feed: A key of `FEEDS`.
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
    """Training steps of a network on the CPU that also reads its images.

    Args:
        setting: Where to read.
        feed: A key of `FEEDS`.
        network: A name of `models.names()`.
    """
    devices.configure(setting.threads)
    strategy = devices.make_strategy()
    dataset = datasets.load(setting.path("shards"))
    with strategy.scope():
        model = models.build(network, dataset.num_classes, image_size=setting.size)
        optimizer = optimizers.build("momentum", RATE, 0.9)
    objective = losses.Objective(l2=5e-4)
    trainer = Trainer(
        strategy, model, optimizer, batch_size=setting.batch_size, objective=objective, seed=0
    )
    iterator = trainer.iterate(_as_dataset(FEEDS[feed](setting), setting))
    while True:
        progress = trainer.train(iterator, [RATE] * CALL)
        yield Work(CALL * setting.batch_size, progress.waited)


def _as_dataset(batches: Iterable, setting: Setting) -> tf.data.Dataset:
    """Any feed's batches as the training step wants them: images, labels, weights."""
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
    """One batch over and over: what the device does where input costs nothing."""
    return candidates.our_batches(setting).take(1).cache().repeat()


def _old(setting: Setting) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The 2017 way, with batches prepared ahead as the others do."""
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
