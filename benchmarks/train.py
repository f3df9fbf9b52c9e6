r"""Compares the training step with Keras' `fit` and with PyTorch's, on this machine.

    python benchmarks/train.py                                   # all networks, float32
    python benchmarks/train.py --networks=alexnet,cifar_resnet20 --precision=auto

Each stack runs in its own process; they take turns on the same random batch. Ratios are of medians,
memory is the peak of a process, and the last row is the geometric mean. A table and all turns go to
benchmarks/results. All stacks use a GPU if available. On a machine with JAX but without TensorFlow,
only our networks are measured:

    export KERAS_BACKEND=jax
    python benchmarks/train.py --stacks=jax,compiled --precision=mixed_bfloat16 --together \
        --batch_size=256 --networks=alexnet,vgg16,resnet50,inception_v3,densenet121,mobilenet_100 \
        --peak_tflops=989                                        # of an H100 or H200
"""

import concurrent.futures
import json
import multiprocessing
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import stacks, tables, turns
from benchmarks.setting import Setting
from runtime import console

RESULTS = Path(__file__).resolve().parent / "results"
# Side of the images in pixels and images per batch, by network.
NETWORKS = {
    "alexnet": (227, 64),
    "cifar_resnet20": (32, 128),
    "resnet50": (224, 16),
    "densenet121": (224, 16),
    "mobilenet_100": (224, 16),
    "googlenet_bn": (224, 16),
    "vgg16": (224, 16),
    "inception_v3": (299, 16),
}
DEFAULT = "alexnet,cifar_resnet20,resnet50,densenet121,mobilenet_100,googlenet_bn"
# Label in tables, function of `stacks` and its options, by stack.
STACKS = {
    "ours": ("ours", "ours", {}),
    "deterministic": ("ours, deterministic kernels", "ours", {"deterministic": True}),
    "jax": ("ours on JAX", "jax_step", {}),
    "keras": ("keras fit", "keras_fit", {}),
    "torch": ("PyTorch eager, channels last", "torch_step", {}),
    "compiled": ("PyTorch compiled, channels last", "torch_step", {"compiled": True}),
}
FLOPS = 6  # per multiply-add: forward, and the gradients of weights and of inputs


def measured(network: str, options: object, say: Callable[[str], object] = print) -> list[dict]:
    """Measures a network with all stacks; returns their turns."""
    size, batch_size = NETWORKS[network]
    setting = Setting("256", "", "", size=size, batch_size=1, threads=options.threads)
    how = {"network": network, "batch_size": options.batch_size or batch_size}
    pairs = []
    for name in options.stacks:
        label, function, more = STACKS[name]
        order = {**how, "precision": options.precision, **more}
        pairs.append(
            (turns.Candidate(name, label, f"benchmarks.stacks:{function}", order), setting)
        )
    return turns.measure(
        pairs,
        seconds=options.seconds,
        repeat=options.repeat,
        say=say,
        together=options.together,
    )


def table(
    results: dict[str, list[dict]], names: list[str], flops: dict[str, float] | None = None
) -> list[list[str]]:
    """Tabulates images per second, the speed-up of the first stack, and its memory next to Keras'.

    Args:
        results: Results of `measured`, by network.
        names: Names of the stacks.
        flops: Results of `flops`, by network (default: no utilization).
    """
    first, *others = names
    compared = [(f"{first} / {other}", "rate", other) for other in others]
    if "keras" in others:
        compared.append((f"memory, {first} / keras", "peak", "keras"))
    titles = [STACKS[name][0] for name in names] + [title for title, *_ in compared]
    rows = [["network", *titles, *([f"share of peak, {first}"] if flops else [])]]
    ratios = {title: [] for title, *_ in compared}
    for network, found in results.items():
        figures = {"rate": {}, "peak": {}}
        for result in found:
            figures["rate"][result["name"]] = tables.summary(result)["median"]
            figures["peak"][result["name"]] = max(turn["peak_bytes"] for turn in result["turns"])
        rates = figures["rate"]
        row = [network, *(f"{rates[name]:,.1f}" if name in rates else "" for name in names)]
        for title, kind, other in compared:
            both = first in figures[kind] and other in figures[kind]
            ratio = figures[kind][first] / figures[kind][other] if both else None
            ratios[title] += [ratio] * both
            row.append(f"{ratio:.2f}" if both else "")
        if flops:
            row.append(f"{rates[first] * flops[network]:.1%}" if first in rates else "")
        rows.append(row)
    means = [f"{statistics.geometric_mean(each):.2f}" if each else "" for each in ratios.values()]
    return [*rows, ["geometric mean", *[""] * len(names), *means, *([""] if flops else [])]]


def flops(networks: list[str], peak: float) -> dict[str, float]:
    """Returns the operations per training image, as a fraction of a device's peak per second."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as process:
        sizes = [NETWORKS[network][0] for network in networks]
        counts = process.map(stacks.multiply_adds, networks, sizes)
        return {
            network: FLOPS * count / peak for network, count in zip(networks, counts, strict=True)
        }


def precision_here(precision: str) -> str:
    """Resolves `auto` to the precision of our training on this machine, for all stacks."""
    if precision != "auto":
        return precision
    with console.quiet_import():
        from engine import devices
    return devices.precision_here(precision)


def main(argv: list[str] | None = None) -> None:
    """Parses the command line, measures, and prints and writes the table."""
    about = tables.machine()
    parser = console.Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--networks", default=DEFAULT, help="separated by commas")
    parser.add_argument("--stacks", default="ours,keras,torch", help=f"of {','.join(STACKS)}")
    parser.add_argument("--batch_size", type=int, help="of all networks (each has its own)")
    precisions = ("auto", "float32", "mixed_bfloat16")
    parser.add_argument("--precision", default="float32", choices=precisions)
    parser.add_argument("--peak_tflops", type=float, help="of the device, for the share reached")
    parser.add_argument("--seconds", type=float, default=10, help="of a turn (10)")
    parser.add_argument("--repeat", type=int, default=3, help="turns of every stack (3)")
    parser.add_argument("--threads", type=int, default=about["cores"])
    parser.add_argument("--together", action="store_true", help="start all stacks at the same time")
    parser.add_argument("--output", default=str(RESULTS), help="folder for the results")
    options = parser.parse_args(argv)
    networks, options.stacks = options.networks.split(","), options.stacks.split(",")
    for what, named, known in (
        ("networks", networks, NETWORKS),
        ("stacks", options.stacks, STACKS),
    ):
        if unknown := sorted(set(named) - set(known)):
            parser.error(f"unknown {what} {unknown}, expected some of {','.join(known)}")
    options.precision = precision_here(options.precision)
    share = flops(networks, 1e12 * options.peak_tflops) if options.peak_tflops else None
    results = {}
    for network in networks:
        results[network] = measured(network, options)
        rows = table(results, options.stacks, share)
        of_all = {"machine": about, "precision": options.precision, "results": results}
        write(Path(options.output), of_all, rows)
    print(tables.text(rows))


def write(folder: Path, report: dict, rows: list[list[str]]) -> None:
    """Writes all turns and the table, after every network so that no results are lost."""
    device = "gpu" if report["machine"]["gpus"] else "cpu"
    path = folder / f"train-{device}-{report['precision']}"
    folder.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    line = f"{report['precision']}, {tables.machine_line(report['machine'])}"
    text = f"Images per second in training, {line}.\n\n{tables.markdown(rows)}\n"
    path.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
