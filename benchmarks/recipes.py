"""Trains the recipes for CIFAR-10 and MNIST, and writes what they reach beside the papers.

    python benchmarks/recipes.py --plan                                # core hours that are left
    python benchmarks/recipes.py --cifar10=SHARDS --mnist=SHARDS --runs=FOLDER --hours=8
    python benchmarks/recipes.py                                       # writes the pages again

A recipe is a row if its comment says that it is "on CIFAR-10" or "on MNIST", unless its source
"published no error"; the published figure
is the comment's first "... % test top-1" or "... % test error". Results are kept one by one in
benchmarks/results/trainings.jsonl: the same command goes on, on another day or machine. Flags of
train.py may be added, for trials with another --output.
"""

import dataclasses
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime import console, files

with console.quiet_import():
    import numpy as np

    from benchmarks import plan, tables, trainings, verdicts
    from benchmarks.trainings import DATA, Training
    from report import scores

RECIPES = trainings.ROOT / "recipes"
_DATA = {data.title: name for name, data in DATA.items()}
_ON = re.compile(rf"\bon ({'|'.join(_DATA)})\b")
_PUBLISHED = re.compile(r"(\d+(?:\.\d+)?) % test (top-1|error)")


class Wish(NamedTuple):
    """How a recipe is to be trained and tested.

    Attributes:
        seeds: Number of seeds.
        views: Numbers of views per test image; the last one is the recipe's own.
        flags: Flags in addition to the recipe's.
    """

    seeds: int = 1
    views: tuple[int, ...] = (1,)
    flags: str = ""


# Recipes that do not have the defaults of `Wish`, before all others in the order of training.
WISHES = {
    "mnist_lenet5": Wish(seeds=3),
    "mnist_lenet5_distorted": Wish(seeds=3),
    "cifar_fast": Wish(seeds=3, views=(1, 2, 6)),
    "cifar_resnet20": Wish(seeds=3),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A recipe to be trained.

    Attributes:
        name: Name of the flag file without its suffix.
        data: Name of the data, a key of `DATA`.
        published: Published test top-1 accuracy in percent.
        comment: The flag file's comment.
        wish: How it is to be trained and tested.
    """

    name: str
    data: str
    published: float
    comment: str
    wish: Wish

    def training(self, seed: int, extra: Sequence[str] = ()) -> Training:
        """Returns the training with a seed, and with flags in addition."""
        words = [f"--flagfile=recipes/{self.name}.flags", *shlex.split(self.wish.flags), *extra]
        training = trainings.of_words(self.data, words, seed)
        if training.value("model"):
            return training
        words.insert(1, f"--model={self.name}")
        return trainings.of_words(self.data, words, seed)


def rows(folder: Path = RECIPES) -> dict[str, Row]:
    """Returns the recipes for `DATA` by name, in the order of training.

    Raises:
        ValueError: If the comment of such a recipe has no published figure in the fixed form.
    """
    found = {}
    for path in sorted(folder.glob("*.flags")):
        lines = [line for line in path.read_text().splitlines() if line.startswith("#")]
        comment = " ".join(line.lstrip("# ") for line in lines)
        if not (on := _ON.search(comment)) or "published no error" in comment:
            continue
        if not (figure := _PUBLISHED.search(comment)):
            raise ValueError(f"{path.name}: expected '... % test top-1' or '... % test error'")
        value = float(figure[1]) if figure[2] == "top-1" else round(100 - float(figure[1]), 2)
        wish = WISHES.get(path.stem, Wish())
        found[path.stem] = Row(path.stem, _DATA[on[1]], value, comment, wish)
    first = [name for name in WISHES if name in found]
    return {name: found[name] for name in dict.fromkeys([*first, *found])}


def jobs(listed: Sequence[Row], extra: Sequence[str] = ()) -> list[plan.Job]:
    """Lists the trainings of recipes in order."""
    return [
        plan.Job(row.name, "recipe", row.training(seed, extra), row.wish.views)
        for row in listed
        for seed in range(row.wish.seeds)
    ]


def kept_results(
    row: Row, results: Mapping[Training, dict], extra: Sequence[str] = ()
) -> list[dict]:
    """Returns the kept results of a recipe, one per seed."""
    return [results[job.training] for job in jobs([row], extra) if job.training in results]


def table(found: Mapping[str, Sequence[dict]], listed: Mapping[str, Row]) -> list[list[str]]:
    """Returns a row for each recipe and number of views that has results."""
    head = ["recipe", "views", "seeds", "top-1 %", "95 % interval", "published", "difference"]
    lines = [[*head, "training top-1 %", "epochs", "minutes", "machine"]]
    for name, results in found.items():
        for views in listed[name].wish.views:
            reached = verdicts.top1(results, views)
            if not reached:
                continue
            mean, best = float(np.mean(reached)), verdicts.fastest(results)
            (n,) = {
                each["tests"][str(views)]["n"] for each in results if str(views) in each["tests"]
            }
            inside = scores.fraction(np.arange(n) < round(mean * n))
            published = listed[name].published
            lines.append(
                [
                    name,
                    str(views),
                    str(len(reached)),
                    verdicts.percent(reached),
                    f"{100 * inside.low:.2f} to {100 * inside.high:.2f}",
                    f"{published:.2f}",
                    f"{100 * mean - published:+.2f}",
                    verdicts.percent([result["train"][-1] for result in results]),
                    str(len(best["train"])),
                    f"{best['minutes']:,.0f}",
                    verdicts.machine(best),
                ]
            )
    return lines


def networks_table(found: Mapping[str, Sequence[dict]], listed: Mapping[str, Row]) -> str:
    """Returns the table of docs/networks.md: what was reached beside the papers."""
    lines = [["network", "recipe", "data", "published top-1 %", "reached", "seeds"]]
    for name, results in found.items():
        row = listed[name]
        if reached := verdicts.top1(results, row.wish.views[-1]):
            network = row.training(0).value("model")
            cells = [network, f"`{name}`", DATA[row.data].title, f"{row.published:.2f}"]
            lines.append([*cells, verdicts.percent(reached), str(len(reached))])
    return tables.markdown(lines)


def write(wanted: plan.Plan, folder: Path, extra: Sequence[str] = ()) -> None:
    """Writes a page for each data set into a folder, and its curves.

    Args:
        wanted: All trainings, and what was kept of them.
        folder: Folder of the pages.
        extra: Flags that all trainings have in addition.
    """
    listed = rows()
    for data, (title, _) in DATA.items():
        found = {
            name: kept_results(row, wanted.results, extra)
            for name, row in listed.items()
            if row.data == data
        }
        trained = {name: results for name, results in found.items() if results}
        text = [f"# {title}: what the recipes reach beside the papers", INTRODUCTION]
        if png := verdicts.curves(trained):
            files.write(folder / f"{data}.png", png)
            text += [tables.markdown(table(trained, listed)), f"![accuracies]({data}.png)"]
        else:
            text.append("Nothing is trained yet.")
        left = plan.Plan(jobs([listed[name] for name in found], extra), wanted.places)
        text += ["## What is left", tables.markdown(left.table()), "## Recipes"]
        for name in found:
            row = listed[name]
            text += [f"{name}: {row.comment}", f"    {row.training(0, extra).shown()}"]
        files.write(folder / f"{data}.md", ("\n\n".join(text) + "\n").encode())


INTRODUCTION = """Made by `python benchmarks/recipes.py`; every run is a line of
[trainings.jsonl](trainings.jsonl), with its flags, curves, machine, commit and digest of the
weights. Accuracies are means over the seeds ± their sample standard deviation, on the test split,
averaged over the views of each image (`test.py --split=test --crops=VIEWS`). The interval is that
of the mean as a fraction of the test images. Training accuracies are of the last epoch, while it
was trained, images varied. Minutes are the training steps of the fastest seed: other work of the
machine slows them, and is not taken out."""


def main(argv: list[str] | None = None) -> None:
    """Parses the command line; plans, trains and writes the pages."""
    parser = console.Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    plan.add_flags(parser)
    for name, data in DATA.items():
        parser.add_argument(f"--{name}", help=f"{data.title} as shards (python -m data.convert)")
    options, extra = plan.parse(parser, argv)
    with console.user_errors():
        listed = rows()
        names = plan.chosen(parser, options.only, list(listed))
        places = plan.places(options, {name: getattr(options, name) for name in DATA})
        chosen = [listed[name] for name in listed if name in names]

        def pages() -> None:
            write(plan.Plan(jobs(list(listed.values()), extra), places), options.output, extra)

        plan.carry_out(plan.Plan(jobs(chosen, extra), places), options, pages)
        if not options.plan:
            results = trainings.read(places.results)
            found = {name: kept_results(listed[name], results, extra) for name in names}
            print(networks_table(found, listed))


if __name__ == "__main__":
    main()
