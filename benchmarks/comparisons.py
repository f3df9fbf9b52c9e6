"""Repeats comparisons of the papers on CIFAR-10, several seeds of each training.

    python benchmarks/comparisons.py --plan                            # core hours that are left
    python benchmarks/comparisons.py --data=CIFAR10 --runs=FOLDER --hours=8    # trains what fits
    python benchmarks/comparisons.py                                   # writes the page again

The trainings are those of the table below, all of seed 0 before those of seed 1. Each result is
kept in benchmarks/results/trainings.jsonl: the same command goes on, on another day or machine.
Flags of train.py may be added, for trials with another --output.
"""

import itertools
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime import console, files

with console.quiet_import():
    from benchmarks import plan, tables, trainings, verdicts
    from benchmarks.trainings import Training

REACHED = 0.25  # training error, as in figure 1 of the AlexNet paper
DATA = "cifar10"


class Comparison(NamedTuple):
    """A question and the trainings that answer it.

    Attributes:
        question: Question with its source.
        common: Flags of all trainings.
        trainings: Flags of each training, by short name.
        seeds: Number of seeds of each training.
    """

    question: str
    common: str
    trainings: dict[str, str]
    seeds: int = 3

    def training(self, name: str, seed: int, extra: Sequence[str] = ()) -> Training:
        """Returns a training by its short name, with flags in addition."""
        words = shlex.split(f"{self.common} {self.trainings[name]}")
        return trainings.of_words(DATA, [*words, *extra], seed)


def _grid(**choices: tuple[str, ...]) -> dict[str, str]:
    """Returns the flags of every combination of the flags' values, by the values."""
    combinations = itertools.product(*choices.values())
    return {"-".join(chosen): _flags(choices, chosen) for chosen in combinations}


def _flags(names: Iterable[str], values: Iterable[str]) -> str:
    return " ".join(f"--{name}={value}" for name, value in zip(names, values, strict=True))


# Half of the channels: 16, 32 and 64 as in the CIFAR ResNets, for a quarter of the work.
_STUDY = "--width=0.5 --epochs=20 --schedule=cosine"

_RESIDUAL = "--epochs=20 --schedule=cosine --learning_rate=0.1 --weight_decay=1e-4"

_OF_2012 = "--preprocessing=mean --init=normal"

COMPARISONS = {
    "relu_tanh": Comparison(
        "Do ReLUs reach 25 % training error in a quarter of tanh's epochs? (Krizhevsky et al. "
        "2012, section 3.1, figure 1: six times faster, four layers) In the paper's time: pixels "
        "less their mean, small weights; and today: standardised pixels, weights to their scale, "
        "and a higher rate, which is faster for both",
        "--model=cifarnet --dropout=0 --augment=none --weight_decay=0 --schedule=constant",
        {
            "relu-2012": f"{_OF_2012} --learning_rate=0.01 --activation=relu --epochs=8",
            "tanh-2012": f"{_OF_2012} --learning_rate=0.01 --activation=tanh --epochs=10",
            "relu-today": "--learning_rate=0.03 --activation=relu --epochs=6",
            "tanh-today": "--learning_rate=0.03 --activation=tanh --epochs=6",
        },
    ),
    "norms": Comparison(
        "Batch normalisation, LRN, or none? (the 2017 study; Ioffe & Szegedy 2015: batch "
        "normalisation also allows higher rates)",
        f"{_STUDY} --model=study2017_3x3",
        {
            "batch": "--norm=batch --learning_rate=0.01",
            "batch-faster": "--norm=batch --optimizer=momentum --learning_rate=0.05",
            "lrn": "--norm=lrn --learning_rate=0.01",
            "none": "--norm=none --learning_rate=0.01",
        },
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
    "depth": Comparison(
        "Do plain networks get worse with depth, and residual ones better? (He et al. 2016, "
        "section 4.2)",
        _RESIDUAL,
        _grid(model=("cifar_plain20", "cifar_plain56", "cifar_resnet20", "cifar_resnet56")),
    ),
    "pooling": Comparison(
        "Do LRN and overlapping pooling help? (Krizhevsky et al. 2012, sections 3.3 and 3.4: 2 % "
        "less error on CIFAR-10 by LRN, with four layers; 0.4 % less by overlapping, on ImageNet)",
        "--model=cifarnet --epochs=20 --learning_rate=0.02 --schedule=cosine",
        _grid(norm=("none", "lrn"), pooling=("max", "max_overlapping")),
    ),
    "activations": Comparison(
        "Which activation, with and without LRN, at which cost? (the 2017 study)",
        f"{_STUDY} --model=study2017_3x3 --learning_rate=0.01",
        {
            **_grid(norm=("none", "lrn")),
            **_grid(activation=("elu", "swish", "crelu", "tanh"), norm=("none", "lrn")),
        },
    ),
    "kernels": Comparison(
        "3 x 3 or 5 x 5 kernels at 19 layers, or 14 layers of mixed ones? (the 2017 study)",
        f"{_STUDY} --norm=batch --optimizer=momentum --learning_rate=0.05",
        _grid(model=("study2017_3x3", "study2017_5x5", "study2017_mixed")),
    ),
    "shortcuts": Comparison(
        "Zeros (A) or projections (B) where the size changes, or projections everywhere (C)? (He "
        "et al. 2016, section 4.1: C is slightly better than B, B than A, on ImageNet)",
        f"{_RESIDUAL} --model=cifar_resnet20",
        {"A": "", **{kind: f"--shortcut={kind}" for kind in "BC"}},
    ),
    "dropout": Comparison(
        "Does dropout of the dense layers help? (Krizhevsky et al. 2012, section 4.2)",
        "--model=cifarnet --epochs=20 --learning_rate=0.02 --schedule=cosine",
        _grid(dropout=("0", "0.5")),
    ),
    "auxiliary_heads": Comparison(
        "Do companion classifiers help? (Lee et al. 2015, table 1: 10.41 and 9.69 % error without "
        "augmentation)",
        "--epochs=20 --schedule=cosine --learning_rate=0.02",
        _grid(model=("nin_cifar", "dsn")),
    ),
}


def jobs(names: Sequence[str], extra: Sequence[str] = ()) -> list[plan.Job]:
    """Lists the trainings of comparisons in order: all of a seed before those of the next."""
    listed = []
    for name in names:
        comparison = COMPARISONS[name]
        for seed, title in itertools.product(range(comparison.seeds), comparison.trainings):
            listed.append(plan.Job(name, title, comparison.training(title, seed, extra)))
    return listed


def kept_results(
    name: str, results: Mapping[Training, dict], extra: Sequence[str] = ()
) -> dict[str, list[dict]]:
    """Returns the kept results of a comparison by training; empty lists for those without any."""
    found = {title: [] for title in COMPARISONS[name].trainings}
    for job in jobs([name], extra):
        if job.training in results:
            found[job.title].append(results[job.training])
    return found


def table(found: Mapping[str, Sequence[dict]]) -> list[list[str]]:
    """Returns a row per training: accuracies, costs, time, epochs to `REACHED`.

    The column of epochs is left out if no training reached that error.
    """
    head = ["training", "seeds", "test top-1 %", "training top-1 %", "epochs"]
    rows = [[*head, "images/s", "minutes", "parameters", "million multiply-adds"]]
    found = {title: results for title, results in found.items() if results}
    for title, results in found.items():
        best = verdicts.fastest(results)
        rows.append(
            [
                title,
                str(len(results)),
                verdicts.percent(verdicts.top1(results)),
                verdicts.percent([result["train"][-1] for result in results]),
                f"{len(best['train'])}",
                f"{best['images_per_second']:,.0f}",
                f"{best['minutes']:,.1f}",
                f"{best['parameters']:,}",
                f"{best['multiply_adds'] / 1e6:,.1f}",
            ]
        )
    reached = {title: to_error(results) for title, results in found.items()}
    if any(any(epochs) for epochs in reached.values()):
        rows[0].append(f"epochs to {100 * REACHED:.0f} % training error")
        for row, (title, epochs) in zip(rows[1:], reached.items(), strict=True):
            row.append(_epochs(epochs, len(found[title][0]["train"])))
    return rows


def to_error(results: Sequence[dict]) -> list[int | None]:
    """Returns the epochs of each run until the training error `REACHED`, None if not reached."""
    return [verdicts.epochs_to(result, REACHED) for result in results]


def _epochs(reached: Sequence[int | None], trained: int) -> str:
    """Formats epochs until an error; those that did not reach it are counted."""
    if missing := reached.count(None):
        some = f"{missing} of {len(reached)} " * (missing < len(reached))
        return f"{some}not within {trained} epochs"
    return tables.spread(reached, 1)


def section(name: str, found: Mapping[str, Sequence[dict]], picture: str | None) -> list[str]:
    """Returns the paragraphs of a comparison."""
    comparison, text = COMPARISONS[name], [f"## {name}", COMPARISONS[name].question]
    if picture:
        text += [f"![accuracies against the epoch]({picture})", tables.markdown(table(found))]
        scores = {title: verdicts.top1(results) for title, results in found.items()}
        text.append(_verdict("Test top-1", verdicts.verdict(_percent(scores), "points")))
        epochs = {title: to_error(results) for title, results in found.items()}
        epochs = {title: each for title, each in epochs.items() if each and None not in each}
        if len(epochs) > 1:
            sentences = verdicts.verdict(epochs, "epochs", lower=True)
            text.append(_verdict(f"Epochs to {100 * REACHED:.0f} % training error", sentences))
        machines = {verdicts.machine(r) for results in found.values() for r in results}
        text.append(f"{'; '.join(sorted(machines))}.")
    else:
        text.append("Not trained yet.")
    commands = [f"    {comparison.training(title, 0).shown()}" for title in comparison.trainings]
    return [*text, f"Seeds 0 to {comparison.seeds - 1}:", "\n".join(commands)]


def _percent(values: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    return {name: [100 * value for value in each] for name, each in values.items()}


def _verdict(about: str, sentences: Sequence[str]) -> str:
    return (
        f"{about}: {' '.join(sentences) or 'fewer than two trainings with two seeds, no verdict.'}"
    )


def write(wanted: plan.Plan, folder: Path, extra: Sequence[str] = ()) -> None:
    """Writes the page and its pictures into a folder.

    Args:
        wanted: All trainings, and what was kept of them.
        folder: Folder of the page.
        extra: Flags that all trainings have in addition.
    """
    text = ["# What papers compare, trained on CIFAR-10", INTRODUCTION, verdicts.RULE]
    text += ["## What is left", tables.markdown(wanted.table())]
    for name in COMPARISONS:
        found = kept_results(name, wanted.results, extra)
        png, picture = verdicts.curves(found), f"comparisons-{name}.png"
        if png:
            files.write(folder / picture, png)
        text += section(name, found, picture if png else None)
    files.write(folder / "comparisons.md", ("\n\n".join(text) + "\n").encode())


INTRODUCTION = """Made by `python benchmarks/comparisons.py`; every run is a line of
[trainings.jsonl](trainings.jsonl), with its flags, curves, machine, commit and digest of the
weights. Accuracies are means over the seeds ± their sample standard deviation, on the test split
with one view; training accuracies are of the last epoch, while it was trained, images varied.
Curves are means with a band from the lowest to the highest seed. Images per second (median of the
epochs) and minutes (training steps, without validation) are of the fastest seed: other work of the
machine slows them, and is not taken out. `--flagfile=/dev/null` keeps train.py from taking the
settings of recipes/MODEL.flags."""


def main(argv: list[str] | None = None) -> None:
    """Parses the command line; plans, trains and writes the page."""
    parser = console.Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    plan.add_flags(parser)
    parser.add_argument("--data", help="CIFAR-10 as shards (python -m data.convert)")
    options, extra = plan.parse(parser, argv)
    names = plan.chosen(parser, options.only, list(COMPARISONS))
    with console.user_errors():
        places = plan.places(options, {DATA: options.data})
        wanted = plan.Plan(jobs(names, extra), places)

        def page() -> None:
            write(plan.Plan(jobs(list(COMPARISONS), extra), places), options.output, extra)

        plan.carry_out(wanted, options, page)


if __name__ == "__main__":
    main()
