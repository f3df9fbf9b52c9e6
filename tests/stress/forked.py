"""A fork of this process, which has imported TensorFlow already: a training starts at once."""

import contextlib
import os
import re
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DONE = re.compile(r"^done: step (\d+)  weights sha256 ([0-9a-f]{64})$", re.M)  # of train.py


class Ended:
    """A forked process; its exit code when it has ended."""

    def __init__(self, process: int) -> None:
        self.process, self.code = process, None

    def kill(self) -> None:
        """Sends SIGKILL, which comes too late where it has ended already."""
        os.kill(self.process, signal.SIGKILL)


@contextlib.contextmanager
def forked(work: Callable[[], object]) -> Iterator[Ended]:
    """Does work in a fork of this process, which is waited for."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    ended = Ended(child)
    try:
        yield ended
    finally:
        _, status = os.waitpid(child, 0)
        ended.code = os.waitstatus_to_exitcode(status)


def script(words: Sequence[str], log: Path) -> None:
    """As `python WORDS > LOG 2>&1`; the first word may be `-mMODULE`."""
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.chdir(ROOT)
    sys.argv = list(words)
    if words[0].startswith("-m"):
        runpy.run_module(words[0][2:], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(words[0], run_name="__main__")


def trained(run_dir: Path, words: Sequence[str], after: float | None = None) -> tuple[int, str]:
    """Starts or resumes a training, perhaps kills it.

    Args:
        run_dir: Its folder; the output lies beside it.
        words: Its flags.
        after: Seconds until it is killed.

    Returns:
        Exit code and output.
    """
    resume = ["--resume"] if (run_dir / "run.json").exists() else []
    log = run_dir.with_suffix(".log")
    log.touch()
    with forked(
        lambda: script(["train.py", *words, *resume, f"--run_dir={run_dir}"], log)
    ) as ended:
        if after is not None:
            time.sleep(after)
            ended.kill()
    return ended.code, log.read_text(errors="replace")
