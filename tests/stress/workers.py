"""Trainings by two workers, one of which is killed."""

import contextlib
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from runtime.console import START_AGAIN
from tests.stress.forked import DONE, ROOT

NOTICED = 15.0  # seconds in which the other worker must have ended
LONGEST = 300  # seconds of a training
EVERY = ("--data=digits", "--checkpoint_steps=2", "--keep=1", "--cluster_timeout=60")
TRAININGS = {  # flags and the number of steps
    "lenet5": (("--epochs=4", "--dropout=0.5"), 44),
    "cifar_resnet20": (("--model=cifar_resnet20", "--batch_size=32", "--max_steps=20"), 20),
}
NAMESPACE, ADDRESS = "convnets{}", "10.213.77.{}"


class Machine(NamedTuple):
    """Where a worker runs.

    Attributes:
        address: HOST:PORT that the other one knows.
        enter: What a command begins with to run there.
    """

    address: str
    enter: tuple[str, ...] = ()


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nothing listens on."""
    with contextlib.ExitStack() as taken:
        servers = [taken.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


def loopback(count: int = 2) -> list[Machine]:
    """Workers that share this machine's network."""
    return [Machine(f"127.0.0.1:{port}") for port in free_ports(count)]


@contextlib.contextmanager
def machines() -> Iterator[list[Machine]]:
    """Two networks of their own with a cable between them, where root may make them."""
    names = [NAMESPACE.format(number) for number in (1, 2)]
    commands = [f"ip netns add {name}" for name in names]
    commands.append(f"ip link add eth0 netns {names[0]} type veth peer eth0 netns {names[1]}")
    for number, name in enumerate(names, 1):
        commands.append(f"ip -n {name} address add {ADDRESS.format(number)}/24 dev eth0")
        commands += [f"ip -n {name} link set {device} up" for device in ("lo", "eth0")]
    try:
        for command in commands:
            subprocess.run(command.split(), check=True, capture_output=True)
        yield [
            Machine(f"{ADDRESS.format(number)}:2222", ("ip", "netns", "exec", name))
            for number, name in enumerate(names, 1)
        ]
    except (OSError, subprocess.CalledProcessError):
        print("no networks of their own: the workers share this machine's")
        yield loopback()
    finally:
        for name in names:
            with contextlib.suppress(OSError):
                subprocess.run(["ip", "netns", "del", name], capture_output=True)


def environment(workers: Sequence[str], index: int) -> dict[str, str]:
    """What a worker's environment says of the workers: addresses, and which one it is."""
    task = {"cluster": {"worker": list(workers)}, "task": {"type": "worker", "index": index}}
    return {"TF_CONFIG": json.dumps(task)}


class Pair:
    """Two workers of one training; their output is in files beside the run folder."""

    def __init__(
        self,
        places: Sequence[Machine],
        run_dir: Path,
        words: Sequence[str],
        start: Callable[..., subprocess.Popen] | None = None,
    ) -> None:
        """Starts both; a run that has begun is taken up.

        Args:
            places: Where the workers run.
            run_dir: The run folder.
            words: Flags of train.py.
            start: Starts a process with a command's words, its log and its environment (default:
                each in a new process).
        """
        workers = [place.address for place in places]
        words = [f"--run_dir={run_dir}", *words, *["--resume"] * (run_dir / "run.json").exists()]
        self.logs = [Path(f"{run_dir}.{index}.log") for index in range(len(places))]
        start = start or _start
        self.processes = [
            start(place, ["train.py", *words], log, environment(workers, index))
            for index, (place, log) in enumerate(zip(places, self.logs, strict=True))
        ]

    def wait(self) -> list[int]:
        """The exit codes; who does not end is killed."""
        codes = []
        for process in self.processes:
            try:
                codes.append(process.wait(LONGEST))
            except subprocess.TimeoutExpired:
                process.kill()
                codes.append(process.wait())
        return codes

    def wait_for_step(self, run_dir: Path, step: int) -> None:
        """Returns when a checkpoint of this step or a later one is there, or all have ended."""
        while not all(process.poll() is not None for process in self.processes):
            names = [path.stem for path in run_dir.glob("checkpoints/step-*.safetensors")]
            if any(int(name.removeprefix("step-")) >= step for name in names):
                return
            time.sleep(0.02)

    def kill(self, index: int) -> float:
        """Kills one with SIGKILL; returns after how many seconds the others have ended."""
        began = time.monotonic()
        self.processes[index].kill()
        self.wait()
        return time.monotonic() - began

    def output(self, index: int) -> str:
        """What a worker has printed."""
        return self.logs[index].read_text()

    def ends(self) -> list[tuple[str, str]]:
        """Step and digest that each worker ends with, where it does."""
        return [found for log in self.logs for found in DONE.findall(log.read_text())[-1:]]


def _start(place: Machine, words: list[str], log: Path, variables: dict) -> subprocess.Popen:
    with open(log, "w") as output:
        return subprocess.Popen(
            [*place.enter, sys.executable, *words],
            cwd=ROOT,
            env=os.environ | variables,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def killed_workers(count: int, folder: Path, seed: int) -> Counter:
    """Kills chief and worker in turn at random steps, resumes, compares with a run left alone.

    Args:
        count: Kills.
        folder: For the runs.
        seed: Of the steps.

    Returns:
        "kills", and what went wrong: "different", "cannot resume", "not one line", "exit code",
        "unnoticed" (for too long). Prints how long it took to notice.
    """
    choose, counts, seconds = random.Random(seed), Counter(), ([], [])
    with machines() as places:
        expected = {}
        for name, (words, _) in TRAININGS.items():
            whole = Pair(places, folder / f"{name}-whole", [*EVERY, *words])
            counts["cannot resume"] += whole.wait() != [0, 0]
            expected[name] = whole.ends()
        for number in range(count):
            name = list(TRAININGS)[number // 2 % len(TRAININGS)]
            (words, steps), index = TRAININGS[name], number % 2
            run_dir = folder / f"{name}-{number}"
            pair = Pair(places, run_dir, [*EVERY, *words])
            pair.wait_for_step(run_dir, choose.randrange(2, steps - 4))
            time.sleep(choose.uniform(0, 0.2))
            seconds[index].append(pair.kill(index))
            counts["kills"] += 1
            counts["exit code"] += pair.processes[1 - index].returncode != START_AGAIN
            lines = pair.output(1 - index).splitlines()
            counts["not one line"] += sum(line.startswith("error: ") for line in lines) != 1
            counts["unnoticed"] += seconds[index][-1] > NOTICED
            again = Pair(places, run_dir, [*EVERY, *words])
            counts["cannot resume"] += again.wait() != [0, 0]
            counts["different"] += again.ends() != expected[name]
    for who, found in zip(("the chief", "a worker"), seconds, strict=True):
        if found:
            middle = statistics.median(found)
            print(f"{who} is missed after {middle:.1f} s (median), {max(found):.1f} s at most")
    return counts
