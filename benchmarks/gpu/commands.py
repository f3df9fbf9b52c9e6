"""The check of the four commands: a run on the GPU next to runs on the CPU."""

import csv
import json
import re
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.gpu.checks import ROOT
from benchmarks.gpu.jobs import ON_CPU, Done, Jobs, require, yes
from benchmarks.gpu.sections import Section
from runtime.cores import cores

NETWORKS = ["lenet5", "cifar_resnet20"]
STEPS = 200
IMAGE = ROOT / "data" / "samples" / "digit_3.png"
ACCURACY = re.compile(r"top-1 ([0-9.]+) %")
SPREAD = 1.0  # percentage points between two accuracies of one network
# Trainings by the title of their column: seed and environment.
RUNS = {"GPU": (0, None), **{f"CPU, seed {seed}": (seed, ON_CPU) for seed in range(3)}}
DRY_RUNS = list(RUNS)[:2]


def check(options: Namespace, section: Section) -> None:
    """Trains every network on the GPU and on the CPU, and uses the GPU's run."""
    networks = options.networks or (NETWORKS[:1] if options.dry_run else NETWORKS)
    steps = 10 if options.dry_run else STEPS
    jobs = Jobs(options, max(1, cores() // 4))
    titles = DRY_RUNS if options.dry_run else list(RUNS)
    section.header("network", "", *titles, "agree")
    with ThreadPoolExecutor(max(2, jobs.side_by_side)) as pool:
        trained = {
            (network, title): pool.submit(_train, jobs, network, title, steps)
            for network in networks
            for title in titles
        }
        for network in networks:
            runs = {title: trained[network, title].result() for title in titles}
            _compare(section, network, runs)
            _use(section, network, runs["GPU"], jobs, pool, len(titles))
    section.note(
        f"{steps} steps on the built-in digits in float32. The GPU's loss agrees where it is no "
        "further from those of the CPU's seeds than these are from each other; accuracies agree "
        f"within {SPREAD:g} points. test.py: on the GPU and on the CPU, with the GPU's weights."
    )


def _train(jobs: Jobs, network: str, title: str, steps: int) -> Path:
    seed, environment = RUNS[title]
    folder = jobs.folder(f"{network}-{title.replace(', ', '-').replace(' ', '-')}")
    words = [f"--model={network}", "--data=digits", f"--max_steps={steps}", f"--seed={seed}"]
    done = jobs.train(folder, *words, "--precision=float32", environment=environment)
    require(done, f"train.py with {network} ({title})")
    return folder


def _compare(section: Section, network: str, runs: dict[str, Path]) -> None:
    """Adds the rows about the trainings: their devices, losses and accuracies."""
    devices = [
        ", ".join(json.loads((folder / "run.json").read_text())["device"]["devices"])
        for folder in runs.values()
    ]
    section.row(network, "train.py, device", *devices, "")
    losses = [_last(folder, "validation_loss") for folder in runs.values()]
    gpu, *seeds = losses
    noise = max(seeds) - min(seeds)
    agree = min(seeds) - noise <= gpu <= max(seeds) + noise
    section.row(network, "validation loss", *(f"{loss:.4f}" for loss in losses), yes(agree))
    accuracies = [_last(folder, "validation_top1_accuracy") for folder in runs.values()]
    section.row(network, "validation top-1", *(f"{100 * each:.2f} %" for each in accuracies), "")


def _last(folder: Path, column: str) -> float:
    with open(folder / "metrics.csv", newline="") as file:
        return float(list(csv.DictReader(file))[-1][column])


def _use(
    section: Section,
    network: str,
    folder: Path,
    jobs: Jobs,
    pool: ThreadPoolExecutor,
    columns: int,
) -> None:
    """Adds the rows about the other commands, with the GPU's run, padded to `columns`."""
    started = {
        "test.py": [
            pool.submit(jobs.run, "test.py", folder, environment=each) for each in (None, ON_CPU)
        ],
        "classify.py": [
            pool.submit(jobs.run, "classify.py", IMAGE, f"--run_dir={folder}", "--csv", "--top_k=1")
        ],
        "export.py": [pool.submit(jobs.run, "export.py", folder)],
    }
    for command, processes in started.items():
        done = [process.result() for process in processes]
        cells = [*map(_described, done), *[""] * columns][:columns]
        section.row(network, command, *cells, yes(_agree(done)))


def _agree(done: list[Done]) -> bool:
    """Whether all processes have succeeded, with accuracies that are close to each other."""
    accuracies = [float(each) for one in done for each in ACCURACY.findall(one.line)]
    spread = max(accuracies) - min(accuracies) if accuracies else 0
    return all(each.code == 0 for each in done) and spread <= SPREAD


def _described(done: Done) -> str:
    """Exit code and last line; paths are shortened to the name of their file."""
    words = [word.rpartition("/")[2] for word in done.line.split(" ")]
    return f"{done.code}: {' '.join(words)}"
