"""Measures candidates in separate processes, which take turns. Imports no framework.

    results = turns.measure([(candidate, setting), ...], seconds=5, repeat=5, say=print)

Run as a script, this file is the process of a candidate: it starts the candidate and then idles,
with full queues, until its parent asks for a turn.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.setting import Setting
from runtime import console

console.prepare_tensorflow()

WARM_UP = 12  # batches, more than any candidate prefetches
WARM_UP_SECONDS = 0.5  # shortest warm-up
IDLE = 0.05  # CPU usage of an idle process, in cores
IDLE_SECONDS = 15  # longest wait until a process is idle
START_SECONDS = 900  # longest start; peers write files in their own format first
STOP_SECONDS = 10
PATIENCE = 120  # seconds that a turn may exceed the requested time


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way to read or train on data, to be compared with others.

    Attributes:
        name: Short name.
        label: Label in tables.
        function: Function as "module:function", which maps `(setting, **options)` to an endless
            generator of batches; a batch is any object with a length.
        options: Options of the function.
    """

    name: str
    label: str
    function: str
    options: dict = dataclasses.field(default_factory=dict)


class Missing(Exception):
    """Raised if a package that the candidate needs is not installed."""


class Failed(Exception):
    """Raised if the candidate's process died, failed or did not answer."""


class Running:
    """The parent's handle of a candidate's process."""

    def __init__(self, candidate: Candidate, setting: Setting) -> None:
        """Starts the process without waiting until it is ready.

        Args:
            candidate: Candidate to run.
            setting: First argument of the candidate's function.
        """
        self.candidate = candidate
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        order = {"function": candidate.function, "options": candidate.options}
        self._order(order | {"setting": dataclasses.asdict(setting)})

    def ready(self) -> dict:
        """Waits until the process is ready; returns `shape` and `dtype` of the first batch.

        Raises:
            Missing: If a package is not installed.
            Failed: If the process does not start.
        """
        return self._answer(START_SECONDS)

    def turn(self, seconds: float) -> dict[str, float]:
        """Runs the candidate for some seconds.

        Returns:
            `images`, `seconds`, `cpu` seconds of the process and its descendants, `waited` seconds
            as reported by the batches, `peak_bytes`, and `idle`, whether the process became idle
            afterwards.

        Raises:
            Failed: If the process does not answer.
        """
        self._order({"seconds": seconds})
        return self._answer(20 * seconds + PATIENCE)

    def stop(self) -> None:
        """Ends the process and its descendants."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process.stdout.close()

    def _order(self, request: dict) -> None:
        with contextlib.suppress(BrokenPipeError):  # a dead process gives no answer
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def _answer(self, patience: float) -> dict:
        answered, _, _ = select.select([self._process.stdout], [], [], patience)
        line = self._process.stdout.readline() if answered else b""
        reply = json.loads(line) if line else {"failed": "no answer"}
        if "missing" in reply:
            raise Missing(reply["missing"])
        if "failed" in reply:
            raise Failed(reply["failed"])
        return reply


def measure(
    pairs: list[tuple[Candidate, Setting]],
    *,
    seconds: float,
    repeat: int,
    say: Callable[[str], object],
    together: bool = False,
) -> list[dict]:
    """Starts all candidates and measures them in turns, one at a time.

    Candidates that lack a package or fail are skipped with a message.

    Args:
        pairs: Candidates with unique names, each with the first argument of its function.
        seconds: Length of a turn.
        repeat: Turns per candidate.
        say: Function that prints a message.
        together: Whether to start all candidates at the same time (default: one after another).

    Returns:
        Results of each candidate: `name`, `label`, `shape` and `dtype` of the first batch, `turns`.
    """
    running, results = {}, {}
    try:
        for group in [pairs] if together else [[pair] for pair in pairs]:
            for candidate, setting in group:
                running[candidate.name] = Running(candidate, setting)
            for candidate, _ in group:
                name, label = candidate.name, candidate.label
                with _left_out(name, say):
                    first = running[name].ready()
                    results[name] = {"name": name, "label": label, **first, "turns": []}
        names = list(results)
        for turn in range(repeat if names else 0):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                if name in results:
                    with _left_out(name, say, results):
                        results[name]["turns"].append(running[name].turn(seconds))
        return list(results.values())
    finally:
        for each in running.values():
            each.stop()


@contextlib.contextmanager
def _left_out(name: str, say: Callable[[str], object], results: dict | None = None) -> Iterator:
    """Skips a candidate that fails in this context, with a message and without its results."""
    try:
        yield
    except Missing as missing:
        say(f"skipped {name}: {missing}")
    except Failed as failed:
        say(f"failed {name}: {failed}")
        (results or {}).pop(name, None)


def serve() -> None:
    """Runs in the candidate's process: reads the candidate and its turns from stdin."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keeps what libraries print out of the replies

    def reply(**content) -> None:
        replies.write(json.dumps(content) + "\n")
        replies.flush()

    try:
        order = json.loads(sys.stdin.readline())
        setting = Setting(**order["setting"])
        batches, about = _start(order["function"], setting, order["options"])
        _come_to_rest()
        reply(**about)
        for line in sys.stdin:
            taken = _run(batches, json.loads(line)["seconds"], WARM_UP * setting.batch_size)
            reply(**taken, idle=_come_to_rest())
    except ImportError as error:
        reply(missing=str(error))
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        reply(failed=f"{error!r} ({Path(where.filename).name}:{where.lineno})")
    _end()


def _start(function: str, setting: Setting, options: dict) -> tuple[Iterator, dict]:
    """Starts a candidate; returns its batches, and the shape and dtype of the first one."""
    module, name = function.split(":")
    batches = getattr(importlib.import_module(module), name)(setting, **options)
    first = next(batches)
    shape = [int(size) for size in getattr(first, "shape", ())]
    kind = str(getattr(first, "dtype", "")).removeprefix("torch.")
    kind = kind.removeprefix("<dtype: '").removesuffix("'>")
    return batches, {"shape": shape, "dtype": kind}


def _run(batches: Iterator, seconds: float, prepared: int) -> dict[str, float]:
    """Measures batches for some seconds, after a warm-up that uses up prefetched batches."""
    begin, images = time.perf_counter(), 0
    while images < prepared or time.perf_counter() - begin < WARM_UP_SECONDS:
        images += len(next(batches))
    images, waited = 0, 0.0
    cpu, start = cpu_seconds(), time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        batch = next(batches)
        images += len(batch)
        waited += getattr(batch, "waited", 0.0)
    used = cpu_seconds() - cpu
    taken = {"images": images, "seconds": passed, "cpu": used, "waited": waited}
    return taken | {"peak_bytes": peak_bytes()}


def _come_to_rest() -> bool:
    """Waits until the process and its descendants are idle; returns whether they are."""
    step, deadline = 0.2, time.perf_counter() + IDLE_SECONDS
    before = cpu_seconds()
    while time.perf_counter() < deadline:
        time.sleep(step)
        now = cpu_seconds()
        if now - before < IDLE * step + 1.5 / os.sysconf("SC_CLK_TCK"):
            return True
        before = now
    return False


def _end() -> None:
    """Kills this process and its descendants, because some libraries never shut down."""
    for process in family():
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{process}/cmdline").read_bytes()
            # Python's resource tracker removes shared memory first and then ends by itself.
            if process != os.getpid() and b"resource_tracker" not in command:
                os.kill(process, signal.SIGKILL)
    os._exit(0)


def cpu_seconds() -> float:
    """Returns the CPU time of this process and its live descendants (without /proc: its own)."""
    used = family()
    return sum(used.values()) if used else time.process_time()


def peak_bytes() -> int:
    """Returns the peak resident memory of this process; 0 without /proc."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return 0


def family(process: int | None = None) -> dict[int, float]:
    """Returns CPU seconds by id, for a process and its descendants; empty without /proc.

    Args:
        process: Id of the process (default: this one).
    """
    parents, used, tick = {}, {}, os.sysconf("SC_CLK_TCK")
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(fields[1])
            used[int(stat.parent.name)] = sum(map(int, fields[11:13])) / tick
    found, born = set(), {process or os.getpid()} & set(used)
    while born:
        found |= born
        born = {process for process, parent in parents.items() if parent in found} - found
    return {process: used[process] for process in found}


if __name__ == "__main__":
    serve()
