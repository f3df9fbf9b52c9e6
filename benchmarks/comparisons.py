"""Trains what the papers compare, on CIFAR-10, and writes which was better.

    python benchmarks/comparisons.py --data=CIFAR10 --runs=FOLDER                  # all of them
    python benchmarks/comparisons.py --data=CIFAR10 --runs=FOLDER --only=relu_tanh,depth

Every training is `train.py` with flags of the tables below, in a folder of its own; what was
stopped goes on when the same command is given again, and what is finished is not trained again.
Afterwards a page with the curves and a table with accuracies, epochs and times are written to
benchmarks/results; so is, for each training, when its training error first was 25 %.
"""

import itertools
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import console

with console.quiet_import():
    from benchmarks import tables
    from report import compare, history

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
REACHED = 0.25  # training error, as in figure 1 of the AlexNet paper


class Comparison(NamedTuple):
    """A question, and the trainings that answer it.

    Attributes:
        question: What is asked, and where it is from.
        common: Flags of all trainings.
        trainings: Flags of each, by a short name.
    """

    question: str
    common: str
    trainings: dict[str, str]


def _activations() -> dict[str, str]:
    kinds, norms = ("relu", "elu", "swish", "crelu", "tanh"), ("none", "lrn")
    return {
        f"{kind}-{norm}": f"--activation={kind} --norm={norm}"
        for kind, norm in itertools.product(kinds, norms)
    }


COMPARISONS = {
    "relu_tanh": Comparison(
        "Do ReLUs reach 25 % training error in a quarter of tanh's epochs? (Krizhevsky et al. "
        "2012, section 3.1, figure 1: six times faster, four layers)",
        "--model=cifarnet --dropout=0 --augment=none --weight_decay=0 --schedule=constant "
        "--epochs=24 --learning_rate=0.01",
        {kind: f"--activation={kind}" for kind in ("relu", "tanh")},
    ),
    "pooling": Comparison(
        "Do LRN and overlapping pooling help? (the same, sections 3.3 and 3.4: 2 % less error on "
        "CIFAR-10 by LRN, 0.4 % top-1 on ImageNet by overlapping)",
        "--model=alexnet_one_tower --image_size=67 --epochs=8 --learning_rate=0.02 "
        "--schedule=cosine",
        {
            f"{norm}-{pooling}": f"--norm={norm} --pooling={pooling}"
            for norm in ("none", "lrn")
            for pooling in ("max", "max_overlapping")
        },
    ),
    "optimizers": Comparison(
        "Momentum or Adam? (the 2017 study)",
        "--model=study2017_3x3 --norm=batch --epochs=10 --schedule=cosine",
        {
            "momentum": "--optimizer=momentum --learning_rate=0.05",
            "nesterov": "--optimizer=nesterov --learning_rate=0.05",
            "adam": "--optimizer=adam --learning_rate=0.001",
        },
    ),
    "norms": Comparison(
        "Batch normalisation, LRN, or none? (the 2017 study)",
        "--model=study2017_3x3 --epochs=10 --schedule=cosine --learning_rate=0.02",
        {norm: f"--norm={norm}" for norm in ("batch", "lrn", "none")},
    ),
    "activations": Comparison(
        "Which activation, with and without LRN, at which cost? (the 2017 study)",
        "--model=study2017_3x3 --epochs=6 --schedule=cosine --learning_rate=0.01",
        _activations(),
    ),
    "kernels": Comparison(
        "3 x 3 or 5 x 5 kernels at 19 layers, or 14 layers of mixed ones? (the 2017 study)",
        "--epochs=10 --schedule=cosine --learning_rate=0.05",
        {kind: f"--model=study2017_{kind}" for kind in ("3x3", "5x5", "mixed")},
    ),
    "depth": Comparison(
        "Do plain networks get worse with depth, and residual ones better? (He et al. 2016, "
        "section 4.2)",
        "--epochs=10 --schedule=cosine --learning_rate=0.1 --weight_decay=1e-4",
        {
            f"{kind}{depth}": f"--model=cifar_{kind}{depth}"
            for kind in ("plain", "resnet")
            for depth in (20, 56)
        },
    ),
}


def train(name: str, runs: Path, data: str, extra: list[str]) -> dict[str, Path]:
    """Trains what a comparison needs; returns its run folders by name.

    Raises:
        RuntimeError: If a training fails.
    """
    comparison, folders = COMPARISONS[name], {}
    for training, flags in comparison.trainings.items():
        folder = folders[training] = runs / f"{name}-{training}"
        words = [f"--data={data}", *shlex.split(f"{comparison.common} {flags}"), *extra]
        words += [f"--run_dir={folder}"]
        words += ["--resume"] * (folder / "run.json").exists()
        print(f"{name}: {training}", flush=True)
        code = subprocess.call([sys.executable, "train.py", *words], cwd=ROOT)
        if code:
            raise RuntimeError(f"train.py {shlex.join(words)} ended with exit code {code}")
    return folders


def epochs_to(run: history.History, error: float) -> str:
    """How many epochs a training took to a training error: "7", or "more than 24"."""
    for row in run.rows:
        if 1 - row["train_top1_accuracy"] <= error:
            return f"{row['epoch']:.0f}"
    return f"more than {run.rows[-1]['epoch']:.0f}"


def table(folders: dict[str, Path]) -> list[list[str]]:
    """A row for each training: accuracy, epochs to `REACHED`, time, speed."""
    rows = [["training", f"epochs to {100 * REACHED:.0f} % training error", *compare.COLUMNS[2:]]]
    for name, folder in folders.items():
        run = history.read(folder)
        rows.append([name, epochs_to(run, REACHED), *compare.row(name, [run])[2:]])
    return rows


def main(argv: list[str] | None = None) -> None:
    """Trains and compares what the command line asks for."""
    parser = console.Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", required=True, help="CIFAR-10: class folders or shards")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the run folders")
    parser.add_argument("--only", default=",".join(COMPARISONS), help="separated by commas")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    options, extra = parser.parse_known_args(argv)
    names = options.only.split(",")
    if unknown := sorted(set(names) - set(COMPARISONS)):
        parser.error(f"unknown comparisons {unknown}, expected some of {','.join(COMPARISONS)}")
    data = str(Path(options.data).resolve())
    with console.user_errors():
        for name in names:
            folders = train(name, options.runs.resolve(), data, extra)
            rows, comparison = table(folders), COMPARISONS[name]
            print(tables.text(rows))
            compare.write(folders.values(), options.output / f"comparison-{name}.html")
            about = f"{comparison.question}\n\n`train.py {comparison.common}`, on "
            about += f"{tables.machine_line(tables.machine())}.\n\n"
            text = about + tables.markdown(rows) + "\n"
            (options.output / f"comparison-{name}.md").write_text(text)


if __name__ == "__main__":
    main()
