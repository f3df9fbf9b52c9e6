"""Starts commands in forks of a process that has imported TensorFlow, for dry runs on the CPU.

Most of a command's time would be imports otherwise. On a GPU, commands start as a user starts them.
"""

import multiprocessing
import os
import runpy
import sys
import threading
import time
from pathlib import Path

PRELOADED = "benchmarks.gpu.preloaded"
POLL = 0.02  # seconds between two looks for an end
_ALONE = threading.Lock()  # every start looks for the ends of all others, which are told once


class Process:
    """A process with the methods of `subprocess.Popen` that the checks need."""

    def __init__(self, words: list[str], environment: dict, output: Path, errors: Path) -> None:
        """Starts `python WORDS`.

        Args:
            words: A script or `-m` and a module, followed by arguments.
            environment: Additional variables of the environment.
            output: File for stdout.
            errors: File for stderr.
        """
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([PRELOADED])
        self._process = context.Process(target=_run, args=(words, environment, output, errors))
        with _ALONE:
            self._process.start()

    def poll(self) -> int | None:
        """Returns the exit code, minus the signal's number after a signal; None while it runs."""
        with _ALONE:
            return self._process.exitcode

    def wait(self) -> int:
        """Waits for the end and returns the exit code."""
        while (code := self.poll()) is None:
            time.sleep(POLL)
        return code

    def kill(self) -> None:
        """Sends SIGKILL."""
        self._process.kill()


def _run(words: list[str], environment: dict, output: Path, errors: Path) -> None:
    for descriptor, path in ((1, output), (2, errors)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
    os.environ.update(environment)
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
