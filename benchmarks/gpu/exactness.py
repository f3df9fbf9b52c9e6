"""The check that a training has the same bits when repeated, and when killed and resumed."""

import itertools
import shutil
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor

from benchmarks.gpu.jobs import Jobs, require, yes
from benchmarks.gpu.sections import UNEXPECTED, Section
from benchmarks.gpu.weights import digest
from runtime.cores import cores

# Flags of train.py that choose how a step is computed, and their values.
FLAGS = {
    "precision": ("float32", "mixed_bfloat16"),
    "xla": ("on", "off"),
}
NETWORKS = ["alexnet", "cifar_resnet20"]
ALL = [*NETWORKS, "resnet50", "densenet121", "mobilenet_100", "inception_v3"]
STEPS, BATCH_SIZE, CHECKPOINT_STEPS = 48, 32, 16
MOST_JOBS = 8
DIGEST = 64  # characters of a sha256


def check(options: Namespace, section: Section) -> None:
    """Trains every network in every way, several trainings side by side."""
    networks, ways, steps = _extent(options)
    jobs = Jobs(options, min(MOST_JOBS, max(1, cores() // 2)))
    first = ("network", "deterministic", *FLAGS)
    section.header(*first, "same twice", "killed = not stopped", "seconds")
    section.note(
        f"{steps} steps with batches of {BATCH_SIZE} of the built-in digits, "
        f"{jobs.side_by_side} trainings side by side. Compared are the sha256 of all variables, "
        "also the optimizer's. Seconds are those of the first training, start included."
    )
    with ThreadPoolExecutor(max(2, jobs.side_by_side)) as pool:
        trials = [
            Trial(network, *way, steps, jobs, pool)
            for way, network in itertools.product(ways, networks)
        ]
        for trial in trials:
            section.row(*trial.row())


def _extent(options: Namespace) -> tuple[list[str], list[tuple], int]:
    """Returns networks, ways (deterministic, values of `FLAGS`) and steps."""
    if options.dry_run:
        return options.networks or ["lenet5"], [("on", ("float32", "off"))], 16
    networks = options.networks or (ALL if options.all else NETWORKS)
    values = itertools.product(*FLAGS.values())
    return networks, list(itertools.product(("on", "off"), values)), STEPS


class Trial:
    """A network trained in one way: twice, and with deterministic kernels also killed."""

    def __init__(
        self,
        network: str,
        wanted: str,
        values: tuple[str, ...],
        steps: int,
        jobs: Jobs,
        pool: ThreadPoolExecutor,
    ) -> None:
        """Starts the trainings.

        Args:
            network: Name of the network.
            wanted: Whether kernels are deterministic, "on" or "off".
            values: Values of `FLAGS`.
            steps: Length of a training.
            jobs: Starts processes.
            pool: Threads that wait for them.
        """
        self._cells = [network, wanted, *values]
        every = min(CHECKPOINT_STEPS, steps // 4)
        words = [
            f"--model={network}",
            "--data=digits",
            f"--batch_size={BATCH_SIZE}",
            f"--max_steps={steps}",
            f"--checkpoint_steps={every}",
            "--keep=1",
            *(f"--{name}={value}" for name, value in zip(FLAGS, values, strict=True)),
            f"--deterministic={wanted}",
        ]
        ways = {"first": jobs.train, "second": jobs.train}
        if wanted == "on":
            ways["killed"] = jobs.killed
        self._folders = {which: jobs.folder("-".join([*self._cells, which])) for which in ways}
        self._done = {
            which: pool.submit(way, self._folders[which], *words) for which, way in ways.items()
        }

    def row(self) -> list[str]:
        """Waits for the trainings; returns the row of the table."""
        expected = self._digest("first")
        compared = []
        for found in map(self._digest, list(self._folders)[1:]):
            answer = yes(found == expected)
            if self._cells[1] == "off":  # nothing is promised
                answer = answer.strip("*")
            compared.append(answer if len(found) == len(expected) == DIGEST else found)
        compared += [""] * (2 - len(compared))
        if len(expected) == DIGEST:
            seconds = f"{self._done['first'].result().seconds:.1f}"
        else:
            seconds = expected
        for folder in self._folders.values():
            shutil.rmtree(folder, ignore_errors=True)
        return [*self._cells, *compared, seconds]

    def _digest(self, which: str) -> str:
        """Returns the digest of a training's variables, or why there is none."""
        try:
            require(self._done[which].result(), "it")
            return digest(self._folders[which])
        except RuntimeError as error:
            return f"{UNEXPECTED}: {error}"
