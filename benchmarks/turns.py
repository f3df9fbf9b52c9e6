"""Candidates in processes of their own, which take turns. Imports no framework.

    results = turns.measure([(candidate, setting), ...], seconds=5, repeat=5, say=print)

Run as a script, this file is such a process: it makes one candidate and is idle, its queues full,
until it is asked for a turn.
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

WARM_UP = 12  # batches, more than any candidate prepares ahead
WARM_UP_SECONDS = 0.5  # at least
IDLE = 0.05  # of a core
IDLE_SECONDS = 15  # to become so
START_SECONDS = 900  # peers write their own files first
STOP_SECONDS = 10
PATIENCE = 120  # seconds that a turn may take longer than asked


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way to read data.

    Attributes:
        name: A short one.
        label: What a table says.
        function: "module:function", `(setting, **options)` to an endless generator of batches,
            anything that has a length.
        options: For the function.
    """

    name: str
    label: str
    function: str
    options: dict = dataclasses.field(default_factory=dict)


class Missing(Exception):
    """A package that the candidate needs is not installed."""


class Failed(Exception):
    """The candidate's process ended or said that it could not go on."""


class Running:
    """A candidate's process, seen from outside."""

    def __init__(self, candidate: Candidate, setting: Setting) -> None:
        """Starts the process, which becomes ready by itself.

        Args:
            candidate: What to run.
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
            Missing: If it lacks a package.
            Failed: If it does not start.
        """
        return self._answer(START_SECONDS)

    def turn(self, seconds: float) -> dict[str, float]:
        """Lets the candidate run: {"images", "seconds", "cpu", "waited", "idle"}.

        `cpu` is in seconds, of the process and all that it started; `waited` is what the batches
        say of themselves; `idle` tells whether the process came to rest afterwards.

        Raises:
            Failed: If it does not answer.
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
        with contextlib.suppress(BrokenPipeError):  # of a process that ended, which gives no answer
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
    """Starts candidates, then gives each its turns, one at a time.

    Those that lack a package are left out with a line, and so are those that fail.

    Args:
        pairs: Candidates of different names, and their first argument.
        seconds: Of a turn.
        repeat: Turns of every candidate.
        say: Is called with every line.
        together: Whether all start at the same time, not one after another.

    Returns:
        Of every candidate: `name`, `label`, `shape` and `dtype` of its first batch, and `turns`.
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
        for turn in range(repeat):
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
    """Says why a candidate is left out, from now on."""
    try:
        yield
    except Missing as missing:
        say(f"skipped {name}: {missing}")
    except Failed as failed:
        say(f"failed {name}: {failed}")
        (results or {}).pop(name, None)


def serve() -> None:
    """The other side: makes the candidate that stdin names, runs it when stdin says so."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints

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
    """Makes a candidate and its first batch."""
    module, name = function.split(":")
    batches = getattr(importlib.import_module(module), name)(setting, **options)
    first = next(batches)
    shape = [int(size) for size in getattr(first, "shape", ())]
    kind = str(getattr(first, "dtype", "")).removeprefix("torch.")
    kind = kind.removeprefix("<dtype: '").removesuffix("'>")
    return batches, {"shape": shape, "dtype": kind}


def _run(batches: Iterator, seconds: float, prepared: int) -> dict[str, float]:
    """Takes batches for a while, after those that were there already."""
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
    """Waits until the process and all that it started are idle; tells whether they are."""
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
    """Ends this process and its descendants at once: some libraries' would wait for ever."""
    for process in _processes():
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{process}/cmdline").read_bytes()
            # Python's resource tracker ends by itself, after it has removed shared memory.
            if process != os.getpid() and b"resource_tracker" not in command:
                os.kill(process, signal.SIGKILL)
    os._exit(0)


def cpu_seconds() -> float:
    """CPU time of this process and its living descendants; its own where there is no /proc."""
    family = _processes()
    return sum(family.values()) if family else time.process_time()


def peak_bytes() -> int:
    """The most memory that this process has had; 0 where there is no /proc."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return 0


def _processes() -> dict[int, float]:
    """CPU seconds of this process and of each of its descendants; nothing without /proc."""
    parents, used, tick = {}, {}, os.sysconf("SC_CLK_TCK")
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(fields[1])
            used[int(stat.parent.name)] = sum(map(int, fields[11:13])) / tick
    family, born = set(), {os.getpid()} & set(used)
    while born:
        family |= born
        born = {process for process, parent in parents.items() if parent in family} - family
    return {process: used[process] for process in family}


if __name__ == "__main__":
    serve()
