"""Draws plots as PNG files."""

import io
import itertools
import statistics
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import matplotlib

matplotlib.use("agg")

import numpy as np
from matplotlib import lines as lines2d
from matplotlib import pyplot, text

from report import fonts
from report.scores import Bin
from runtime import console

pyplot.rcParams["text.parse_math"] = False  # class names may contain a $

INK, ACCENT, FAINT = "#1f6fb4", "#d07a2d", "#b8bec6"


def learning_rates(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    proposed: float,
    path: Path,
) -> None:
    """Plots the loss against the learning rate, and marks the proposed rate.

    Args:
        rates: Learning rates in ascending order.
        losses: Training loss of the step at each rate.
        smoothed: Smoothed losses.
        proposed: Proposed learning rate, one of the rates.
        path: Path of the PNG file.

    Raises:
        OSError: If the file cannot be written.
    """
    figure, panel = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    panel.plot(rates, losses, color=FAINT, linewidth=1, label="loss of the step")
    panel.plot(rates, smoothed, color=INK, linewidth=2, label="smoothed")
    panel.axvline(proposed, color=ACCENT, linestyle="--", label=f"proposed: {proposed:.2g}")
    panel.set_xscale("log")
    panel.set_xlabel("learning rate")
    panel.set_ylabel("loss")
    panel.set_ylim(0.9 * min(losses), 1.1 * max(smoothed))
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False)
    _save(figure, path)


def epochs(
    panels: Mapping[str, Mapping[str, Sequence[Sequence[tuple[float, float]]]]],
    *,
    band: bool = False,
) -> bytes:
    """Plots curves against the epoch, in panels side by side, with a colour per group.

    Args:
        panels: Groups by title, for each panel by the label of its y axis; all panels have the
            same groups. A group is a sequence of curves, which are sequences of points (epoch,
            value); curves without points are skipped.
        band: Whether to draw the mean of a group's curves, with a band from the lowest to the
            highest (default: all curves).

    Returns:
        PNG file, with a legend of the groups below the panels.
    """
    titles = [
        textwrap.fill(console.one_line(title), _LEGEND) for title in next(iter(panels.values()))
    ]
    columns = max(1, _LEGEND // (max(map(len, titles)) + 8))
    lines = sum(title.count("\n") + 1 for title in titles) / columns
    figure, axes = pyplot.subplots(
        1,
        len(panels),
        figsize=(8 if len(panels) == 1 else 6 * len(panels), 4 + 0.2 * lines),
        layout="constrained",
        squeeze=False,
    )
    for panel, (label, groups) in zip(axes[0], panels.items(), strict=True):
        for index, curves in enumerate(groups.values()):
            drawn = list(filter(None, curves))
            if band and len(drawn) > 1:
                drawn = [_banded(panel, drawn, _line(index)["color"])]
            for points in drawn:
                panel.plot(
                    *zip(*points, strict=True),
                    marker="o" if len(points) < 3 else None,
                    **_line(index),
                )
        panel.set_xlabel("epoch")
        panel.set_ylabel(label)
        panel.spines[["top", "right"]].set_visible(False)
    handles = [lines2d.Line2D([], [], **_line(index)) for index in range(len(titles))]
    figure.legend(
        handles, titles, loc="outside lower center", ncols=columns, frameon=False, fontsize=8
    )
    return _png(figure)


def _banded(panel, curves, colour):
    """Draws the band of several curves; returns the points of their mean."""
    values = {}
    for epoch, value in itertools.chain(*curves):
        values.setdefault(epoch, []).append(value)
    ends = sorted((epoch, min(each), max(each)) for epoch, each in values.items())
    panel.fill_between(*zip(*ends, strict=True), color=colour, alpha=0.2, linewidth=0)
    return [(epoch, statistics.mean(values[epoch])) for epoch, _, _ in ends]


_LEGEND = 110  # characters in a row of the legend


def _line(index):
    """Returns the colour and line style of a group."""
    colours = pyplot.get_cmap("tab10").colors
    style = ("-", "--", ":")[index // len(colours) % 3]
    return {"color": colours[index % len(colours)], "linestyle": style}


def results(rows: Sequence[Mapping[str, float]]) -> bytes:
    """Plots loss, accuracy and learning rate of a run against the epoch.

    Args:
        rows: Rows of metrics.csv, as numbers without the empty cells.

    Returns:
        PNG file.
    """
    figure, panels = pyplot.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    for panel, (title, curves) in zip(panels, _RESULTS.items(), strict=True):
        for column, label, colour in curves:
            points = [(row["epoch"], row[column]) for row in rows if column in row]
            if points:
                marker = "o" if len(points) < 3 else None
                panel.plot(*zip(*points, strict=True), color=colour, label=label, marker=marker)
        panel.set_xlabel("epoch")
        panel.set_title(title, fontsize=11)
        panel.spines[["top", "right"]].set_visible(False)
        if len(curves) > 1:
            panel.legend(frameon=False)
    return _png(figure)


_RESULTS = {
    "loss": [
        ("train_loss", "training", INK),
        ("validation_loss", "validation", ACCENT),
    ],
    "top-1 accuracy": [
        ("train_top1_accuracy", "training", INK),
        ("validation_top1_accuracy", "validation", ACCENT),
    ],
    "learning rate": [("learning_rate", "", INK)],
}


def confusion(matrix: np.ndarray, class_names: Sequence[str]) -> bytes:
    """Plots a confusion matrix, shaded by the fraction of each row.

    Args:
        matrix: Counts by label (row) and prediction (column), int64 [K, K].
        class_names: Names of the K classes, shown for up to `NAMED_CLASSES` classes; the counts
            are shown for up to half as many.

    Returns:
        PNG file.
    """
    count = len(class_names)
    side = min(14, max(4.5, 1.8 + 0.42 * min(count, NAMED_CLASSES)))
    figure, panel = pyplot.subplots(figsize=(side + 0.8, side), layout="compressed")
    fractions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = panel.imshow(fractions, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    panel.set_xlabel("prediction")
    panel.set_ylabel("label")
    if count <= NAMED_CLASSES:
        names = [_shortened(name) for name in class_names]
        panel.set_xticks(range(count), names, rotation=90, fontsize=8)
        panel.set_yticks(range(count), names, fontsize=8)
    if count <= NAMED_CLASSES // 2:
        for (row, column), number in np.ndenumerate(matrix):
            if number:
                colour = "white" if fractions[row, column] > 0.5 else "black"
                style = {"ha": "center", "va": "center", "fontsize": 8, "color": colour}
                panel.text(column, row, str(number), **style)
    figure.colorbar(image, ax=panel, shrink=0.8, label="fraction of the row")
    return _png(figure)


NAMED_CLASSES = 40


def reliability(before: Sequence[Bin], after: Sequence[Bin] | None) -> bytes:
    """Plots a reliability diagram: accuracy against confidence.

    Args:
        before: Bins from `scores.reliability`, without a temperature.
        after: Bins with a temperature; None if there is none.

    Returns:
        PNG file.
    """
    figure, (panel, below) = pyplot.subplots(
        2, 1, figsize=(5.5, 6), layout="constrained", sharex=True, height_ratios=[3, 1]
    )
    width = 1 / len(before)
    centres = (np.arange(len(before)) + 0.5) * width
    panel.plot([0, 1], [0, 1], color=FAINT, linestyle="--", label="perfect calibration")
    right = [each.accuracy for each in before]
    panel.bar(centres, right, 0.9 * width, color=INK, alpha=0.75, label="uncalibrated")
    if after:
        points = [(each.confidence, each.accuracy) for each in after if each.examples]
        panel.plot(*zip(*points, strict=True), "o-", color=ACCENT, label="with temperature")
    panel.set_ylabel("accuracy")
    figure.legend(
        *panel.get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=3
    )
    below.bar(centres, [each.examples for each in before], 0.9 * width, color=FAINT)
    below.set_ylabel("images")
    below.set_xlabel("probability of the prediction")
    for each in (panel, below):
        each.spines[["top", "right"]].set_visible(False)
        each.set_xlim(0, 1)
    return _png(figure)


def _shortened(name: str, longest: int = 18) -> str:
    name = console.one_line(name)
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _png(figure: pyplot.Figure) -> bytes:
    file = io.BytesIO()
    _save(figure, file)
    return file.getvalue()


def _save(figure: pyplot.Figure, file: Path | BinaryIO) -> None:
    """Writes a PNG file, with fonts that have the texts' characters if any are installed."""
    for each in figure.findobj(text.Text):
        each.set_fontfamily([font.family for font in fonts.fonts_for(each.get_text())])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about characters that no font has
        figure.savefig(file, format="png", dpi=150)
    pyplot.close(figure)
