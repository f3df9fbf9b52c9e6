"""Estimates what limits training on 1, 8 and 64 GPUs, from measurements and stated assumptions.

    python benchmarks/scaling.py                                     # a few minutes on 2 cores
    python benchmarks/scaling.py --models=resnet50 --gpus=8,32 --network_link=12.5

Measured on this machine, for each network: the training step, the size of a stored image and the
CPU time to read, decode and augment it (from `--data`, or two photographs). Counted: the sums over
GPUs in a step. Assumed, with a flag for each: GPUs, links, storage, cores. A model computes from
these the images per second, the input they need and the first bottleneck; a simulation shows the
effect of steps that take unequal times. Tables go to benchmarks/results/scaling.md.
"""

import argparse
import functools
import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime import console
from runtime.cores import cores

with console.quiet_import():
    import models
    from benchmarks import needs, tables
    from benchmarks.choices import choice
    from benchmarks.simulation import assumptions, cluster
    from benchmarks.simulation.assumptions import count, number
    from data import opening
    from data.pipeline import augment
    from data.shards import datasets
    from engine import devices

RESULTS = Path(__file__).resolve().parent / "results"
NETWORKS = ["alexnet", "vgg16", "resnet50", "inception_v3", "densenet121", "mobilenet_100"]
NOTES = (
    "No GPU was measured: what is expected follows from the assumptions. One share of the peak for "
    "all networks flatters those that wait for memory (MobileNet, DenseNet).",
    "Our step sums the gradients after the backward pass, all at a time. Batch normalisation sums "
    "the statistics of each layer when they are needed, and their gradients.",
)


def counts(text: str) -> list[int]:
    """Parses `N,N,...`, as a type for argparse."""
    return [count(word) for word in text.split(",")]


class Measured(NamedTuple):
    """Measurements of a network on this machine."""

    step: needs.Step
    input: needs.Input


def main(argv: list[str] | None = None) -> None:
    """Parses the command line, measures, computes, and prints and writes the tables."""
    parser = arguments()
    options = parser.parse_args(argv)
    machines = assumptions.cluster(options)
    try:
        for gpus in options.gpus:
            machines.machines(gpus)
    except ValueError as error:
        parser.error(f"--gpus: {error}")
    load = os.getloadavg()[0]
    devices.configure(options.threads)
    precision = devices.set_precision(options.precision)
    with console.user_errors():
        found = measured(options)
    about = (
        f"{tables.machine_line(tables.machine())}; {precision}, {options.threads} threads; load "
        f"{load:.1f} before it began"
    )
    parts = [
        ("Measured and counted here", measured_rows(found, options)),
        ("Assumed", assumptions.rows(options)),
        ("Expected, on paper, and with jitter by simulation", expected_rows(found, options)),
    ]
    for title, rows in parts:
        print(f"\n{title}\n{tables.text(rows)}")
    print("", *NOTES, about, sep="\n")
    written = [text for title, rows in parts for text in (f"**{title}**", tables.markdown(rows))]
    written += [*NOTES, about, f"    {tables.command('benchmarks/scaling.py', argv)}"]
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "scaling.md").write_text("\n\n".join(written) + "\n")


def arguments() -> console.Parser:
    """Returns the parser of the flags."""
    parser = console.Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--models", type=choice(models.names()), default=NETWORKS)
    parser.add_argument("--gpus", type=counts, default=[1, 8, 64], help="numbers (1,8,64)")
    parser.add_argument("--data", help="images or shards, as of train.py; else two photographs")
    parser.add_argument("--image_kb", type=number(), help="of a stored image; default: as measured")
    parser.add_argument("--batch_size", type=count, default=8, help="of the measured steps (8)")
    parser.add_argument("--seconds", type=number(0), default=20, help="of a network's steps (20)")
    parser.add_argument("--input_seconds", type=number(0), default=3, help="of its input (3)")
    parser.add_argument("--threads", type=count, default=cores())
    parser.add_argument("--precision", default="auto", choices=devices.PRECISIONS)
    parser.add_argument(
        "--jitter",
        type=number(0),
        help="of simulated times: deviation / mean; default: as measured",
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="a folder")
    assumptions.add_to(parser)
    return parser


def measured(options: argparse.Namespace) -> dict[str, Measured]:
    """Measures the networks, by name, and every distinct input once."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:

        @functools.cache
        def opened(size: int) -> datasets.Dataset:
            if options.data:
                return opening.open_dataset(options.data, image_size=size)
            return needs.photographs(Path(folder), size)

        @functools.cache
        def read(size: int, policy: str) -> needs.Input:
            return needs.read(
                opened(size),
                augment.POLICIES[policy],
                size=size,
                threads=options.threads,
                seconds=options.input_seconds,
            )

        for name in options.models:
            print(f"measuring {name}", file=sys.stderr, flush=True)
            source = read(models.image_size(name), models.policy(name))
            step = needs.step(name, batch_size=options.batch_size, seconds=options.seconds)
            found[name] = Measured(step, source)
    return found


def load_of(network: Measured, options: argparse.Namespace) -> cluster.Load:
    """Returns the load of a network at the assumed speed of a GPU."""
    step, source = network
    gpu_images = assumptions.gpu_images(
        options, here=options.batch_size / step.seconds, multiply_adds=step.multiply_adds
    )
    image_bytes = 1e3 * options.image_kb if options.image_kb else source.image_bytes
    return cluster.Load(gpu_images, step.gradients, step.norms, image_bytes, source.core_images)


def measured_rows(found: dict[str, Measured], options: argparse.Namespace) -> list[list[str]]:
    """Returns a row of measurements per network."""
    rows = [
        [
            "",
            "parameters",
            "million multiply-adds",
            f"ms, step of {options.batch_size}",
            "images/s",
            "jitter",
            "MB of gradients summed",
            "MB of BatchNorm summed",
            "sums of a step",
            "kB, stored image",
            "images/s of a core's input",
        ]
    ]
    for name, (step, source) in found.items():
        rows.append(
            [
                name,
                f"{step.parameters:,}",
                f"{step.multiply_adds / 1e6:,.1f}",
                f"{1e3 * step.seconds:,.0f}",
                f"{options.batch_size / step.seconds:,.1f}",
                f"{step.jitter:.1%}",
                f"{step.gradients.bytes / 1e6:,.2f}",
                f"{step.norms.bytes / 1e6:,.2f}",
                f"{step.gradients.count + step.norms.count}",
                f"{source.image_bytes / 1e3:,.1f}",
                f"{source.core_images:,.0f}",
            ]
        )
    return rows


def expected_rows(found: dict[str, Measured], options: argparse.Namespace) -> list[list[str]]:
    """Returns a row of expectations per network and number of GPUs."""
    rows = [
        [
            "",
            "GPUs",
            "images/s",
            "efficiency",
            "with jitter",
            "all-reduce, ms of a step",
            "input asked for, images/s",
            "MB/s of storage",
            "cores of a machine",
            "limits",
        ]
    ]
    machines = assumptions.cluster(options)
    for name, network in found.items():
        load = load_of(network, options)
        jitter = network.step.jitter if options.jitter is None else options.jitter
        for gpus in options.gpus:
            what = cluster.expected(load, gpus, machines)
            tried = cluster.simulated(load, gpus, machines, jitter=jitter)
            rows.append(
                [
                    name,
                    f"{gpus}",
                    f"{what.images:,.0f}",
                    f"{what.efficiency:.0%}",
                    f"{tried / (gpus * load.gpu_images):.0%}",
                    f"{1e3 * sum(what.waits):,.1f}",
                    f"{what.demand:,.0f}",
                    f"{what.storage / 1e6:,.0f}",
                    f"{what.cores:,.1f}",
                    what.limits,
                ]
            )
    return rows


if __name__ == "__main__":
    main()
