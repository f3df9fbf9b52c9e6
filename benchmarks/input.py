"""Compares the throughput of input pipelines for training, in images per second.

    python benchmarks/input.py --data=IMAGES [--small=IMAGES] [--peers]

IMAGES is a folder of class folders: `--data` with photographs larger than the stored size,
`--small` with small squares such as CIFAR-10's. Every candidate runs in its own process, which
idles between its turns. All read the same bytes from the page cache and make batches of 128 random
crops, half of them mirrored, not normalised. `--peers` adds the loaders of other projects that are
installed (benchmarks/requirements.txt). Tables, all turns and a plot go to benchmarks/results.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime import console

with console.quiet_import():
    from benchmarks import prepare, tables, turns
    from benchmarks.candidates import CANDIDATES
    from benchmarks.choices import choice
    from benchmarks.peers import PEERS
    from benchmarks.setting import SCENARIOS, Setting

RESULTS = Path(__file__).resolve().parent / "results"
NAMES = sorted(
    {each.name for table in (CANDIDATES, PEERS) for row in table.values() for each in row}
)


def main(argv: list[str] | None = None) -> None:
    """Parses the command line, measures every scenario and writes the results."""
    options = parse(argv)
    with console.user_errors():
        report = {
            "command": tables.command("benchmarks/input.py", argv),
            "machine": tables.machine(),
            "scenarios": [],
        }
        for scenario in options.scenario:
            if SCENARIOS[scenario].small and not options.small:
                print(f"skipped scenario {scenario}: no --small=FOLDER of small images")
                continue
            with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
                report["scenarios"].append(measured(scenario, options, Path(scratch)))
        if report["scenarios"]:
            write(report, Path(options.output))


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parses the flags."""
    parser = console.Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", required=True, help="class folders of photographs")
    parser.add_argument("--small", help="class folders of small squares")
    parser.add_argument("--peers", action="store_true", help="other projects' loaders too")
    parser.add_argument("--scenario", type=choice(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--only", type=choice(NAMES), default=NAMES, help="candidates, by name")
    parser.add_argument("--seconds", type=float, default=5, help="of every turn (5)")
    parser.add_argument("--repeat", type=int, default=5, help="turns of every candidate (5)")
    parser.add_argument("--size", type=int, default=224, help="side of crops of photographs (224)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every candidate")
    parser.add_argument(
        "--examples", type=int, default=4096, help="of an epoch; images are repeated"
    )
    parser.add_argument("--output", default=str(RESULTS), help="a folder")
    parser.add_argument("--scratch", help="a folder for converted data, some GB of it")
    return parser.parse_args(argv)


def measured(scenario: str, options: argparse.Namespace, folder: Path) -> dict:
    """Prepares the data of a scenario, measures its candidates and prints the table."""
    about, notes = SCENARIOS[scenario], []
    print(f"\n{scenario}: {about.title}", flush=True)
    setting, images = prepared(scenario, options, folder)
    candidates = CANDIDATES[scenario] + (PEERS[scenario] if options.peers else [])

    def say(line: str) -> None:
        notes.append(line)
        print(line, flush=True)

    results = turns.measure(
        [(candidate, setting) for candidate in candidates if candidate.name in options.only],
        seconds=options.seconds,
        repeat=options.repeat,
        say=say,
    )
    print(tables.text(tables.compared(results)), flush=True)
    return {
        "name": scenario,
        "title": about.title,
        "images": images,
        "examples": len(setting.labels()),
        "bytes_per_image": setting.bytes_per_image(),
        "threads": setting.threads,
        "notes": notes,
        "results": results,
    }


def prepared(scenario: str, options: argparse.Namespace, folder: Path) -> tuple[Setting, int]:
    """Converts the data; returns its setting and the number of different images."""
    about = SCENARIOS[scenario]
    images = prepare.link_images(
        options.small if about.small else options.data,
        folder / "originals",
        options.examples,
        0 if about.small else prepare.SMALLEST,
        square=about.square,
    )
    setting = prepare.prepare(
        scenario, folder / "originals", folder, size=options.size, threads=options.threads
    )
    return setting, images


def write(report: dict, folder: Path) -> None:
    """Writes input.json, input.md and, if matplotlib is installed, input.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "input.json").write_text(json.dumps(report, indent=1) + "\n")
    (folder / "input.md").write_text(described(report))
    try:
        from benchmarks import plots
    except ImportError as error:
        print(f"no plot: {error}")
    else:
        plots.input_plot(report["scenarios"], folder / "input.png")
    print(f"\nwritten: {folder}")


def described(report: dict) -> str:
    """Formats the report in Markdown."""
    parts = []
    for scenario in report["scenarios"]:
        parts.append(
            f"**{scenario['title']}** ({scenario['images']:,} images, "
            f"{scenario['bytes_per_image'] / 1000:,.1f} kB each, {scenario['threads']} threads)"
        )
        parts.append(tables.markdown(tables.compared(scenario["results"])))
        parts += scenario["notes"]
    parts.append(tables.machine_line(report["machine"]))
    parts.append(f"    {report['command']}")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
