"""Subprocesses of the checks: the application's commands, run to their end or killed."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu import forked
from benchmarks.gpu.checks import ROOT
from benchmarks.gpu.sections import UNEXPECTED, Section
from runtime.cores import cores

ON_CPU = {"CUDA_VISIBLE_DEVICES": "-1"}
DIVIDED = ("-m", "benchmarks.gpu.divided")
POLL = 0.002  # seconds between two looks for a checkpoint
ATTEMPTS = 3  # to kill a training before its end
WIDTH = 160  # characters of a line that is quoted
_ERROR = re.compile(r"^\w*(error|Error|Exception)\b.*", re.M)


@dataclass(frozen=True)
class Done:
    """A process that has ended.

    Attributes:
        code: Exit code.
        output: What it wrote on stdout.
        errors: What it wrote on stderr.
        seconds: How long it ran.
    """

    code: int
    output: str
    errors: str
    seconds: float

    @property
    def line(self) -> str:
        """The last line of its output, or its error."""
        return self.error if self.code else _last(self.output) or _last(self.errors)

    @property
    def error(self) -> str:
        """The line of its error; the last line if none looks like one."""
        found = _ERROR.findall(self.errors) and _ERROR.search(self.errors)[0]
        return (found or _last(self.errors) or _last(self.output))[:WIDTH]


class Jobs:
    """Starts processes, whose logs and run folders lie in the folders of a check."""

    def __init__(self, options: Namespace, side_by_side: int) -> None:
        """Sets the folders.

        Args:
            options: Options of the check.
            side_by_side: Processes that run at the same time, which share the cores.
        """
        self.side_by_side = side_by_side
        self._logs, self._work = Path(options.logs), Path(options.work)
        self._threads = max(1, cores() // side_by_side)
        self._dry_run = options.dry_run
        self._count, self._lock = 0, threading.Lock()

    def run(self, *words: object, environment: dict | None = None) -> Done:
        """Runs `python WORDS` to its end."""
        return self._ended(*self._start(words, environment))

    def folder(self, name: str) -> Path:
        """Returns the path of a run folder, which does not exist."""
        folder = self._work / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def train(
        self, folder: Path, *words: str, by: tuple = ("train.py",), environment: dict | None = None
    ) -> Done:
        """Trains to the end.

        Args:
            folder: Run folder.
            *words: Flags of train.py.
            by: Words that start the training.
            environment: More variables of the environment.
        """
        return self.run(*self._training(folder, words, by), environment=environment)

    def killed(self, folder: Path, *words: str, by: tuple = ("train.py",)) -> Done:
        """Trains, kills the training as soon as it has a checkpoint, and resumes it to the end.

        Raises:
            RuntimeError: If the training ended each time before it could be killed.
        """
        for _ in range(ATTEMPTS):
            shutil.rmtree(folder, ignore_errors=True)
            process, *log = self._start(self._training(folder, words, by), None)
            while process.poll() is None and not step_files(folder):
                time.sleep(POLL)
            process.kill()
            done = self._ended(process, *log)
            if done.code < 0 and f"--max_steps={_step(step_files(folder)[-1])}" not in words:
                return self.run(*by, "--resume", f"--run_dir={folder}")
            if done.code > 0:
                return done
        raise RuntimeError(f"{folder.name}: ended before it could be killed, {ATTEMPTS} times")

    def _training(self, folder: Path, words: tuple, by: tuple) -> list:
        return [*by, f"--run_dir={folder}", f"--threads={self._threads}", *words]

    def _start(self, words: tuple | list, environment: dict | None) -> tuple:
        with self._lock:
            self._count += 1
            log = self._logs / f"{self._count:03d}"
        words = list(map(str, words))
        log.with_suffix(".command").write_text(" ".join([*words, str(environment or ""), "\n"]))
        paths = log.with_suffix(".stdout"), log.with_suffix(".stderr")
        began = time.perf_counter()
        start = forked.Process if self._dry_run else _started
        return start(words, environment or {}, *paths), began, paths

    def _ended(
        self, process: subprocess.Popen | forked.Process, began: float, paths: tuple[Path, Path]
    ) -> Done:
        code = process.wait()
        texts = [path.read_text(errors="replace") for path in paths]
        return Done(code, *texts, time.perf_counter() - began)


def _started(words: list[str], environment: dict, output: Path, errors: Path) -> subprocess.Popen:
    with open(output, "wb") as stdout, open(errors, "wb") as stderr:
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )


def step_files(folder: Path) -> list[Path]:
    """Returns the checkpoints of a run folder, oldest first."""
    return sorted(folder.glob("checkpoints/step-*.safetensors"))


def _step(file: Path) -> int:
    return int(file.stem.partition("-")[2])


def require(done: Done, what: str) -> None:
    """Raises RuntimeError if a process has failed."""
    if done.code:
        raise RuntimeError(f"{what} ended with exit code {done.code}: {done.line}")


def leave_out(section: Section, reason: str) -> None:
    """Notes why a check was left out."""
    section.note(f"Left out: {reason}.")


def yes(value: bool) -> str:
    """Formats a truth value that is expected to be true for a table."""
    return "yes" if value else UNEXPECTED


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:WIDTH] if lines else ""
