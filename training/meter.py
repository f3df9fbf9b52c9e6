"""Measures where a training spends its time: `python train.py ... --meter`.

Three measurements use exactly the settings of the training: the input pipeline up to each of its
stages, the training step on the same batch over and over, and both together.
"""

import itertools
import json
import resource
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import tensorflow as tf

from data.pipeline import augment
from data.shards.datasets import Dataset
from engine.trainer import MAX_STEPS, Trainer
from runtime import console
from training import advice, ceilings
from training.build import Setup
from training.stages import input_stages

SECONDS = 3.0  # minimum duration of a measurement
_CALL_SECONDS = 0.5  # target duration of one call of the trainer
_BAR = 30  # length of the longest bar, in characters
_ENOUGH = 1.05  # the input is no bottleneck at this multiple of the step's speed
_PLANNED_STEPS = 20_000  # minimum, so that no measurement runs out of batches
STEP = "train step"
ALL = "all together"


@dataclass(frozen=True)
class Speed:
    """Measured speed of a stage.

    Attributes:
        images_per_second: Images per second of wall-clock time.
        cpu_us_per_image: CPU time per image, summed over all cores, in microseconds.
        input_wait_fraction: Fraction of the time spent waiting for batches; None for stages of the
            input pipeline.
    """

    images_per_second: float
    cpu_us_per_image: float
    input_wait_fraction: float | None = None


@dataclass(frozen=True)
class Input:
    """Arguments of `stages.input_stages`, with the values of the training."""

    dataset: Dataset
    policy: augment.Policy
    size: int
    batch_size: int
    seed: int
    steps: int
    threads: int
    cache: str


@dataclass(frozen=True)
class Verdict:
    """Result of a measurement.

    Attributes:
        stages: Speed of the pipeline up to each stage, of the training step, and of both together.
        ceilings: Limits of the machine, such as images decoded or copied per second.
        epoch_seconds: Duration of an epoch without validation, in seconds.
        bottleneck: Name of the limiting stage or of the training step.
        advice: The change that would help most.
    """

    stages: dict[str, Speed]
    ceilings: dict[str, float]
    epoch_seconds: float
    bottleneck: str
    advice: str

    def as_json(self) -> str:
        """Returns the result as one line of JSON."""
        return json.dumps(asdict(self))


def measure(setup: Setup, seconds: float = SECONDS) -> Verdict:
    """Measures the speed of a training at learning rate 0.

    Args:
        setup: Objects of the training; the weights stay as they are, but BatchNorm's moving
            statistics change.
        seconds: Minimum duration of a measurement.
    """
    source = _input(setup)
    speeds = {
        name: _stage_speed(stage, source.batch_size, seconds)
        for name, stage in input_stages(**vars(source)).items()
    }
    trainer, batches = setup.trainer, setup.train_batches(0, source.steps)
    repeated = batches.take(setup.replicas).cache().repeat()
    speeds[STEP] = _training_speed(trainer, repeated, source.batch_size, seconds)
    speeds[ALL] = _training_speed(trainer, batches.repeat(), source.batch_size, 2 * seconds)
    slowest = bottleneck(speeds, source.threads)
    return Verdict(
        speeds,
        _ceilings(source, seconds),
        setup.steps_per_epoch * source.batch_size / speeds[ALL].images_per_second,
        slowest,
        _advice(source, speeds, slowest),
    )


def _input(setup: Setup) -> Input:
    recipe = setup.recipe
    return Input(
        setup.dataset,
        setup.batches.policy,
        size=setup.network["image_size"],
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        steps=max(setup.total, _PLANNED_STEPS),
        threads=setup.running.threads,
        cache=setup.batches.cache,
    )


def bottleneck(speeds: dict[str, Speed], threads: int) -> str:
    """Returns the name of the bottleneck: the step, or the stage that adds most time per image.

    Reading is judged by wall-clock time, since it may wait for a disk. The other stages are judged
    by CPU time divided by the threads, which does not depend on the machine's other load.
    """
    own = _own_cpu(speeds)
    first, *_, last = own
    if speeds[last].images_per_second > _ENOUGH * speeds[STEP].images_per_second:
        return STEP
    added = {name: us / threads for name, us in own.items()}
    added[first] = 1e6 / speeds[first].images_per_second
    return max(added, key=added.get)


def _own_cpu(speeds: dict[str, Speed]) -> dict[str, float]:
    """Returns the CPU time per image that each input stage adds, in microseconds.

    Each measurement includes all earlier stages. Disturbances only add time, so each measurement
    is capped at the smallest of the later ones.
    """
    names = [name for name in speeds if name not in (STEP, ALL)]
    used = [speeds[name].cpu_us_per_image for name in names]
    used = list(itertools.accumulate(reversed(used), min))[::-1]
    return dict(zip(names, np.diff(used, prepend=0.0).tolist(), strict=True))


def _stage_speed(counts: Iterable, batch_size: int, seconds: float) -> Speed:
    """Measures the pipeline up to a stage; its elements are numbers of images."""
    iterator = itertools.chain.from_iterable(iter(counts) for _ in itertools.count())
    next(iterator)  # excludes setup and the first block
    images, begin, cpu = 0, time.perf_counter(), _cpu_seconds()
    while (passed := time.perf_counter() - begin) < seconds or images < batch_size:
        images += int(next(iterator))
    return Speed(images / passed, 1e6 * (_cpu_seconds() - cpu) / images)


def _training_speed(
    trainer: Trainer, batches: tf.data.Dataset, batch_size: int, seconds: float
) -> Speed:
    """Measures the training step, without the first call, which traces it."""
    iterator = trainer.iterate(batches)
    trainer.train(iterator, [0.0])
    images, passed, waited, count, cpu = 0, 0.0, 0.0, 1, _cpu_seconds()
    while passed < seconds:
        begin = time.perf_counter()
        waited += trainer.train(iterator, count * [0.0]).waited
        call = time.perf_counter() - begin
        passed, images = passed + call, images + count * batch_size
        count = max(1, min(MAX_STEPS, int(_CALL_SECONDS * count / call)))
    return Speed(images / passed, 1e6 * (_cpu_seconds() - cpu) / images, waited / passed)


def _ceilings(source: Input, seconds: float) -> dict[str, float]:
    copied = ceilings.copying(seconds / 2) / (3 * source.size**2)
    decoded_images = ceilings.decoding(source.dataset, source.threads, seconds)
    rates = {"libjpeg-turbo, whole images": decoded_images, "memory copy, one thread": copied}
    return {name: rate for name, rate in rates.items() if rate}


def _advice(source: Input, speeds: dict[str, Speed], slowest: str) -> str:
    if slowest == STEP:
        *_, whole = (speed for name, speed in speeds.items() if name not in (STEP, ALL))
        return (
            "a faster device or a smaller network: the input could feed "
            f"{whole.images_per_second:,.0f} images/s"
        )
    return advice.faster(
        source.dataset, source.policy, size=source.size, cache=source.cache, stage=slowest
    )


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def lines(verdict: Verdict) -> Iterator[str]:
    """Yields the lines of a bar chart for the terminal, and the conclusions."""
    rates = {name: speed.images_per_second for name, speed in verdict.stages.items()}
    longest = max(rates.values())
    yield f"{'':13} {'images/s':>9} {'CPU us/image':>13}"
    own = _own_cpu(verdict.stages)
    for name, speed in verdict.stages.items():
        bar = "█" * max(1, round(_BAR * rates[name] / longest))
        waiting = speed.input_wait_fraction
        note = f"  waits {100 * waiting:.0f} % for input" if name == ALL and waiting else ""
        cpu = own.get(name, speed.cpu_us_per_image)
        yield f"{name:13} {rates[name]:9,.0f} {cpu:13,.1f} {bar}{note}"
    for name, rate in verdict.ceilings.items():
        yield f"{name}: {rate:,.0f} images/s"
    yield f"an epoch takes {_seconds(verdict.epoch_seconds)}, without validation"
    yield f"the bottleneck: {verdict.bottleneck}"
    yield f"what would help most: {verdict.advice}"


def _seconds(seconds: float) -> str:
    exact = f"{seconds:.1f} s"
    return exact if seconds < 60 else f"{exact} ({console.duration(seconds)})"
