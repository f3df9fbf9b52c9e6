"""Checks the application on this machine's NVIDIA GPU, and reports what it finds.

    python -m benchmarks.gpu                              # commands, exactness, speed, replicas
    python -m benchmarks.gpu --only=commands,exactness    # updates these sections of the report
    python -m benchmarks.gpu --all --data=SHARDS --images=FOLDER
    python -m benchmarks.gpu --dry_run --output=FOLDER    # on the CPU, with tiny settings

The report, gpu-DEVICE.json and gpu-DEVICE.md, is written after every check. SHARDS is a folder
written by `python -m data.convert IMAGES SHARDS`, FOLDER has the same images in class folders. A
check runs in a process of its own with a time limit; what it has found until then is kept.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks import tables
from benchmarks.choices import choice
from benchmarks.gpu import checks, speed
from benchmarks.gpu.report import Report
from benchmarks.gpu.sections import UNEXPECTED
from runtime import console

RESULTS = Path(__file__).resolve().parents[1] / "results"
# Options that the checks see.
PASSED_ON = ("networks", "stacks", "seconds", "repeat", "all", "dry_run", "data", "images")


def main(argv: list[str] | None = None) -> None:
    """Parses the command line and runs the checks; exits with 1 if one fails."""
    options = parse(argv)
    device = device_name(options.dry_run)
    with console.user_errors():
        report = Report(Path(options.output), device)
        logs = Path(options.logs or tempfile.mkdtemp(prefix="gpu-logs-")).resolve()
        with tempfile.TemporaryDirectory(prefix="gpu-", dir=options.scratch) as work:
            verdicts = {
                name: run(name, options, report, logs / name, Path(work, name))
                for name in chosen(options)
            }
        print(f"written: {report.page}")
        if failed := [f"{name} {verdict}" for name, verdict in verdicts.items() if verdict]:
            console.fail(f"{', '.join(failed)}; logs: {logs}", console.FAILED)
        if not options.logs:
            shutil.rmtree(logs)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parses the flags."""
    parser = console.Parser(
        prog="python -m benchmarks.gpu",
        description=__doc__.splitlines()[0],
        allow_abbrev=False,
    )
    parser.add_argument("--only", type=choice(checks.CHECKS), help="checks, separated by commas")
    parser.add_argument("--all", action="store_true", help="all checks with all networks")
    parser.add_argument("--networks", type=lambda text: text.split(","), help="to check, by commas")
    parser.add_argument("--stacks", type=choice(speed.STACKS), help="stacks to compare, by commas")
    parser.add_argument("--seconds", type=float, help="length of a turn in speed (3)")
    parser.add_argument("--repeat", type=int, help="turns of each stack in speed (3)")
    parser.add_argument("--dry_run", action="store_true", help="on the CPU, with tiny settings")
    parser.add_argument("--data", type=_folder, help="shards with a shorter side of 256 pixels")
    parser.add_argument("--images", type=_folder, help="the same images in class folders")
    parser.add_argument("--output", default=str(RESULTS), help="folder for the report")
    parser.add_argument("--logs", help="folder for the logs of all processes")
    parser.add_argument("--scratch", help="folder for run folders, some GB of them")
    return parser.parse_args(argv)


def _folder(text: str) -> str:
    """Returns the absolute path of a folder."""
    path = Path(text).expanduser().resolve()
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"expected a folder, received {text}")
    return str(path)


def chosen(options: argparse.Namespace) -> list[str]:
    """Returns the names of the checks to run."""
    if options.only:
        return options.only
    return [name for name, check in checks.CHECKS.items() if options.all or check.by_default]


def device_name(dry_run: bool) -> str:
    """Returns the name of the first GPU; without one it is an error, except in a dry run."""
    if dry_run:
        return "dry_run"
    found = tables.machine()["gpus"]
    if not found:
        console.fail("this machine finds no NVIDIA GPU; --dry_run runs the checks on the CPU")
    return found[0]


def run(name: str, options: argparse.Namespace, report: Report, logs: Path, work: Path) -> str:
    """Runs a check, adds it to the report and prints it; returns what is wrong, or nothing."""
    check = checks.CHECKS[name]
    print(f"\n{check.title} (at most {check.limit:g} s)", flush=True)
    order = {key: getattr(options, key) for key in PASSED_ON}
    section = checks.run(check, order, logs, work, keep=lambda part: report.add(name, part))
    shutil.rmtree(work, ignore_errors=True)
    report.add(name, section)
    if section["rows"]:
        print(tables.text(section["rows"]))
    print(*section["notes"], sep="\n")
    print(f"{section['seconds']:g} s", flush=True)
    if section["failed"]:
        print(f"not finished: {section['failed']}", file=sys.stderr, flush=True)
        return "was not finished"
    unexpected = any(UNEXPECTED in cell for row in section["rows"] for cell in row)
    return "is not as expected" if unexpected else ""


if __name__ == "__main__":
    main()
