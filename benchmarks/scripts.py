"""Runs the project's scripts. Imports no framework."""

import contextlib
import shlex
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*words: str, seconds: float | None = None) -> bool:
    """Runs a script of the project to its end, or stops it as Ctrl-C does.

    Args:
        *words: Script and flags.
        seconds: Time after which the script is stopped, if it has not ended by itself.

    Returns:
        Whether it came to its end.

    Raises:
        RuntimeError: If it fails.
    """
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT)
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        stopped = process.poll() is None
        if stopped:
            process.send_signal(signal.SIGINT)
        code = process.wait()
    except BaseException:
        process.terminate()  # it saves its state before it ends
        process.wait()
        raise
    if code and not (stopped and code in (128 + signal.SIGINT, -signal.SIGINT)):
        raise RuntimeError(f"{shlex.join(words)} ended with exit code {code}")
    return code == 0
