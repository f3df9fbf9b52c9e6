"""Compares the training step with Keras' `fit` and with PyTorch's, on this machine.

    python benchmarks/train.py                                   # all networks, float32
    python benchmarks/train.py --networks=alexnet,cifar_resnet20 --precision=mixed_bfloat16

Each stack is a process of its own; they take turns on the same random batch. Ratios are of medians,
memory is a process's peak, and the last line is the geometric mean. A table and all turns go to
benchmarks/results.
"""

import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import console

with console.quiet_import():
    from benchmarks import tables, turns
    from benchmarks.setting import Setting
    from engine import devices

RESULTS = Path(__file__).resolve().parent / "results"
# By name: side of the images, images of a batch.
NETWORKS = {
    "alexnet": (227, 64),
    "cifar_resnet20": (32, 128),
    "resnet50": (224, 16),
    "densenet121": (224, 16),
    "mobilenet_100": (224, 16),
    "googlenet_bn": (224, 16),
}
STACKS = {"ours": "ours", "keras": "keras fit", "torch": "PyTorch eager, channels last"}
FUNCTIONS = {"ours": "ours", "keras": "keras_fit", "torch": "torch_eager"}


def measured(network: str, options: object) -> list[dict]:
    """The turns of all stacks for a network."""
    size, batch_size = NETWORKS[network]
    setting = Setting("256", "", "", size=size, batch_size=1, threads=options.threads)
    how = {"network": network, "batch_size": batch_size, "precision": options.precision}
    candidates = [
        turns.Candidate(name, label, f"benchmarks.stacks:{FUNCTIONS[name]}", how)
        for name, label in STACKS.items()
    ]
    pairs = [(candidate, setting) for candidate in candidates]
    return turns.measure(pairs, seconds=options.seconds, repeat=options.repeat, say=print)


def table(results: dict[str, list[dict]]) -> list[list[str]]:
    """Images per second, how many times as fast ours is, and its memory beside Keras'."""
    head = ["network", *STACKS.values(), "ours / keras", "ours / torch", "memory, ours / keras"]
    rows, ratios = [head], ([], [], [])
    for network, found in results.items():
        rates = {result["name"]: tables.summary(result)["median"] for result in found}
        peaks = {
            result["name"]: max(turn["peak_bytes"] for turn in result["turns"]) for result in found
        }
        row = [network, *(f"{rates[name]:,.1f}" if name in rates else "" for name in STACKS)]
        pairs = ((rates, "keras"), (rates, "torch"), (peaks, "keras"))
        for (figures, other), column in zip(pairs, ratios, strict=True):
            if other in figures and "ours" in figures:
                column.append(figures["ours"] / figures[other])
                row.append(f"{column[-1]:.2f}")
            else:
                row.append("")
        rows.append(row)
    means = [f"{statistics.geometric_mean(column):.2f}" if column else "" for column in ratios]
    return [*rows, ["geometric mean", *[""] * len(STACKS), *means]]


def main(argv: list[str] | None = None) -> None:
    """Measures what the command line asks for, prints and writes the table."""
    parser = console.Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--networks", default=",".join(NETWORKS), help="separated by commas")
    parser.add_argument("--precision", default="float32", choices=devices.PRECISIONS)
    parser.add_argument("--seconds", type=float, default=10, help="of a turn (10)")
    parser.add_argument("--repeat", type=int, default=3, help="turns of every stack (3)")
    parser.add_argument("--threads", type=int, default=devices.cores())
    parser.add_argument("--output", default=str(RESULTS), help="folder for the results")
    options = parser.parse_args(argv)
    networks = options.networks.split(",")
    if unknown := sorted(set(networks) - set(NETWORKS)):
        parser.error(f"unknown networks {unknown}, expected some of {','.join(NETWORKS)}")
    options.precision = devices.precision_here(options.precision)  # the same for all stacks
    results = {network: measured(network, options) for network in networks}
    about = tables.machine()
    rows = table(results)
    print(tables.text(rows))
    report = {"machine": about, "precision": options.precision, "results": results}
    path = Path(options.output) / f"train-{options.precision}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    head = f"Images per second in training, {options.precision}, {tables.machine_line(about)}.\n\n"
    path.with_suffix(".md").write_text(head + tables.markdown(rows) + "\n")


if __name__ == "__main__":
    main()
