"""What to expect of a training on many GPUs, on paper and by simulation. NumPy only.

The step is that of `engine.trainer`: every GPU computes its share of the batch, then the gradients
are summed over all GPUs, then all update; so each step ends when the slowest GPU has finished. The
batch per GPU is the same for any number of GPUs. Sums go round rings: GPUs of a machine scatter
theirs over the link of a GPU, the machines add up what each holds over their network, and the sums
are gathered as they were scattered.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

COMPUTE, INSIDE, BETWEEN = "compute", "all-reduce in a machine", "all-reduce between machines"
DECODING, STORAGE = "decoding", "storage"
BACKWARD = 2 / 3  # of computing a step: one pass forward, two of the same cost backward
PREFETCH = 2  # batches that are prepared ahead, as the pipeline does
WARM_UP = 20  # steps of a simulation that do not count


class Sums(NamedTuple):
    """What a step sums over the GPUs: bytes of one GPU, and in how many sums one after another."""

    bytes: int
    count: int


class Seconds(NamedTuple):
    """Of a step, spent on sums over the GPUs: inside the machines and between them."""

    inside: float
    between: float


@dataclass(frozen=True)
class Cluster:
    """Machines, all alike.

    Attributes:
        machine_gpus: GPUs of a machine.
        machine_cores: CPU cores of a machine.
        machine_link: Bytes per second of a GPU's link to the others of its machine.
        network_link: Bytes per second of a machine's link to the others.
        latency: Seconds of a sum of nothing, within a machine and again between machines.
        storage: Bytes per second that a machine can read.
        shared_storage: Bytes per second that all machines together can read.
        gpu_batch: Images of a step of one GPU.
        overlap: Part of the backward pass, 0..1, during which gradients are summed already.
    """

    machine_gpus: int
    machine_cores: int
    machine_link: float
    network_link: float
    latency: float
    storage: float
    shared_storage: float
    gpu_batch: int
    overlap: float

    def machines(self, gpus: int) -> int:
        """How many machines it takes.

        Raises:
            ValueError: If they would not be alike.
        """
        if gpus > self.machine_gpus and gpus % self.machine_gpus:
            raise ValueError(
                f"expected at most {self.machine_gpus} GPUs or a multiple of it, received {gpus}"
            )
        return math.ceil(gpus / self.machine_gpus)


@dataclass(frozen=True)
class Load:
    """What the training of one network asks for.

    Attributes:
        gpu_images: Images per second that a GPU computes when it waits for nothing.
        gradients: Sums that begin when gradients are known.
        norms: Sums of batch normalisation, for which the computation waits.
        image_bytes: Of an image as stored.
        core_images: Images per second that a CPU core reads, decodes and varies.
    """

    gpu_images: float
    gradients: Sums
    norms: Sums
    image_bytes: float
    core_images: float


class Expectation(NamedTuple):
    """What to expect of a training.

    Attributes:
        images: Per second, of all GPUs.
        efficiency: The same as a part of what they would compute if they waited for nothing.
        waits: For sums over the GPUs, seconds of a step.
        demand: Images per second that they would take if input was never late.
        storage: Bytes per second that this is.
        cores: CPU cores of each machine that this takes.
        limits: What of the input is too slow; if it is not, what most of a step is: computing or
            sums, and then which of them.
    """

    images: float
    efficiency: float
    waits: Seconds
    demand: float
    storage: float
    cores: float
    limits: str


def all_reduce(sums: Sums, gpus: int, cluster: Cluster) -> Seconds:
    """How long sums over the GPUs take: 2 (n - 1) / n of the bytes go over each link of a ring."""
    machines = cluster.machines(gpus)
    members = gpus // machines
    inside = _ring(sums.bytes, members) / cluster.machine_link
    between = _ring(sums.bytes, machines) / cluster.network_link
    latency = sums.count * cluster.latency
    return Seconds(inside + latency * (members > 1), between + latency * (machines > 1))


def waits(load: Load, gpus: int, cluster: Cluster) -> Seconds:
    """What of the sums the computation waits for: all of it but for the gradients' overlap."""
    gradients, norms = (all_reduce(sums, gpus, cluster) for sums in (load.gradients, load.norms))
    hidden = cluster.overlap * BACKWARD * cluster.gpu_batch / load.gpu_images
    share = max(0.0, 1 - hidden / sum(gradients)) if sum(gradients) else 0.0
    return Seconds(*(share * a + b for a, b in zip(gradients, norms, strict=True)))


def supply(load: Load, gpus: int, cluster: Cluster) -> dict[str, float]:
    """Images per second that the input can give at most, by what limits it."""
    machines = cluster.machines(gpus)
    readable = min(machines * cluster.storage, cluster.shared_storage)
    return {
        DECODING: machines * cluster.machine_cores * load.core_images,
        STORAGE: readable / load.image_bytes,
    }


def expected(load: Load, gpus: int, cluster: Cluster) -> Expectation:
    """What to expect where every step and every batch takes as long as the others."""
    waiting, given = waits(load, gpus, cluster), supply(load, gpus, cluster)
    compute = cluster.gpu_batch / load.gpu_images
    demand = gpus * cluster.gpu_batch / (compute + sum(waiting))
    images = min(demand, *given.values())
    return Expectation(
        images,
        images / (gpus * load.gpu_images),
        waiting,
        demand,
        demand * load.image_bytes,
        demand / (cluster.machines(gpus) * load.core_images),
        _longest(compute, waiting) if images == demand else min(given, key=given.get),
    )


def simulated(
    load: Load, gpus: int, cluster: Cluster, *, jitter: float, steps: int = 500, seed: int = 0
) -> float:
    """What to expect where steps and batches take random times, by trying a few hundred steps.

    Every GPU has an input of its own, an even share of the whole, which prepares up to `PREFETCH`
    batches ahead. A GPU begins a step when its batch is there and the step before has ended
    everywhere; sums take as long as `waits` says after the slowest has computed its share.

    Args:
        load: What the network asks for.
        gpus: How many.
        cluster: What there is of it.
        jitter: Standard deviation of the time of a GPU's step, and of that of preparing a batch,
            as a part of the mean; the times are gamma distributed.
        steps: How many to try, more than `WARM_UP`.
        seed: Of the random times.

    Returns:
        Images per second, of all GPUs.
    """
    generator = np.random.default_rng(seed)
    batches = gpus * cluster.gpu_batch  # images
    mean = batches / min(supply(load, gpus, cluster).values())
    prepare = _times(generator, mean, jitter, (steps, gpus))
    compute = _times(generator, cluster.gpu_batch / load.gpu_images, jitter, (steps, gpus))
    sums = sum(waits(load, gpus, cluster))
    begins, ends = np.zeros([PREFETCH + steps, gpus]), np.zeros(1 + steps)
    ready = np.zeros(gpus)
    for step in range(steps):
        ready = np.maximum(ready, begins[step]) + prepare[step]  # when there was room for it
        begins[PREFETCH + step] = np.maximum(ready, ends[step])
        ends[1 + step] = (begins[PREFETCH + step] + compute[step]).max() + sums
    return batches * (steps - WARM_UP) / (ends[-1] - ends[WARM_UP])


def _longest(compute: float, waiting: Seconds) -> str:
    """What most of a step is: computing, or sums, and then which of them."""
    if compute >= sum(waiting):
        return COMPUTE
    return INSIDE if waiting.inside > waiting.between else BETWEEN


def _ring(bytes: int, members: int) -> float:
    """Bytes over each link."""
    return 2 * (members - 1) / members * bytes


def _times(
    generator: np.random.Generator, mean: float, jitter: float, shape: tuple[int, int]
) -> np.ndarray:
    """Random times, float64 `shape`, of a mean and a standard deviation of `jitter * mean`."""
    if not jitter:
        return np.full(shape, mean)
    return generator.gamma(jitter**-2, mean * jitter**2, shape)
