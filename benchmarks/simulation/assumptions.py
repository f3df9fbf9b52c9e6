"""Assumptions about GPUs and machines that cannot be measured here, as flags with defaults."""

import argparse
import math
import sys
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.simulation.cluster import Cluster

FLOPS = 2 * 3  # per multiply-add: two operations, in a forward pass and twice in the backward pass


def number(
    least: float = sys.float_info.min, most: float = math.inf, kind: type = float
) -> Callable[[str], float]:
    """Returns a parser for argparse of a number in a range (default: above 0)."""

    def parsed(text: str) -> float:
        value = kind(text)
        if not least <= value <= most:
            bounds = "above 0" if least == sys.float_info.min else f"from {least:g}"
            bounds += f" to {most:g}" if most < math.inf else ""
            raise argparse.ArgumentTypeError(f"expected a number {bounds}, received {text}")
        return value

    return parsed


class Assumption(NamedTuple):
    """An assumption, which is a flag.

    Attributes:
        type: Parser of the flag's value.
        default: Default value.
        unit: Unit of the value.
        about: Description.
    """

    type: Callable[[str], float]
    default: float
    unit: str
    about: str


count = number(1, kind=int)
ASSUMED = {
    "gpu_tflops": Assumption(number(), 400, "TFLOP/s", "peak of a GPU"),
    "gpu_share": Assumption(number(most=1), 0.3, "of the peak", "that training reaches"),
    "gpu_speedup": Assumption(
        number(0), 0, "times", "as fast as the device here; 0: peak and share are assumed"
    ),
    "gpu_batch": Assumption(count, 128, "images", "in a step of a GPU"),
    "overlap": Assumption(
        number(0, 1),
        0,
        "of the backward pass",
        "while gradients are summed; 0: afterwards, as ours",
    ),
    "machine_gpus": Assumption(count, 8, "GPUs", "in a machine"),
    "machine_cores": Assumption(count, 64, "cores", "in a machine, as fast as those here"),
    "machine_link": Assumption(number(), 300, "GB/s", "from a GPU to others of its machine"),
    "network_link": Assumption(number(), 25, "GB/s", "from a machine to others"),
    "latency": Assumption(
        number(0), 20, "us", "of every sum in a machine, and again between machines"
    ),
    "storage": Assumption(number(), 2, "GB/s", "that a machine can read"),
    "shared_storage": Assumption(number(), math.inf, "GB/s", "that all machines together can read"),
}


def add_to(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    group = parser.add_argument_group("assumed")
    for name, (kind, default, unit, about) in ASSUMED.items():
        text = f"{unit} {about} ({default:g})"
        group.add_argument(f"--{name}", type=kind, default=default, help=text)


def cluster(options: argparse.Namespace) -> Cluster:
    """Returns the cluster that the flags describe."""
    return Cluster(
        machine_gpus=options.machine_gpus,
        machine_cores=options.machine_cores,
        machine_link=1e9 * options.machine_link,
        network_link=1e9 * options.network_link,
        latency=1e-6 * options.latency,
        storage=1e9 * options.storage,
        shared_storage=1e9 * options.shared_storage,
        gpu_batch=options.gpu_batch,
        overlap=options.overlap,
    )


def gpu_images(options: argparse.Namespace, *, here: float, multiply_adds: int) -> float:
    """Returns the images per second of a GPU that never waits.

    Args:
        options: Values of the flags.
        here: Images per second of this machine's device.
        multiply_adds: Multiply-adds of the forward pass per image.
    """
    if options.gpu_speedup:
        return options.gpu_speedup * here
    return 1e12 * options.gpu_tflops * options.gpu_share / (FLOPS * multiply_adds)


def rows(options: argparse.Namespace) -> list[list[str]]:
    """Returns a table of the assumptions."""
    values = vars(options)
    return [
        ["", "value", "unit", "meaning"],
        *(
            [f"--{name}", f"{values[name]:g}", assumption.unit, assumption.about]
            for name, assumption in ASSUMED.items()
        ),
    ]
