"""Trains a recipe with several seeds and compares the runs: `python train.py --seeds=3 ...`.

The runs are separate processes, one after the other, so that each gives the same result as on its
own. If stopped, the same command continues where it was stopped.
"""

import signal
import subprocess
import sys
from collections.abc import Sequence

from engine import runs
from report import compare
from runtime import console


def train(command: Sequence[str], seeds: Sequence[int], run_dir: str) -> list[str]:
    """Trains once per seed, in the folders `run_dir`-seed0 and so on.

    Args:
        command: Script and its flags.
        seeds: Seeds of the runs to train.
        run_dir: Path of the run folders without the suffix for the seed.

    Returns:
        Lines of the comparison, whose HTML page is `run_dir`-seeds.html.

    Raises:
        SystemExit: With the exit code of a run that was stopped or failed.
    """
    folders = [f"{run_dir}-seed{seed}" for seed in seeds]
    for seed, folder in zip(seeds, folders, strict=True):
        print(f"seed {seed}: {folder}", flush=True)
        one = [*command, "--seeds=1", f"--seed={seed}", f"--run_dir={folder}"]
        if runs.Run(folder).exists:
            one.append("--resume")
        if code := _call([sys.executable, *one]):
            if code != console.WRONG_INPUT:
                print("the same command goes on here", file=sys.stderr)
            sys.exit(code)
    return compare.write(folders, f"{run_dir}-seeds.html")


def _call(command: Sequence[str]) -> int:
    """Runs a command, forwards signals to it and returns its exit code."""
    process, received = None, []

    def forward(number: int, frame: object) -> None:
        received.append(number)
        if process:
            process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in console.stop_signals()}
    try:
        process = subprocess.Popen(command, start_new_session=True)
        for number in tuple(received):  # signals received during its start
            process.send_signal(number)
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received and not code:  # it had finished before the signal reached it
        code = 128 + received[0]
    return code if code >= 0 else 128 - code
