"""Repeats comparisons of the papers on CIFAR-10 and writes tables and curves of the results.

    python benchmarks/comparisons.py --data=CIFAR10 --runs=FOLDER                  # all of them
    python benchmarks/comparisons.py --data=CIFAR10 --runs=FOLDER --only=relu_tanh,depth

Every training runs `train.py` with flags from the tables below, in a folder named after the flags:
the same command resumes interrupted trainings, and skips finished ones even if they belong to
another comparison. `test.py` measures accuracy on the test split. Then the training steps of a
comparison are timed in turns, which requires an otherwise idle machine. The curves and a table with
accuracies, epochs, times, and the first epoch with a training error of 25 % go to
benchmarks/results.
"""

import itertools
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime import console
from runtime.cores import cores

with console.quiet_import():
    from benchmarks import tables, turns
    from benchmarks.setting import Setting
    from report import compare, history

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
TURNS = 3
REACHED = 0.25  # training error, as in figure 1 of the AlexNet paper


class Comparison(NamedTuple):
    """A question and the trainings that answer it.

    Attributes:
        question: Question with its source.
        common: Flags of all trainings.
        trainings: Flags of each training, by short name.
    """

    question: str
    common: str
    trainings: dict[str, str]

    def words(self, training: str) -> list[str]:
        """Returns the flags of a training, sorted so that they identify it."""
        return sorted(shlex.split(f"{self.common} {self.trainings[training]}"))


def _grid(**choices: tuple[str, ...]) -> dict[str, str]:
    """Returns the flags of every combination of the flags' values, by the values."""
    combinations = itertools.product(*choices.values())
    return {"-".join(chosen): _flags(choices, chosen) for chosen in combinations}


def _flags(names: Iterable[str], values: Iterable[str]) -> str:
    return " ".join(f"--{name}={value}" for name, value in zip(names, values, strict=True))


# Half of the channels: 16, 32 and 64 as in the CIFAR ResNets, for a quarter of the work.
_STUDY = "--width=0.5 --epochs=3 --schedule=cosine"

_OF_2012 = "--preprocessing=mean --init=normal"

COMPARISONS = {
    "relu_tanh": Comparison(
        "Do ReLUs reach 25 % training error in a quarter of tanh's epochs? (Krizhevsky et al. "
        "2012, section 3.1, figure 1: six times faster, four layers) In the paper's time: pixels "
        "less their mean, small weights; and today: standardised pixels, weights to their scale",
        "--model=cifarnet --dropout=0 --augment=none --weight_decay=0 --schedule=constant "
        "--learning_rate=0.01",
        {
            "relu-2012": f"{_OF_2012} --activation=relu --epochs=10",
            "tanh-2012": f"{_OF_2012} --activation=tanh --epochs=10",
            "relu-today": "--activation=relu --epochs=10",
            "tanh-today": "--activation=tanh --epochs=14",
        },
    ),
    "pooling": Comparison(
        "Do LRN and overlapping pooling help? (Krizhevsky et al. 2012, sections 3.3 and 3.4: 2 % "
        "less error on CIFAR-10 by LRN, with four layers; 0.4 % less by overlapping, on ImageNet)",
        "--model=cifarnet --epochs=4 --learning_rate=0.02 --schedule=cosine",
        _grid(norm=("none", "lrn"), pooling=("max", "max_overlapping")),
    ),
    "optimizers": Comparison(
        "Momentum or Adam? (the 2017 study)",
        f"{_STUDY} --model=study2017_3x3 --norm=batch",
        {
            "momentum": "--optimizer=momentum --learning_rate=0.05",
            "nesterov": "--optimizer=nesterov --learning_rate=0.05",
            "adam": "--optimizer=adam --learning_rate=0.001",
        },
    ),
    "norms": Comparison(
        "Batch normalisation, LRN, or none? (the 2017 study)",
        f"{_STUDY} --model=study2017_3x3 --learning_rate=0.01 --activation=relu",
        _grid(norm=("batch", "lrn", "none")),
    ),
    "activations": Comparison(
        "Which activation, with and without LRN, at which cost? (the 2017 study)",
        f"{_STUDY} --model=study2017_3x3 --learning_rate=0.01",
        _grid(activation=("relu", "elu", "swish", "crelu", "tanh"), norm=("none", "lrn")),
    ),
    "kernels": Comparison(
        "3 x 3 or 5 x 5 kernels at 19 layers, or 14 layers of mixed ones? (the 2017 study)",
        f"{_STUDY} --norm=batch --optimizer=momentum --learning_rate=0.05",
        _grid(model=("study2017_3x3", "study2017_5x5", "study2017_mixed")),
    ),
    "depth": Comparison(
        "Do plain networks get worse with depth, and residual ones better? (He et al. 2016, "
        "section 4.2)",
        "--epochs=5 --schedule=cosine --learning_rate=0.1 --weight_decay=1e-4",
        _grid(model=("cifar_plain20", "cifar_plain56", "cifar_resnet20", "cifar_resnet56")),
    ),
}


def train(name: str, runs: Path, data: str, extra: list[str]) -> dict[str, history.History]:
    """Runs and tests the trainings of a comparison; returns the history of each.

    Raises:
        RuntimeError: If a training or a test fails.
    """
    comparison, recorded = COMPARISONS[name], {}
    for training in comparison.trainings:
        words = comparison.words(training)
        folder = runs / "_".join(words).replace("--", "")
        print(f"{name}: {training}", flush=True)
        again = ["--resume"] * (folder / "run.json").exists()
        _run("train.py", f"--data={data}", *words, *extra, f"--run_dir={folder}", *again)
        best, tested = folder / "checkpoints" / "best.safetensors", folder / "test.json"
        if not tested.exists() or tested.stat().st_mtime < best.stat().st_mtime:
            _run("test.py", str(folder), f"--data={data}", "--split=test")
        recorded[training] = history.read(folder)
    return recorded


def _run(*words: str) -> None:
    if code := subprocess.call([sys.executable, *words], cwd=ROOT):
        raise RuntimeError(f"{shlex.join(words)} ended with exit code {code}")


def epochs_to(run: history.History, error: float) -> int | None:
    """Returns the number of epochs until a training error; None if it was not reached."""
    reached = (row["epoch"] for row in run.rows if 1 - row["train_top1_accuracy"] <= error)
    return next(map(int, reached), None)


def speeds(runs: dict[str, history.History], seconds: float) -> dict[str, float]:
    """Measures the trainings' steps in turns; returns medians in images per second."""
    pairs = []
    for training, run in runs.items():
        network, batch_size = run.settings["network"], run.settings["flags"]["batch_size"]
        how = {
            "network": network,
            "optimizer": run.settings["flags"]["optimizer"],
            "batch_size": batch_size,
        }
        how["precision"] = run.settings["precision"]
        candidate = turns.Candidate(training, training, "benchmarks.stacks:of_a_run", how)
        side = network["image_size"]
        pairs.append((candidate, Setting("small", "", "", side, 1, cores())))
    results = turns.measure(pairs, seconds=seconds, repeat=TURNS, say=print)
    return {result["name"]: tables.summary(result)["median"] for result in results}


def table(runs: dict[str, history.History], rates: dict[str, float]) -> list[list[str]]:
    """Returns a row per training: accuracies, speed and time, costs, epochs to `REACHED`.

    The column of epochs is left out if no training reached that error.
    """
    head = ["training", "test top-1 %", "training top-1 %", "epochs", "images/s", "minutes"]
    rows = [[*head, "parameters", "million multiply-adds"]]
    for training, run in runs.items():
        last, cost = run.rows[-1], run.settings["cost"]
        images = last["step"] * run.settings["flags"]["batch_size"]
        rows.append(
            [
                training,
                f"{100 * run.tested['top1_accuracy']:.2f}",
                f"{100 * last['train_top1_accuracy']:.2f}",
                f"{last['epoch']:.0f}",
                f"{rates[training]:,.0f}",
                f"{images / rates[training] / 60:,.1f}",
                f"{cost['parameters']:,}",
                f"{cost['multiply_adds'] / 1e6:,.1f}",
            ]
        )
    reached = [epochs_to(run, REACHED) for run in runs.values()]
    if not any(reached):
        return rows
    rows[0].append(f"epochs to {100 * REACHED:.0f} % training error")
    for row, epochs, run in zip(rows[1:], reached, runs.values(), strict=True):
        row.append(str(epochs or f"more than {run.rows[-1]['epoch']:.0f}"))
    return rows


def write(
    name: str, runs: dict[str, history.History], rates: dict[str, float], folder: Path
) -> None:
    """Writes the table and the curves of a comparison into a folder."""
    comparison, rows = COMPARISONS[name], table(runs, rates)
    precisions = " and ".join(sorted({run.settings["precision"] for run in runs.values()}))
    where = f"{precisions}, {tables.machine_line(tables.machine())}"
    print(tables.text(rows))
    curves = folder / f"comparison-{name}.png"
    groups = {training: [run] for training, run in runs.items()}
    curves.write_bytes(compare.curves(groups, "train_top1_accuracy", "validation_top1_accuracy"))
    text = [
        comparison.question,
        f"![accuracies against the epoch]({curves.name})",
        tables.markdown(rows),
        "Images per second are of the training step on one batch over and over, medians of "
        f"{TURNS} turns; minutes are the epochs' at that speed.",
        "Training accuracies are of the last epoch, while it was trained, images varied.",
        f"CIFAR-10 as JPEG files, seed 0, {where}; each training:",
        *(
            f"    python train.py --data=CIFAR10 {shlex.join(comparison.words(training))}"
            for training in runs
        ),
    ]
    (folder / f"comparison-{name}.md").write_text("\n\n".join(text) + "\n")


def main(argv: list[str] | None = None) -> None:
    """Parses the command line, and trains and compares."""
    parser = console.Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", required=True, help="CIFAR-10: class folders or shards")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the run folders")
    parser.add_argument("--only", default=",".join(COMPARISONS), help="separated by commas")
    parser.add_argument("--seconds", type=float, default=2, help="of a turn in timing (2)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    options, extra = parser.parse_known_args(argv)
    names = options.only.split(",")
    if unknown := sorted(set(names) - set(COMPARISONS)):
        parser.error(f"unknown comparisons {unknown}, expected some of {','.join(COMPARISONS)}")
    data = str(Path(options.data).resolve())
    with console.user_errors():
        for name in names:
            recorded = train(name, options.runs.resolve(), data, extra)
            write(name, recorded, speeds(recorded, options.seconds), options.output)


if __name__ == "__main__":
    main()
