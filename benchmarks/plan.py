"""Says how many core hours trainings take, and does those that fit into some hours.

Images per second are of kept trainings of the same network on the same kind of machine; without
one, the training step is measured for some seconds, and the figure kept in results/paces.jsonl.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import execution, kept, tables, trainings, turns
from benchmarks.execution import Places
from benchmarks.setting import Setting
from benchmarks.trainings import Training
from report import history
from runtime.cores import cores

PACES = "paces.jsonl"
SECONDS, TURNS = 2.0, 3  # of a measurement
OVERHEAD = 30  # seconds of a training for its start, and for tests
# Flags that leave the time of a training step as it is.
PACELESS = {
    *("epochs", "max_steps", "early_stopping", "warmup_epochs", "schedule", "milestones"),
    *("decay", "decay_epochs", "power", "patience", "learning_rate", "base_batch", "momentum"),
    *("weight_decay", "l1", "label_smoothing", "norm_bias_rate", "init", "preprocessing"),
    *("dropout", "augment", "elastic", "rotate", "shear", "translate", "mixup", "cutmix"),
}


class Job(NamedTuple):
    """A training of a list.

    Attributes:
        group: Comparison or recipe that it belongs to.
        title: Name within the group.
        training: The training.
        views: Numbers of views per test image.
    """

    group: str
    title: str
    training: Training
    views: tuple[int, ...] = (1,)


class Plan:
    """Trainings that are wanted, what was kept of them, and how long the others take here."""

    def __init__(self, jobs: Sequence[Job], places: Places) -> None:
        """Reads what was kept.

        Args:
            jobs: Trainings in the order in which they are to be done.
            places: Folders and files.
        """
        self.jobs, self.places = jobs, places
        self._paces = places.results.with_name(PACES)
        self._machine = machine()
        self.reload()

    def reload(self) -> None:
        """Reads the kept results again."""
        self.results = trainings.read(self.places.results)
        self._measured = {
            tuple(pace["flags"]): pace["images_per_second"]
            for pace in kept.read(self._paces)
            if pace["machine"] == self._machine
        }

    def pace(self, training: Training) -> float | None:
        """Returns images per second of a training on this machine; None if unknown."""
        words = _pace_flags(training)
        same = [
            result["images_per_second"]
            for other, result in self.results.items()
            if _pace_flags(other) == words and result["machine"] == self._machine
        ]
        return statistics.median(same) if same else self._measured.get(words)

    def measure(self, jobs: Iterable[Job], say: Callable[[str], object] = print) -> None:
        """Measures the training steps of trainings that are not done and whose pace is unknown."""
        unknown = {}
        for job in jobs:
            if job.training not in self.results and self.pace(job.training) is None:
                unknown.setdefault(_pace_flags(job.training), job.training)
        for words, training in unknown.items():
            say(f"measuring {' '.join(words)}")
            if (rate := measured_rate(training, say)) is not None:
                pace = {"flags": list(words), "machine": self._machine}
                kept.append(self._paces, pace | {"images_per_second": round(rate, 1)})
                self._measured[words] = rate

    def seconds(self, training: Training) -> float | None:
        """Returns how long a training still takes on this machine; None if its pace is unknown."""
        if training in self.results:
            return 0.0
        pace = self.pace(training)
        if pace is None:
            return None
        return training.images * (1 - self._share_done(training)) / pace + OVERHEAD

    def _share_done(self, training: Training) -> float:
        """Returns the part of the steps that a stopped training has done."""
        for root in (self.places.runs, self.places.running):
            if (root / training.name / "run.json").exists():
                try:
                    run = history.read(root / training.name)
                except FileNotFoundError:  # not an epoch yet
                    return 0.0
                images = run.rows[-1]["step"] * run.settings["flags"]["batch_size"]
                return min(1.0, images / training.images)
        return 0.0

    def table(self) -> list[list[str]]:
        """Returns a row per group: trainings, seeds, core hours left; and one of the sums."""
        rows = [["", "trainings", "runs done", "wanted", "core hours left"]]
        groups = {job.group: [] for job in self.jobs}
        for job in self.jobs:
            groups[job.group].append(job)
        for name, jobs in groups.items():
            rows.append([name, *self._cells(jobs)])
        return [*rows, ["all", *self._cells(self.jobs)]]

    def _cells(self, jobs: Sequence[Job]) -> list[str]:
        """Returns trainings; runs done and wanted, one per seed; core hours of the rest."""
        unique = {job.training for job in jobs}
        trained = len({(training.data, training.flags) for training in unique})
        done = sum(training in self.results for training in unique)
        needs = [self.seconds(training) for training in unique]
        hours = cores() / 3600 * sum(need or 0.0 for need in needs)
        unknown = needs.count(None)
        text = f"{hours:,.1f}" if unknown < len(unique) - done or not unknown else ""
        remark = f"{unknown} not measured" * bool(unknown)
        counts = [str(trained), str(done), str(len(unique))]
        return [*counts, " + ".join(filter(None, [text, remark]))]

    def work(
        self,
        hours: float,
        *,
        begin: bool = False,
        after: Callable[[], object] = lambda: None,
        say: Callable[[str], object] = print,
    ) -> None:
        """Does the trainings that fit, in their order.

        Args:
            hours: Wall-clock time for all of them.
            begin: Whether a training that does not fit is begun all the same, if nothing else fits:
                it is stopped when the time is over, and goes on the next time.
            after: Function called after every training, such as one that writes the page.
            say: Function that prints a message.

        Raises:
            ValueError: If data is missing or not that of the kept trainings.
            RuntimeError: If a training fails.
        """
        deadline = time.monotonic() + 3600 * hours
        skipped = [job for job in self.jobs if not self._fits(job, deadline, after, say)]
        for job in skipped:
            left, need = deadline - time.monotonic(), self.seconds(job.training)
            if begin and need is not None and left > OVERHEAD:
                say(f"{_described(job)}: until the time is over")
                if execution.perform(job.training, self.places, job.views, left):
                    self._note(after)
                continue
            lasts = "" if need is None else f" ({need / 3600:,.2f} hours)"
            say(f"skipped: {_described(job)}{lasts}")

    def _fits(self, job: Job, deadline: float, after: Callable, say: Callable) -> bool:
        """Does a training unless it was done before; returns False if it does not fit."""
        if job.training in self.results:
            return True
        if time.monotonic() < deadline:
            self.measure([job], say)
        need = self.seconds(job.training)
        if need is None or time.monotonic() + need > deadline:
            return False
        say(f"{_described(job)}: {need / 60:,.0f} minutes")
        execution.perform(job.training, self.places, job.views)
        self._note(after)
        return True

    def _note(self, after: Callable) -> None:
        self.reload()
        after()


def machine() -> dict:
    """Describes this kind of machine: processor, cores, GPUs."""
    about = tables.machine()
    return {name: about[name] for name in ("cpu", "cores", "gpus")}


def measured_rate(training: Training, say: Callable[[str], object]) -> float | None:
    """Measures the training step; returns images per second, or None if it cannot be run."""
    candidate = turns.Candidate(
        "step", "step", "benchmarks.stacks:of_flags", {"words": list(training.flags)}
    )
    pairs = [(candidate, Setting("small", "", "", 0, 1, cores()))]
    found = turns.measure(pairs, seconds=SECONDS, repeat=TURNS, say=say)
    return tables.summary(found[0])["median"] if found else None


def _pace_flags(training: Training) -> tuple[str, ...]:
    """Returns the flags on which the time of a training step depends."""
    return tuple(w for w in training.flags if w[2:].partition("=")[0] not in PACELESS)


def _described(job: Job) -> str:
    return f"{job.group}: {job.title}, seed {job.training.seed}"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that all lists of trainings have."""
    parser.add_argument("--plan", action="store_true", help="core hours left; trains nothing")
    parser.add_argument("--hours", type=float, default=0, help="train what fits (default: nothing)")
    parser.add_argument(
        "--begin", action="store_true", help="in the rest of the hours, begin what does not fit"
    )
    parser.add_argument("--only", help="names separated by commas (default: all)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder for run folders")
    parser.add_argument(
        "--output", type=Path, default=trainings.RESULTS, help="folder of results and pages"
    )


def parse(
    parser: argparse.ArgumentParser, argv: list[str] | None
) -> tuple[argparse.Namespace, list[str]]:
    """Parses a command line; returns the flags of the parser and those for train.py."""
    options, extra = parser.parse_known_args(argv)
    if extra and options.output == trainings.RESULTS:
        parser.error(f"expected another --output with flags of train.py, received {extra}")
    return options, extra


def places(options: argparse.Namespace, data: dict[str, str | None]) -> Places:
    """Returns the folders and files of a command line.

    Args:
        options: Parsed flags.
        data: Folders of shards by name of the data; None where not given.
    """
    folders = {name: Path(path).resolve() for name, path in data.items() if path}
    running = execution.RUNNING
    if options.output != trainings.RESULTS:  # a trial
        running = options.output / "running"
    results = options.output / trainings.FILE
    return Places(folders, options.runs.resolve(), results, running)


def chosen(parser: argparse.ArgumentParser, only: str | None, names: Sequence[str]) -> list[str]:
    """Returns the names that `--only` selects; ends with an error line if one is unknown."""
    wanted = only.split(",") if only is not None else list(names)
    if unknown := sorted(set(wanted) - set(names)):
        parser.error(f"unknown names {unknown}, expected some of {','.join(names)}")
    return wanted


def carry_out(plan: Plan, options: argparse.Namespace, write: Callable[[], object]) -> None:
    """Does what the flags of `add_flags` say, and writes the pages.

    Args:
        plan: The trainings.
        options: Parsed flags.
        write: Function that writes the pages.
    """
    if options.plan:
        plan.measure(plan.jobs)
        print(tables.text(plan.table()))
        return
    if options.hours:
        plan.work(options.hours, begin=options.begin, after=write)
    write()
