"""Summarizes turns by medians, and formats tables for the console and in Markdown."""

import importlib.metadata
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDERS = ("--data", "--small")  # flags whose values are paths of this machine
PACKAGES = (
    "tensorflow",
    "keras",
    "numpy",
    "opencv-python-headless",
    "jax",
    "torch",
    "torchvision",
    "pillow",
    "timm",
    "ffcv",
    "nvidia-dali-cuda120",
    "grain",
    "webdataset",
)


def summary(result: dict) -> dict[str, float]:
    """Computes statistics over a candidate's turns from `turns.measure`.

    Returns:
        `median`, `lowest` and `highest` in images per second, and the medians `cpu`, CPU time per
        image in microseconds, and `waited`, a fraction of the time.
    """
    rates = [turn["images"] / turn["seconds"] for turn in result["turns"]]
    return {
        "median": statistics.median(rates),
        "lowest": min(rates),
        "highest": max(rates),
        "cpu": statistics.median(1e6 * turn["cpu"] / turn["images"] for turn in result["turns"]),
        "waited": statistics.median(turn["waited"] / turn["seconds"] for turn in result["turns"]),
    }


def compared(results: list[dict]) -> list[list[str]]:
    """Returns the rows of a scenario, the fastest candidate first, with ratios of medians."""
    found = {result["name"]: summary(result) for result in results}
    rows = [["", "images/s", "lowest - highest", "of the ceiling", "ours is", "CPU us", "batch"]]
    for result in sorted(results, key=lambda result: -found[result["name"]]["median"]):
        figures = found[result["name"]]
        rows.append(
            [
                result["label"],
                f"{figures['median']:,.0f}",
                f"{figures['lowest']:,.0f} - {figures['highest']:,.0f}",
                _ratio(figures, found.get("ceiling")),
                _ratio(found.get("ours"), figures) + " x" * ("ours" in found),
                f"{figures['cpu']:,.0f}",
                f"{result['dtype']} {list(result['shape'])}" if result["shape"] else "",
            ]
        )
    return rows


def text(rows: Sequence[Sequence[str]]) -> str:
    """Formats a table for the console; the first row is the header."""
    return "\n".join(_padded(rows, "  "))


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Formats a table in Markdown; the first row is the header."""
    head, *body = _padded(rows, " | ")
    rule = "|---" + "|---:" * (len(rows[0]) - 1) + "|"
    return "\n".join([f"| {head} |", rule, *(f"| {line} |" for line in body)])


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Formats the mean, with the sample standard deviation if there are several values."""
    of_several = f" ± {statistics.stdev(values):,.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):,.{digits}f}{of_several}" if values else ""


def machine() -> dict:
    """Describes this machine: cores, processor, memory, GPUs, versions."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cores": cores,
        "cpu": _cpu(),
        "memory_gib": _memory(),
        "gpus": _gpus(),
        "versions": versions,
    }


def machine_line(about: dict) -> str:
    """Formats the description of a machine as a line of text."""
    memory = f", {about['memory_gib']:.0f} GiB" if about["memory_gib"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    gpus = "".join(f", {gpu}" for gpu in about["gpus"])
    return f"{about['cores']} cores ({about['cpu']}){memory}{gpus}; {versions}"


def command(script: str, argv: list[str] | None) -> str:
    """Returns the command that repeats a benchmark, without the paths of data and results."""
    shown = []
    for word in sys.argv[1:] if argv is None else argv:
        name = word.partition("=")[0]
        if name not in ("--output", "--scratch"):
            shown.append(f"{name}=FOLDER" if name in FOLDERS else shlex.quote(word))
    return " ".join([f"python {script}", *shown])


def _ratio(above: dict | None, below: dict | None) -> str:
    return f"{above['median'] / below['median']:.2f}" if above and below else ""


def _padded(rows: Sequence[Sequence[str]], between: str) -> list[str]:
    """Pads cells to columns of equal width, the first column left-aligned, others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        between.join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _gpus() -> list[str]:
    """Returns the names of the NVIDIA GPUs of this machine."""
    if not shutil.which("nvidia-smi"):
        return []
    asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True).stdout.splitlines()


def _memory() -> float:
    """Returns the memory of this machine in GiB; 0 if unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError, AttributeError):
        return 0.0
