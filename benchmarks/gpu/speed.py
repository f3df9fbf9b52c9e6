"""The check of the training step's speed, next to deterministic kernels, PyTorch and JAX."""

import statistics
from argparse import Namespace

from benchmarks import tables, train
from benchmarks.gpu.sections import Section
from runtime.cores import cores

STACKS = ["ours", "deterministic", "compiled", "jax"]
NETWORKS = ["resnet50", "alexnet", "densenet121"]
ALL = [*NETWORKS, "vgg16", "inception_v3", "mobilenet_100"]
# Dense bfloat16 peaks in TFLOP/s, by a part of the GPU's name.
PEAKS = {"H100": 989, "H200": 989, "A100": 312}
SMALLEST_BATCH = 32
GPU = {
    "stacks": STACKS,
    "batch_size": 256,
    "precision": "mixed_bfloat16",
    "seconds": 3.0,
    "repeat": 3,
}
DRY_RUN = {
    "stacks": STACKS[:3],
    "batch_size": 4,
    "precision": "float32",
    "seconds": 0.2,
    "repeat": 1,
}


def check(options: Namespace, section: Section) -> None:
    """Measures one network after the other; the table is written after each."""
    networks = options.networks or (ALL if options.all else NETWORKS)
    how = DRY_RUN if options.dry_run else GPU
    if options.dry_run:
        networks = options.networks or ["cifar_resnet20"]
    if unknown := [network for network in networks if network not in train.NETWORKS]:
        section.note(f"Left out: {', '.join(unknown)}, which benchmarks/train.py does not have.")
        networks = [network for network in networks if network in train.NETWORKS]
    asked = {"stacks": options.stacks, "seconds": options.seconds, "repeat": options.repeat}
    how = how | {name: value for name, value in asked.items() if value}
    settings = Namespace(**how, threads=cores(), together=True)
    peak = None if options.dry_run else _peak(tables.machine()["gpus"])
    shares = train.flops(networks, 1e12 * peak) if peak else None
    section.note(
        f"{how['precision']}, batches of {how['batch_size']}, one repeated batch of random "
        f"images; all stacks in turns of {how['seconds']:g} s, medians of {how['repeat']}."
    )
    results = {}
    for network in networks:
        results[network] = _measured(network, settings, section)
        names = [name for name in STACKS if name in _names(results)]
        if names:
            section.table(train.table(results, names, shares))
    _sum_up(results, section)


def _peak(gpus: list[str]) -> float | None:
    """Returns the peak of the first GPU in TFLOP/s; None if it is not known."""
    return next((peak for name, peak in PEAKS.items() if gpus and name in gpus[0]), None)


def _names(results: dict[str, list[dict]]) -> set[str]:
    return {result["name"] for found in results.values() for result in found}


def _measured(network: str, settings: Namespace, section: Section) -> list[dict]:
    """Measures a network, with half the batch wherever a stack fails; notes what was left out."""
    size = settings.batch_size
    while True:
        said = []
        settings.batch_size = size
        found = train.measured(network, settings, said.append)
        for line in said:
            section.note(f"{network}, batches of {size}: {line}")
        if size // 2 < SMALLEST_BATCH or not any(line.startswith("failed") for line in said):
            return found
        size //= 2


def _sum_up(results: dict[str, list[dict]], section: Section) -> None:
    """Notes the ratios to PyTorch and the cost of deterministic kernels."""
    ratios = _ratios(results, "ours", "compiled")
    if ratios:
        lowest = min(ratios, key=ratios.get)
        mean = statistics.geometric_mean(ratios.values())
        section.note(
            f"ours / PyTorch compiled: geometric mean {mean:.2f}, "
            f"lowest {ratios[lowest]:.2f} ({lowest})."
        )
    costs = _ratios(results, "deterministic", "ours")
    if costs:
        each = ", ".join(f"{network} {ratio - 1:+.1%}" for network, ratio in costs.items())
        section.note(f"Images per second with deterministic kernels, next to without: {each}.")


def _ratios(results: dict[str, list[dict]], above: str, below: str) -> dict[str, float]:
    """Returns the ratios of two stacks' medians, by network, where both were measured."""
    ratios = {}
    for network, found in results.items():
        rates = {result["name"]: tables.summary(result)["median"] for result in found}
        if {above, below} <= rates.keys():
            ratios[network] = rates[above] / rates[below]
    return ratios
