"""Measures how long a device waits for images from different input pipelines.

    python benchmarks/starvation.py --data=IMAGES

IMAGES is a folder of class folders of photographs. The devices are a simulated accelerator, which
takes a fixed time per image and uses no CPU, at several speeds, and this machine's CPU, which
trains networks small enough to outrun the loader of 2017. They are fed by that loader, by Keras'
folder loader and by ours. Tables, all turns and a plot go to benchmarks/results.
"""

import argparse
import dataclasses
import json
import math
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime import console

with console.quiet_import():
    from benchmarks import prepare, tables, turns
    from benchmarks.choices import choice
    from benchmarks.setting import Setting

RESULTS = Path(__file__).resolve().parent / "results"
IMAGENET = 1_281_167  # images per epoch
RATES = [1000, 3000, 10000, 30000]  # images per second
NETWORKS = {"lenet5": 32, "mobilenet_025": 32}  # side of the images in pixels

# Label in tables and scenario whose data is read, by key of `devices.FEEDS`.
FEEDS = {
    "2017": ("the 2017 loader, original files", "original"),
    "keras": ("keras image_dataset_from_directory, original files", "original"),
    "ours": ("ours, 256-pixel JPEG shards", "256"),
    "raw": ("ours, raw shards", "raw"),
    "repeated": ("one batch over and over", "raw"),  # upper bound: free input
}


def main(argv: list[str] | None = None) -> None:
    """Parses the command line, measures and writes the results."""
    options = parse(argv)
    with console.user_errors(), tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        settings = prepared(options, Path(scratch))
        report = {"machine": tables.machine(), "threads": options.threads}
        report["simulated"] = [
            {"rate": rate, "results": measured("simulated", {"rate": rate}, settings, options)}
            for rate in options.rates
        ]
        report["trained"] = [
            {"network": name, "results": measured("trained", {"network": name}, settings, options)}
            for name in options.networks
        ]
        write(report, Path(options.output))


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parses the flags."""
    parser = console.Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", required=True, help="class folders of photographs")
    parser.add_argument("--rates", type=numbers, default=RATES)
    parser.add_argument("--networks", type=choice(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--only", type=choice(FEEDS), default=list(FEEDS), help="feeds, by name")
    parser.add_argument("--seconds", type=float, default=5, help="of every turn (5)")
    parser.add_argument("--repeat", type=int, default=5, help="turns of every candidate (5)")
    parser.add_argument("--size", type=int, default=224, help="of the simulated device's images")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every candidate")
    parser.add_argument(
        "--examples", type=int, default=4096, help="of an epoch; images are repeated"
    )
    parser.add_argument("--output", default=str(RESULTS), help="a folder")
    parser.add_argument("--scratch", help="a folder for converted data, some GB of it")
    return parser.parse_args(argv)


def numbers(text: str) -> list[int]:
    """Parses `N,N,...`."""
    return [int(number) for number in text.split(",")]


def prepared(options: argparse.Namespace, folder: Path) -> dict[str, Setting]:
    """Converts the data of every scenario that a feed reads."""
    originals = folder / "originals"
    prepare.link_images(options.data, originals, options.examples, prepare.SMALLEST)
    return {
        scenario: prepare.prepare(
            scenario, originals, folder / scenario, size=options.size, threads=options.threads
        )
        for scenario in sorted({FEEDS[feed][1] for feed in options.only})
    }


def measured(
    device: str, about: dict, settings: dict[str, Setting], options: argparse.Namespace
) -> list[dict]:
    """Measures a device with every feed.

    Args:
        device: Name of a function of `devices`.
        about: Arguments of the device.
        settings: Settings by scenario.
        options: Values of the flags.
    """
    print(f"{device}: {', '.join(f'{key} {value}' for key, value in about.items())}", flush=True)
    pairs = []
    for feed in options.only:
        label, scenario = FEEDS[feed]
        function, arguments = f"benchmarks.simulation.devices:{device}", {"feed": feed, **about}
        size = NETWORKS.get(about.get("network"), options.size)
        setting = dataclasses.replace(settings[scenario], size=size)
        if device == "trained" or feed != "repeated":
            pairs.append((turns.Candidate(feed, label, function, arguments), setting))
    return turns.measure(pairs, seconds=options.seconds, repeat=options.repeat, say=print)


def write(report: dict, folder: Path) -> None:
    """Writes starvation.json, starvation.md and, if matplotlib is installed, starvation.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "starvation.json").write_text(json.dumps(report, indent=1) + "\n")
    simulated, trained = simulated_rows(report["simulated"]), trained_rows(report["trained"])
    print("", tables.text(simulated), "", tables.text(trained), sep="\n")
    parts = [
        "A simulated device (it waits as an accelerator would): share of the time in which it has "
        "nothing to do, and minutes for the 1.28 million images of ImageNet",
        tables.markdown(simulated),
        f"Training on the CPU that also reads the images ({report['threads']} threads)",
        tables.markdown(trained),
        tables.machine_line(report["machine"]),
    ]
    (folder / "starvation.md").write_text("\n\n".join(parts) + "\n")
    try:
        from benchmarks import plots
    except ImportError as error:
        print(f"no plot: {error}")
    else:
        idle = {
            result["label"]: idle_shares(report["simulated"], result["name"])
            for result in report["simulated"][0]["results"]
        }
        rates = [device["rate"] for device in report["simulated"]]
        plots.starvation_plot(idle, rates, folder / "starvation.png")
    print(f"\nwritten: {folder}")


def idle_shares(simulated: list[dict], name: str) -> list[float]:
    """Returns the idle shares of a feed at every rate."""
    return [found(device["results"], name)["waited"] for device in simulated]


def found(results: list[dict], name: str) -> dict[str, float]:
    """Returns the statistics of a feed, which are NaN if it failed."""
    for result in results:
        if result["name"] == name:
            return tables.summary(result)
    return {"median": math.nan, "waited": math.nan}


def simulated_rows(simulated: list[dict]) -> list[list[str]]:
    """Returns idle share and time per epoch, by feed and speed of the device."""
    rows = [["", *(f"{device['rate']:,} images/s" for device in simulated)]]
    for feed in simulated[0]["results"]:
        figures = [found(device["results"], feed["name"]) for device in simulated]
        cells = [f"{each['waited']:.0%}, {minutes(each['median'])}" for each in figures]
        rows.append([feed["label"], *cells])
    rows.append(["never waiting", *(f"0%, {minutes(device['rate'])}" for device in simulated)])
    return rows


def trained_rows(trained: list[dict]) -> list[list[str]]:
    """Returns speed, idle share and time per epoch, by network and feed."""
    rows = [["", "images/s", "lowest - highest", "waits", "ImageNet epoch"]]
    for network in trained:
        for result in network["results"]:
            figures = tables.summary(result)
            rows.append(
                [
                    f"{network['network']}: {result['label']}",
                    f"{figures['median']:,.0f}",
                    f"{figures['lowest']:,.0f} - {figures['highest']:,.0f}",
                    f"{figures['waited']:.0%}",
                    minutes(figures["median"]),
                ]
            )
    return rows


def minutes(rate: float) -> str:
    """Formats the time of an epoch of ImageNet at a rate of images per second."""
    return f"{IMAGENET / rate / 60:,.1f} min"


if __name__ == "__main__":
    main()
