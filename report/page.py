"""Renders an HTML page about one or several runs: settings, results and mistakes.

The page is self-contained and built from the files that `train.py` and `test.py` wrote into the
run folders.
"""

import base64
import dataclasses
import json
import shlex
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from report import compare, history, scores
from runtime import console

CLASSES = 200  # rows of the table of classes, the worst class first
PAIRS = 12  # most confused pairs of classes
_TEST = "test"  # subfolder of the run folder that test.py writes
# Pictures in a run folder: path, title and note. Of several pictures with the same title, the
# first one that exists is shown.
PICTURES = (
    ("results.png", "Curves", "Loss and accuracy of each epoch, and the learning rate."),
    (
        "test/confusion_matrix.png",
        "Confusion matrix",
        "Rows are labels, columns predictions, shaded by the fraction of the row.",
    ),
    ("confusion_matrix.png", "Confusion matrix", "From the last validation."),
    (
        "test/reliability.png",
        "Calibration",
        "Accuracy of the predictions against their probability.",
    ),
    (
        "filters.png",
        "First-layer filters",
        "Black is the lowest weight of the layer, white the highest.",
    ),
    ("filters-tower1.png", "First-layer filters, first tower", ""),
    ("filters-tower2.png", "First-layer filters, second tower", ""),
)


@dataclasses.dataclass(frozen=True)
class Figure:
    """A key figure with a note below it."""

    title: str
    value: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Picture:
    """An embedded picture."""

    title: str
    source: str
    note: str


@dataclasses.dataclass(frozen=True)
class Section:
    """The page's section about a run."""

    title: str
    folder: str
    figures: list[Figure]
    pictures: list[Picture]
    mistakes: list[dict]
    pairs: list[tuple[str, str, int]]
    classes: list[dict]
    commands: list[str]
    settings: dict
    surroundings: dict


def section(run: history.History) -> Section:
    """Builds the section about a run from its history and the other files in its folder.

    Raises:
        ValueError: If the files are damaged.
    """
    path = run.folder / _TEST / "predictions.npz"
    predictions = scores.load(path) if path.is_file() else None
    rows = scores.per_class(predictions) if predictions else []
    try:
        key_figures = figures(run)
    except KeyError as error:
        raise ValueError(f"{run.folder}/test.json lacks {error}: test.py writes it anew") from error
    return Section(
        title=run.folder.name,
        folder=str(run.folder),
        figures=key_figures,
        pictures=_pictures(run.folder),
        mistakes=_mistakes(run.folder / _TEST / "mistakes"),
        pairs=scores.confusions(predictions, PAIRS) if predictions else [],
        classes=sorted(filter(_is_tested, rows[:-1]), key=lambda row: row["f1"])[:CLASSES],
        commands=_commands(run),
        settings=run.settings["flags"],
        surroundings=_surroundings(run.settings),
    )


def _is_tested(row: dict) -> bool:
    return row["examples"] > 0


def figures(run: history.History) -> list[Figure]:
    """Returns the key figures of a run."""
    return [*_tested(run.tested), *_trained(run)]


def _tested(tested: dict) -> Iterator[Figure]:
    if not tested:
        return
    source = f" of {tested['data']}" if tested["data"] else ""
    images = f"{tested['examples']:,} images, {tested['split']}{source}, {tested['crops']} crop(s)"
    for k in (1, 5):
        low, high = (f"{100 * end:.1f}" for end in tested[f"top{k}_interval"])
        value = f"{100 * tested[f'top{k}_accuracy']:.2f} %"
        yield Figure(f"top-{k} accuracy", value, f"95 %: {low} to {high} %; {images}")
    calibrated, temperature = 100 * tested["calibrated_error"], tested["temperature"]
    note = f"with temperature {temperature:.2f}: {calibrated:.2f} %" if temperature != 1 else ""
    yield Figure("calibration error", f"{100 * tested['calibration_error']:.2f} %", note)


def _trained(run: history.History) -> Iterator[Figure]:
    if run.best_accuracy is not None:
        best = f"{100 * run.best_accuracy:.2f} %"
        yield Figure("best validation top-1", best, f"in {len(run.rows)} epochs")
    if cost := run.settings.get("cost"):
        adds = f"{cost['multiply_adds'] / 1e6:,.1f} million multiply-adds per image"
        yield Figure("parameters", f"{cost['parameters']:,}", adds)
    speed = statistics.mean(run.column("images_per_second"))
    waits = 100 * statistics.mean(run.column("input_wait_fraction"))
    note = f"{speed:,.0f} images/s; {waits:.1f} % of the time is waiting for images"
    yield Figure("training time", console.duration(run.seconds), note)


def _pictures(folder: Path) -> list[Picture]:
    pictures = {}
    for name, title, note in PICTURES:
        path = folder / name
        if title not in pictures and path.is_file():
            pictures[title] = Picture(title, _embedded(path), note)
    return list(pictures.values())


def _mistakes(folder: Path) -> list[dict]:
    path = folder / "mistakes.json"
    if not path.is_file():
        return []
    return [
        {**row, "source": _embedded(folder / Path(row["picture"]).name)}
        for row in json.loads(path.read_text())
    ]


def _embedded(path: Path) -> str:
    kind = "png" if path.suffix == ".png" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _commands(run: history.History) -> list[str]:
    """Returns the commands that reproduce the run and its test."""
    commands = [shlex.join(["python", *run.settings.get("command", ["train.py"])])]
    if run.tested:
        commands.append(shlex.join(["python", *run.tested["command"]]))
    return commands


def _surroundings(settings: dict) -> dict:
    """Returns data, device and versions as rows of a table."""
    rows = {f"data {name}": value for name, value in settings["data"].items()}
    rows |= {"classes": len(settings["class_names"]), "precision": settings["precision"]}
    return rows | settings["device"] | settings["versions"]


def page(folders: Sequence[str | Path]) -> str:
    """Renders a self-contained HTML page, which begins with a comparison if there are several runs.

    Raises:
        FileNotFoundError: If a folder holds no run, or its run has not finished an epoch.
        ValueError: If a run's files are damaged.
    """
    runs = [history.read(folder) for folder in folders]
    groups = compare.grouped(runs)
    return compare.TEMPLATES.get_template("report.html").render(
        sections=[section(run) for run in runs],
        columns=compare.COLUMNS,
        rows=[compare.row(title, members) for title, members in groups.items()],
        curves=compare.pictures(groups) if len(runs) > 1 else {},
    )
