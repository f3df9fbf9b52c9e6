"""Compares runs in a table and on an HTML page with their curves.

python -m report.compare RUN RUN ...            compare.html, and the table on the console
python -m report.compare runs/* --output=X.html

Runs that differ only in the seed share a row, with the mean and the standard deviation of their
best validation accuracies.
"""

import argparse
import base64
import statistics
from collections.abc import Sequence
from pathlib import Path

import jinja2

from report import history, plots
from runtime import console

COLUMNS = (
    "training",
    "runs",
    "top-1 %",
    "epochs",
    "minutes",
    "images/s",
    "parameters",
    "multiply-adds",
)
CURVES = {
    "validation_top1_accuracy": "validation top-1 accuracy",
    "train_top1_accuracy": "training top-1 accuracy",
    "validation_loss": "validation loss",
    "train_loss": "training loss",
}
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)


def grouped(runs: Sequence[history.History]) -> dict[str, list[history.History]]:
    """Groups runs that differ only in the seed.

    Returns:
        Groups by title, the most accurate group first. A title names the flags that differ between
        groups, as in "model=lenet5 dropout=0.2"; if no flags differ, it is the folder's name.
    """
    flags = {run.folder: run.flags(runs) for run in runs}
    groups: dict[str, list[history.History]] = {}
    for run in runs:
        groups.setdefault(repr(sorted(flags[run.folder].items())), []).append(run)
    names = sorted({name for each in flags.values() for name in each})
    differing = [n for n in names if len({repr(each.get(n)) for each in flags.values()}) > 1]
    differing.sort(key=lambda name: name != "model")
    titled: dict[str, list[history.History]] = {}
    for members in groups.values():
        folder = members[0].folder
        title = _title(flags[folder], differing) or folder.name
        titled[f"{title} ({folder.name})" if title in titled else title] = members
    return dict(sorted(titled.items(), key=lambda item: -_mean_accuracy(item[1])))


def _title(flags: dict, differing: Sequence[str]) -> str:
    set_flags = [name for name in differing if flags.get(name) is not None]
    return " ".join(f"{name}={_short(flags[name])}" for name in set_flags)


def _short(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _mean_accuracy(runs: Sequence[history.History]) -> float:
    accuracies = [run.best_accuracy for run in runs if run.best_accuracy is not None]
    return statistics.mean(accuracies) if accuracies else -1.0


def row(title: str, runs: Sequence[history.History]) -> list[str]:
    """Returns the cells of a group of runs, in the order of `COLUMNS`."""
    cost = runs[0].settings.get("cost", {})
    speeds = [speed for run in runs for speed in run.column("images_per_second")]
    return [
        title,
        str(len(runs)),
        _format_accuracies([run.best_accuracy for run in runs if run.best_accuracy is not None]),
        "/".join(f"{epoch:.0f}" for epoch in sorted({run.rows[-1]["epoch"] for run in runs})),
        f"{statistics.mean(run.seconds for run in runs) / 60:,.1f}",
        f"{statistics.median(speeds):,.0f}",
        f"{cost['parameters']:,}" if cost else "",
        f"{cost['multiply_adds'] / 1e6:,.1f} M" if cost else "",
    ]


def _format_accuracies(accuracies: Sequence[float]) -> str:
    if not accuracies:
        return ""
    mean = f"{100 * statistics.mean(accuracies):.2f}"
    several = len(accuracies) > 1
    return mean + (f" ± {100 * statistics.stdev(accuracies):.2f}" if several else "")


def curves(
    groups: dict[str, list[history.History]], *columns: str, band: bool = False
) -> bytes | None:
    """Plots columns of metrics.csv against the epoch: a panel per column, a colour per group.

    Args:
        groups: Runs by title.
        *columns: Columns, keys of `CURVES`.
        band: Whether to draw the mean of a group with a band (default: a curve per run).

    Returns:
        PNG file, or None if no run has these columns.
    """
    panels = {
        CURVES[column]: {
            title: [
                [(each["epoch"], each[column]) for each in run.rows if column in each]
                for run in runs
            ]
            for title, runs in groups.items()
        }
        for column in columns
    }
    drawn = any(points for groups in panels.values() for runs in groups.values() for points in runs)
    return plots.epochs(panels, band=band) if drawn else None


def pictures(groups: dict[str, list[history.History]]) -> dict[str, str]:
    """Draws all available curves; returns PNG files in base64 by title."""
    drawn = {title: curves(groups, column) for column, title in CURVES.items()}
    return {title: base64.b64encode(png).decode() for title, png in drawn.items() if png}


def page(groups: dict[str, list[history.History]]) -> str:
    """Renders a self-contained HTML page."""
    return TEMPLATES.get_template("compare.html").render(
        columns=COLUMNS,
        rows=[row(title, runs) for title, runs in groups.items()],
        pictures=pictures(groups),
        folders={title: [str(run.folder) for run in runs] for title, runs in groups.items()},
    )


def table(groups: dict[str, list[history.History]]) -> str:
    """Formats the table of the page for the console."""
    rows = [list(COLUMNS), *(row(title, runs) for title, runs in groups.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in rows
    )


def write(folders: Sequence[str | Path], path: str | Path) -> list[str]:
    """Writes a page that compares run folders; returns the table and the page's path as lines.

    Raises:
        FileNotFoundError: If a folder holds no run, or its run has not finished an epoch.
        ValueError: If a run's files are damaged.
        OSError: If the page cannot be written.
    """
    groups = grouped([history.read(folder) for folder in folders])
    write_page(page(groups), path)
    return [table(groups), f"page: {path}"]


def write_page(html: str, path: str | Path) -> None:
    """Writes a page as UTF-8, with escapes for undecodable bytes in file names.

    Raises:
        OSError: If the page cannot be written.
    """
    Path(path).write_text(html, encoding="utf-8", errors="backslashreplace")


def main(argv: list[str] | None = None) -> None:
    """Parses the command line, writes the page and prints the table."""
    parser = console.Parser(
        prog="python -m report.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    parser.add_argument(
        "--output", default="compare.html", help="path of the page (default: compare.html)"
    )
    options = parser.parse_args(argv)
    with console.user_errors():
        lines = write(options.runs, options.output)
    print(*lines, sep="\n")


if __name__ == "__main__":
    console.open_streams(exit_on_closed_pipe=True)
    main()
