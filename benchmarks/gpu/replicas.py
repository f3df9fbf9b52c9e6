"""The check of several replicas on one device, which is divided into two logical ones."""

from argparse import Namespace
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from benchmarks.gpu.jobs import DIVIDED, Done, Jobs, require, yes
from benchmarks.gpu.sections import Section
from benchmarks.gpu.weights import difference, digest
from runtime.cores import cores

# Options by network. Smooth and without dropout: a replica draws its own masks, and where a ReLU or
# a maximum is, a rounding flips a unit and moves all gradients by 1 %, on one device too.
NETWORKS = {
    "lenet5": (),
    "cifarnet": ("--norm=batch", "--activation=tanh", "--pooling=average", "--dropout=0"),
}
GOAL = 1e-5  # largest relative difference of a weight
STEPS, BATCH_SIZE, CHECKPOINT_STEPS = 20, 32, 4
MEBIBYTES = 1024  # of a logical GPU
METHODS = ("--mixup=0.2", "--cutmix=1", "--ema=0.9", "--clip_norm=1", "--label_smoothing=0.1")


def check(options: Namespace, section: Section) -> None:
    """Trains every network with one replica and with two, and stops the two."""
    networks = options.networks or (["lenet5"] if options.dry_run else list(NETWORKS))
    jobs = Jobs(options, max(1, cores() // 4))
    section.header("network", "", "result", "as expected")
    with ThreadPoolExecutor(max(2, jobs.side_by_side)) as pool:
        trials = {network: Trial(network, jobs, pool) for network in networks}
        for trial in trials.values():
            trial.report(section)
    section.note(
        f"{STEPS} steps with batches of {BATCH_SIZE} in float32 without TensorFloat-32, with "
        f"{' '.join(METHODS)}. The difference is relative to the largest value of the weight's "
        f"tensor; expected are at most {GOAL:g}."
    )


class Trial:
    """The trainings of one network."""

    def __init__(self, network: str, jobs: Jobs, pool: ThreadPoolExecutor) -> None:
        """Starts the trainings."""
        self._network = network
        self._words = [
            f"--model={network}",
            "--data=digits",
            "--precision=float32",
            f"--max_steps={STEPS}",
            f"--batch_size={BATCH_SIZE}",
            f"--checkpoint_steps={CHECKPOINT_STEPS}",
            *METHODS,
            *NETWORKS.get(network, ()),
            "--deterministic=on",
        ]
        self._jobs, self._pool = jobs, pool
        self._one = self._start(jobs.train, 1, "one", "--xla=off")
        self._two = self._start(jobs.train, 2, "two", "--xla=off")
        self._killed = self._start(jobs.killed, 2, "killed", "--xla=off")
        self._compiled = self._start(jobs.train, 2, "xla", "--xla=on")

    def report(self, section: Section) -> None:
        """Waits for the trainings and adds their rows."""
        one, two, killed = map(_finished, (self._one, self._two, self._killed))
        largest, name = difference(one, two)
        section.row(
            self._network,
            "one replica and two: largest relative difference",
            f"{largest:.1e} ({name})",
            yes(largest <= GOAL),
        )
        same = digest(two) == digest(killed)
        section.row(
            self._network,
            "two replicas: killed = not stopped",
            "the same bits" if same else "other bits",
            yes(same),
        )
        _, compiled = self._compiled
        done = compiled.result()
        section.row(
            self._network,
            "two replicas, --xla=on",
            f"{done.code}: {done.error if done.code else 'trains'}",
            "",
        )

    def _start(self, way, replicas: int, name: str, *more: str) -> tuple[Path, Future[Done]]:
        """Starts a training in one of the ways of `Jobs`."""
        folder = self._jobs.folder(f"{self._network}-{name}")
        by = (*DIVIDED, replicas, MEBIBYTES, "--")
        return folder, self._pool.submit(way, folder, *self._words, *more, by=by)


def _finished(training: tuple[Path, Future[Done]]) -> Path:
    folder, future = training
    require(future.result(), f"the training {folder.name}")
    return folder
