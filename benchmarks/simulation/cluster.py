"""Predicts training throughput on many GPUs, by a model and by simulation. NumPy only.

The step is that of `engine.trainer`: every GPU computes its share of the batch, the gradients are
summed over all GPUs, and all GPUs update, so each step ends when the slowest GPU has finished. The
batch per GPU does not depend on the number of GPUs. Sums are hierarchical ring all-reduces: a
reduce-scatter inside each machine, an all-reduce between the machines, and an all-gather inside
each machine.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

COMPUTE, INSIDE, BETWEEN = "compute", "all-reduce in a machine", "all-reduce between machines"
DECODING, STORAGE = "decoding", "storage"
BACKWARD = 2 / 3  # share of the backward pass, which costs twice as much as the forward pass
PREFETCH = 2  # batches prepared ahead, as in the pipeline
WARM_UP = 20  # first steps of a simulation, which do not count


class Sums(NamedTuple):
    """Sums over the GPUs in a step: bytes per GPU, and the number of consecutive sums."""

    bytes: int
    count: int


class Seconds(NamedTuple):
    """Seconds per step for sums over the GPUs: inside the machines and between them."""

    inside: float
    between: float


@dataclass(frozen=True)
class Cluster:
    """A cluster of identical machines.

    Attributes:
        machine_gpus: GPUs per machine.
        machine_cores: CPU cores per machine.
        machine_link: Bandwidth of a GPU's link inside its machine, in bytes per second.
        network_link: Bandwidth of a machine's link to the others, in bytes per second.
        latency: Seconds of an empty sum, once inside a machine and once between machines.
        storage: Read bandwidth of a machine, in bytes per second.
        shared_storage: Read bandwidth of all machines together, in bytes per second.
        gpu_batch: Images per GPU and step.
        overlap: Fraction of the backward pass, 0..1, that overlaps with sums of gradients.
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
        """Returns the number of machines with so many GPUs together.

        Raises:
            ValueError: If machines would hold different numbers of GPUs.
        """
        if gpus > self.machine_gpus and gpus % self.machine_gpus:
            raise ValueError(
                f"expected at most {self.machine_gpus} GPUs or a multiple of it, received {gpus}"
            )
        return math.ceil(gpus / self.machine_gpus)


@dataclass(frozen=True)
class Load:
    """The load of training a network.

    Attributes:
        gpu_images: Images per second of a GPU that never waits.
        gradients: Sums of gradients, which may overlap with the backward pass.
        norms: Sums of batch normalisation, which the computation waits for.
        image_bytes: Size of a stored image in bytes.
        core_images: Images per second that a CPU core reads, decodes and augments.
    """

    gpu_images: float
    gradients: Sums
    norms: Sums
    image_bytes: float
    core_images: float


class Expectation(NamedTuple):
    """The expected throughput of a training.

    Attributes:
        images: Images per second of all GPUs.
        efficiency: Fraction of the throughput of GPUs that never wait.
        waits: Seconds per step that GPUs wait for sums.
        demand: Images per second that the GPUs would train on if the input were never late.
        storage: Bytes per second to read for this demand.
        cores: CPU cores per machine for this demand.
        limits: Part of the input that is too slow or, if none is, the longest part of a step:
            computation or one of the sums.
    """

    images: float
    efficiency: float
    waits: Seconds
    demand: float
    storage: float
    cores: float
    limits: str


def all_reduce(sums: Sums, gpus: int, cluster: Cluster) -> Seconds:
    """Returns the time of sums over the GPUs; a ring moves 2 (n - 1) / n of the bytes per link."""
    machines = cluster.machines(gpus)
    members = gpus // machines
    inside = _ring(sums.bytes, members) / cluster.machine_link
    between = _ring(sums.bytes, machines) / cluster.network_link
    latency = sums.count * cluster.latency
    return Seconds(inside + latency * (members > 1), between + latency * (machines > 1))


def waits(load: Load, gpus: int, cluster: Cluster) -> Seconds:
    """Returns the time that the computation waits for sums: all but the gradients' overlap."""
    gradients, norms = (all_reduce(sums, gpus, cluster) for sums in (load.gradients, load.norms))
    hidden = cluster.overlap * BACKWARD * cluster.gpu_batch / load.gpu_images
    share = max(0.0, 1 - hidden / sum(gradients)) if sum(gradients) else 0.0
    return Seconds(*(share * a + b for a, b in zip(gradients, norms, strict=True)))


def supply(load: Load, gpus: int, cluster: Cluster) -> dict[str, float]:
    """Returns the maximum images per second of each part of the input."""
    machines = cluster.machines(gpus)
    readable = min(machines * cluster.storage, cluster.shared_storage)
    return {
        DECODING: machines * cluster.machine_cores * load.core_images,
        STORAGE: readable / load.image_bytes,
    }


def expected(load: Load, gpus: int, cluster: Cluster) -> Expectation:
    """Computes the expectation if all steps and all batches take equally long."""
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
    """Simulates a few hundred steps, where steps and batches take random times.

    Every GPU has its own input, an even share of the whole, which prepares up to `PREFETCH` batches
    ahead. A GPU begins a step when its batch is ready and all GPUs have finished the previous step;
    sums take the time of `waits` after the slowest GPU has computed its share.

    Args:
        load: Load of the network.
        gpus: Number of GPUs.
        cluster: Hardware.
        jitter: Standard deviation of the times of a GPU's step and of the preparation of a batch,
            as a fraction of the mean; the times are gamma distributed.
        steps: Number of steps, more than `WARM_UP`.
        seed: Seed of the random times.

    Returns:
        Images per second of all GPUs.
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
        ready = np.maximum(ready, begins[step]) + prepare[step]  # begins when the queue has room
        begins[PREFETCH + step] = np.maximum(ready, ends[step])
        ends[1 + step] = (begins[PREFETCH + step] + compute[step]).max() + sums
    return batches * (steps - WARM_UP) / (ends[-1] - ends[WARM_UP])


def _longest(compute: float, waiting: Seconds) -> str:
    """Returns the longest part of a step: computation, or sums inside or between machines."""
    if compute >= sum(waiting):
        return COMPUTE
    return INSIDE if waiting.inside > waiting.between else BETWEEN


def _ring(bytes: int, members: int) -> float:
    """Returns the bytes that a ring moves over each link."""
    return 2 * (members - 1) / members * bytes


def _times(
    generator: np.random.Generator, mean: float, jitter: float, shape: tuple[int, int]
) -> np.ndarray:
    """Draws times, float64 `shape`, with a standard deviation of `jitter * mean`."""
    if not jitter:
        return np.full(shape, mean)
    return generator.gamma(jitter**-2, mean * jitter**2, shape)
