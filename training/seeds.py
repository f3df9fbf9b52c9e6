"""Trains the same thing with several seeds and compares the runs: `python train.py --seeds=3 ...`.

Every training is a process of its own, one after the other, so that each is what it would be by
itself. The same command again goes on where it was stopped.
"""

import signal
import subprocess
import sys
from collections.abc import Sequence

from engine import runs
from report import compare
from runtime import console


def train(command: Sequence[str], seeds: Sequence[int], run_dir: str) -> list[str]:
    """Trains once for every seed, in `run_dir`-seed0 and so on.

    Args:
        command: The script and its flags.
        seeds: Of the trainings.
        run_dir: Where the runs go, without what is added for the seed.

    Returns:
        Lines of the comparison; its page is `run_dir`-seeds.html.

    Raises:
        SystemExit: With its exit code, if a training was stopped or failed.
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
    """Runs a command to its end; the signals that would end this process are for that one."""
    process, received = None, []

    def forward(number: int, frame: object) -> None:
        received.append(number)
        if process:
            process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in console.stops()}
    try:
        process = subprocess.Popen(command, start_new_session=True)
        for number in tuple(received):  # while it was being started
            process.send_signal(number)
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received and not code:  # it had just ended
        code = 128 + received[0]
    return code if code >= 0 else 128 - code
