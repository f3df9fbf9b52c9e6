"""Keeps the result of each training as a line of results/trainings.jsonl.

    python benchmarks/trainings.py cifar10 runs/RUN ...    # keeps finished runs of train.py itself

A training is its flags, its seed and its data. One that was kept is never trained again, on any
machine. benchmarks/comparisons.py and benchmarks/recipes.py list the trainings; plan.py says which
of them fit into some hours, and execution.py does them.
"""

import argparse
import dataclasses
import hashlib
import json
import re
import shlex
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import kept, scripts, tables
from report import history
from runtime import console

ROOT = scripts.ROOT
RESULTS = ROOT / "benchmarks" / "results"
FILE = "trainings.jsonl"
NO_RECIPE = "--flagfile=/dev/null"  # else train.py takes the settings of recipes/MODEL.flags
FREE = {"data", "seed", "seeds", "run_dir", "resume", "threads", "keep", "devices"}
DONE = re.compile(r"^done: step (\d+)  weights sha256 ([0-9a-f]{64})$", re.M)


class Data(NamedTuple):
    """Data that trainings are listed for.

    Attributes:
        title: Name on pages.
        images: Number of training images.
    """

    title: str
    images: int


DATA = {"cifar10": Data("CIFAR-10", 50_000), "mnist": Data("MNIST", 60_000)}


@dataclasses.dataclass(frozen=True)
class Training:
    """What decides a training's result, apart from the machine.

    Attributes:
        data: Name of the data, a key of `DATA`.
        flags: Flags with those of flag files, sorted, without data and seed.
        seed: Seed.
        command: Words after `train.py --data=... --seed=...` that amount to these flags.
    """

    data: str
    flags: tuple[str, ...]
    seed: int
    command: tuple[str, ...] = dataclasses.field(compare=False)

    @property
    def name(self) -> str:
        """Name of the run folder, which no other training has."""
        digest = hashlib.sha256(repr((self.data, self.flags)).encode()).hexdigest()
        return f"{self.data}-{self.value('model')}-{digest[:8]}-{self.seed}"

    @property
    def images(self) -> int:
        """Training images of all epochs."""
        images = int(self.value("epochs")) * DATA[self.data].images
        steps = int(self.value("max_steps") or images)
        return min(images, steps * int(self.value("batch_size") or 128))

    def value(self, flag: str) -> str:
        """Returns the value of a flag; empty if it is not given."""
        return next((f.partition("=")[2] for f in self.flags if f.startswith(f"--{flag}=")), "")

    def shown(self) -> str:
        """Returns the command that repeats the training."""
        data = f"--data={self.data.upper()}"
        return shlex.join(["python", "train.py", *self.command, data, f"--seed={self.seed}"])


def of_words(data: str, words: Iterable[str], seed: int) -> Training:
    """Returns the training of flags as they are typed for train.py, in the form --NAME=VALUE."""
    command = tuple(words)
    if not any(word.startswith("--flagfile=") for word in command):
        command = (NO_RECIPE, *command)
    given = {word.partition("=")[0]: word for word in _expanded(command)}
    flags = sorted(word for name, word in given.items() if _name(name) not in FREE)
    return Training(data, tuple(flags), seed, command)


def _expanded(words: Iterable[str]) -> Iterable[str]:
    """Yields flags, those of flag files in their place."""
    for word in words:
        if word.startswith("--flagfile="):
            lines = (ROOT / word.partition("=")[2]).read_text().splitlines()
            yield from (line.strip() for line in lines if line.strip().startswith("--"))
        else:
            yield word


def read(path: Path, say: Callable[[str], object] = print) -> dict[Training, dict]:
    """Reads the kept results; of two lines about one training the later counts.

    Raises:
        ValueError: If the trainings of one data set were of different images.
    """
    found = {}
    for result in kept.read(path, say):
        try:
            words = tuple(result["flags"])
            training = Training(result["data"], words, result["seed"], words)
            check_data(path, found, result["data"], result["fingerprint"])
        except KeyError as error:
            raise ValueError(f"{path}: expected {error} in every line, received {result}") from None
        found[training] = result
    return found


def check_data(path: Path, known: dict[Training, dict], data: str, fingerprint: str) -> None:
    """Raises ValueError if trainings on this data are kept that were on other images."""
    for training, result in known.items():
        if training.data == data and result["fingerprint"] != fingerprint:
            raise ValueError(
                f"{path.name} has trainings on {data} with the fingerprint "
                f"{result['fingerprint'][:12]}, received {fingerprint[:12]}: results of other "
                "images are not mixed"
            )


def keep(
    training: Training, folder: Path, results: Path, views: Sequence[int], data: Path | None = None
) -> None:
    """Tests a finished run on the test split, and appends its result to the kept ones.

    Raises:
        ValueError: If the training has not ended, or its data is not that of the kept trainings.
        RuntimeError: If test.py fails.
    """
    result, known = summary(training, folder), read(results)
    check_data(results, known, training.data, result["fingerprint"])
    if training in known and known[training]["digest"] == result["digest"]:
        result["tests"] = known[training]["tests"]
    where = [f"--data={data}"] if data else []
    for count in views:
        scripts.run("test.py", str(folder), *where, "--split=test", f"--crops={count}")
        tested = json.loads((folder / "test.json").read_text())
        result["tests"][str(count)] = {
            "top1": round(tested["top1_accuracy"], 4),
            "n": tested["examples"],
        }
    kept.append(results, result)


def summary(training: Training, folder: Path) -> dict:
    """Returns the result of a finished run, before any test.

    Raises:
        ValueError: If the run has not ended or is damaged.
        FileNotFoundError: If there is no run.
    """
    run = history.read(folder)
    log = folder / "train.log"
    ends = DONE.findall(log.read_text()) if log.exists() else []
    last, settings = run.rows[-1], run.settings
    if not ends or int(ends[-1][0]) != last["step"]:
        raise ValueError(f"the training in {folder} has not ended, expected a line 'done: ...'")
    curves = {
        name: [round(value, 4) for value in run.column(f"{name}_top1_accuracy")]
        for name in ("train", "validation")
    }
    machine = tables.machine()
    return {
        "data": training.data,
        "flags": list(training.flags),
        "seed": training.seed,
        "fingerprint": settings["data"]["fingerprint"],
        **{name: values for name, values in curves.items() if values},
        "tests": {},
        "steps": int(last["step"]),
        "images": int(last["step"]) * settings["flags"]["batch_size"],
        **settings["cost"],
        "images_per_second": round(statistics.median(run.column("images_per_second")), 1),
        "minutes": round(run.seconds / 60, 2),
        "precision": settings["precision"],
        "machine": {name: machine[name] for name in ("cpu", "cores", "gpus")},
        "commit": settings["git_commit"],
        "digest": ends[-1][1],
    }


def main(argv: list[str] | None = None) -> None:
    """Parses the command line, tests runs and keeps their results."""
    parser = argparse.ArgumentParser(description="Tests finished runs and keeps their results.")
    parser.add_argument("data", choices=DATA, help="data of the runs")
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of train.py")
    parser.add_argument("--views", type=int, nargs="+", default=[1], help="of a test image (1)")
    parser.add_argument("--results", type=Path, default=RESULTS / FILE)
    given = parser.parse_args(argv)
    with console.user_errors():
        for folder in given.runs:
            settings = history.read(folder).settings
            training = of_words(given.data, _typed(settings), settings["flags"]["seed"])
            _check_flags(folder, training, settings["flags"])
            known = read(given.results).get(training, {"tests": {}})["tests"]
            if set(map(str, given.views)) <= known.keys():
                print(f"{folder}: kept already")
            else:
                keep(training, folder.resolve(), given.results, given.views)


def _typed(settings: dict) -> list[str]:
    """Returns the flags of a run as they were typed, with the recipe that train.py adds itself."""
    words = settings["command"][1:]
    recipe = f"recipes/{settings['flags']['model']}.flags"
    if not any("flagfile=" in word for word in words) and (ROOT / recipe).exists():
        words = [f"--flagfile={recipe}", *words]
    return [word for word in words if _name(word) not in FREE]


def _check_flags(folder: Path, training: Training, flags: dict) -> None:
    """Raises ValueError if a run had other flags than its flag file has now."""
    for name, _, value in (word[2:].partition("=") for word in training.flags):
        had = flags.get(name)
        had = ",".join(map(str, had)) if isinstance(had, list) else had
        is_number = isinstance(had, int | float) and not isinstance(had, bool)
        if float(value) != had if is_number else bool(value) and value != str(had):
            raise ValueError(f"{folder} had --{name}={had}, expected {value} as its flags say now")


def _name(word: str) -> str:
    return word.lstrip("-").partition("=")[0]


if __name__ == "__main__":
    main()
