"""The table of checks, and how one runs: in a session of its own, with a time limit."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from benchmarks import turns
from benchmarks.gpu.sections import Section

ROOT = Path(__file__).resolve().parents[2]
POLL = 1  # seconds between two looks at a check


@dataclass(frozen=True)
class Check:
    """A check.

    Attributes:
        name: Name in `--only` and in the report.
        title: Heading of its section.
        function: Function as "module:function" of `(options, section)`.
        limit: Longest duration in seconds.
        by_default: Whether it runs without `--all` and `--only`.
    """

    name: str
    title: str
    function: str
    limit: float
    by_default: bool = True


CHECKS = {
    check.name: check
    for check in (
        Check(
            "commands",
            "The commands, on the GPU and on the CPU",
            "benchmarks.gpu.commands:check",
            420,
        ),
        Check(
            "exactness",
            "The same weights twice, and after a SIGKILL",
            "benchmarks.gpu.exactness:check",
            900,
        ),
        Check(
            "speed",
            "Images per second in training",
            "benchmarks.gpu.speed:check",
            1500,
        ),
        Check(
            "replicas",
            "One GPU as two replicas",
            "benchmarks.gpu.replicas:check",
            420,
        ),
        Check(
            "memory",
            "A GPU with too little memory",
            "benchmarks.gpu.memory:check",
            420,
            by_default=False,
        ),
        Check(
            "input",
            "The input pipeline",
            "benchmarks.gpu.reading:check",
            1800,
            by_default=False,
        ),
    )
}


def run(
    check: Check,
    options: dict,
    logs: Path,
    work: Path,
    keep: Callable[[dict], object] = lambda section: None,
) -> dict:
    """Runs a check in a child process.

    Args:
        check: Check to run.
        options: Options of the check, as JSON values.
        logs: Folder for the logs of the check and of all that it starts.
        work: Folder for temporary files.
        keep: Receives the section whenever it has grown, until the check ends.

    Returns:
        The section, as `Section` writes it, with `seconds`, `date` and `failed`. A check that
        fails or reaches its limit keeps the rows that it has written.
    """
    for folder in (logs, work):
        folder.mkdir(parents=True, exist_ok=True)
    order, file, log = work / "order.json", work / "section.json", logs / "check.log"
    folders = {"logs": str(logs), "work": str(work)}
    order.write_text(json.dumps({**options, **folders, "title": check.title}))
    section = Section(file, check.title)
    words = [sys.executable, "-m", "benchmarks.gpu.child", check.function, str(order), str(file)]
    began, seen = time.perf_counter(), None

    def dated(failed: str | None) -> dict:
        """The section as it is now."""
        found = Section.read(file) or section.content()
        seconds = round(time.perf_counter() - began, 1)
        failed = found["failed"] or failed
        return {**found, "seconds": seconds, "date": date.today().isoformat(), "failed": failed}

    with open(log, "wb") as output:
        child = subprocess.Popen(
            words, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while (code := _ended(child, POLL)) is None:
                if time.perf_counter() - began > check.limit:
                    return dated(f"it was stopped at its limit of {check.limit:g} s")
                if seen != (seen := Section.read(file)):
                    keep(dated("it was still running"))
        finally:
            kill(child)
    return dated(f"it ended with exit code {code}: {last_lines(log)}" if code else None)


def _ended(child: subprocess.Popen, patience: float) -> int | None:
    """Returns a process' exit code; None if it still runs after some seconds."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return child.wait(patience)
    return None


def kill(child: subprocess.Popen) -> None:
    """Kills a process that leads a group, the group, and descendants in groups of their own."""
    descendants = turns.family(child.pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    for process in descendants:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    child.wait()


def last_lines(path: Path, count: int = 3) -> str:
    """Returns the last lines of a log as one line."""
    lines: Iterable[str] = path.read_text(errors="replace").splitlines()
    return " | ".join([line.strip() for line in lines if line.strip()][-count:]) or "no output"
