"""Determines the cost of training a network: step and input by measurement, sums by counting."""

import importlib.util
import resource
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import keras
import tensorflow as tf

import models
from benchmarks.simulation.cluster import Sums
from data import pipeline
from data.images import decode
from data.pipeline import augment
from data.shards import datasets, records
from engine import losses, optimizers
from engine.gradients import Gradients
from engine.trainer import Trainer
from engine.updates import Update
from models.tools import graphs

CLASSES = 1000
FLOAT = 4  # bytes; gradients and statistics are float32, whatever the precision
# Batch normalisation sums channel means and means of squares (forward), then their gradients.
NORM_SUMS, NORM_VECTORS = 2, 2
FEWEST_STEPS = 5
COPIES = 512  # records per built-in photograph
BATCH_SIZE = 128  # images per batch of the input
FOREVER = 20_000  # steps, more than any measurement takes


class Step(NamedTuple):
    """Cost of a training step.

    Attributes:
        parameters: Number of trainable parameters.
        multiply_adds: Multiply-adds of the forward pass per image.
        gradients: Sums of gradients over several GPUs.
        norms: Sums of batch-normalisation statistics over several GPUs.
        seconds: Mean time of a step on this device.
        jitter: Standard deviation of the times, as a fraction of the mean.
    """

    parameters: int
    multiply_adds: int
    gradients: Sums
    norms: Sums
    seconds: float
    jitter: float


class Input(NamedTuple):
    """Cost of the input.

    Attributes:
        image_bytes: Mean size of a record in bytes.
        core_images: Images per second that a CPU core reads, decodes and augments.
    """

    image_bytes: float
    core_images: float


def gradient_sums(model: keras.Model) -> Sums:
    """Returns the sums of gradients in a step on several GPUs: one sum of all gradients."""
    return Sums(FLOAT * graphs.parameters(model.trainable_variables), 1)


def norm_sums(model: keras.Model) -> Sums:
    """Returns the sums of batch-normalisation statistics in a step, which are per layer."""
    kind = keras.layers.BatchNormalization
    norms = [layer for layer in model.layers if isinstance(layer, kind)]
    size = FLOAT * graphs.parameters(layer.moving_mean for layer in norms)
    return Sums(NORM_SUMS * NORM_VECTORS * size, NORM_SUMS * len(norms))


def step(name: str, *, batch_size: int, seconds: float) -> Step:
    """Measures the training step of a network, including auxiliary heads, on one batch.

    Args:
        name: Name of the network out of `models.names()`.
        batch_size: Images per batch.
        seconds: Minimum length of the measurement.
    """
    keras.utils.clear_session()
    model = models.build(name, CLASSES, aux_heads=True)
    times = _step_times(name, model, batch_size, seconds)
    mean = statistics.mean(times)
    return Step(
        graphs.parameters(model.trainable_variables),
        graphs.multiply_adds(model),
        gradient_sums(model),
        norm_sums(model),
        mean,
        statistics.stdev(times) / mean,
    )


def _step_times(name: str, model: keras.Model, batch_size: int, seconds: float) -> list[float]:
    """Returns the seconds of every step after the first two, which include tracing."""
    strategy, optimizer = tf.distribute.get_strategy(), optimizers.build("momentum", 0.0, 0.9)
    objective = losses.Objective(aux_weight=models.aux_weight(name))
    options = {"batch_size": batch_size, "seed": 0, "objective": objective}
    gradients = Gradients(strategy, model, optimizer.iterations, **options)
    trainer = Trainer(strategy, model, gradients, Update(strategy, model, optimizer))
    shape = [batch_size, *model.input_shape[1:]]
    images = tf.cast(tf.random.stateless_uniform(shape, [0, 0], 0, 256, tf.int32), tf.uint8)
    labels = tf.random.stateless_uniform([batch_size], [0, 1], 0, CLASSES, tf.int32)
    batch = (images, labels, tf.ones([batch_size]))
    iterator = trainer.iterate(tf.data.Dataset.from_tensors(batch).cache().repeat())
    times = []
    while len(times) < 2 + FEWEST_STEPS or sum(times[2:]) < seconds:
        began = time.perf_counter()
        trainer.train(iterator, [0.0])
        times.append(time.perf_counter() - began)
    return times[2:]


def photographs(folder: Path, image_size: int) -> datasets.Dataset:
    """Writes a data set of many copies of the two photographs that scikit-learn includes.

    Args:
        folder: Folder to write to.
        image_size: Side of the crops in pixels.
    """
    storage = decode.storage_for(image_size)
    place = Path(importlib.util.find_spec("sklearn").origin).parent / "datasets" / "images"
    files = sorted(place.glob("*.jpg"))
    written = []
    for file in files:
        image = decode.store(file.read_bytes(), storage)
        written.append(
            records.example_bytes(
                encoded=image.encoded,
                format=image.format,
                label=0,
                height=image.height,
                width=image.width,
                filename=file.name,
            )
        )
    path = folder / f"{image_size}.tfrecord"
    shard = datasets.Shard(str(path), *records.write_shard(path, COPIES * written))
    zeros = (0.0, 0.0, 0.0)
    return datasets.Dataset(
        folder,
        ("photograph",),
        zeros,
        zeros,
        vars(storage),
        {"train": (shard,)},
        "",
        {"train": "jpeg"},
    )


def read(
    dataset: datasets.Dataset, policy: augment.Policy, *, size: int, threads: int, seconds: float
) -> Input:
    """Measures the CPU time of a training's input.

    Args:
        dataset: Data set to read.
        policy: Augmentation.
        size: Side of the crops in pixels.
        threads: CPU threads of the pipeline.
        seconds: Minimum length of the measurement.
    """
    examples = dataset.num_examples("train")
    batches = pipeline.train_batches(
        dataset,
        policy,
        size=size,
        batch_size=min(BATCH_SIZE, examples),
        seed=0,
        steps=FOREVER,
        threads=threads,
    )
    images, iterator = 0, iter(batches)
    next(iterator)  # start-up
    began, cpu = time.perf_counter(), _cpu_seconds()
    while not images or time.perf_counter() - began < seconds:
        images += len(next(iterator)[0])
    stored = sum(shard.bytes for shard in dataset.shards("train"))
    return Input(stored / examples, images / (_cpu_seconds() - cpu))


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
