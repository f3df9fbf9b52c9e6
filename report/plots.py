"""Plots of curves, as PNG."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("agg")

from matplotlib import pyplot

INK, ACCENT, FAINT = "#1f6fb4", "#d07a2d", "#b8bec6"


def learning_rates(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    proposed: float,
    path: Path,
) -> None:
    """The loss against the learning rate, and the rate that is proposed.

    Args:
        rates: Learning rates, rising.
        losses: Loss of the step at each.
        smoothed: The same, smoothed.
        proposed: One of the rates.
        path: To write.

    Raises:
        OSError: If it cannot be written.
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
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def epochs(
    groups: Sequence[tuple[str, Sequence[Sequence[tuple[float, float]]]]], what: str
) -> bytes:
    """Curves against the epoch, a colour for each group.

    Args:
        groups: A title and several curves each, points (epoch, value); those without are left out.
        what: Is drawn.

    Returns:
        A PNG file.
    """
    figure, panel = pyplot.subplots(figsize=(8, 4), layout="constrained")
    colours = pyplot.get_cmap("tab10").colors
    for index, (title, curves) in enumerate(groups):
        drawn = [points for points in curves if points]
        for number, points in enumerate(drawn):
            panel.plot(
                *zip(*points, strict=True),
                color=colours[index % len(colours)],
                linestyle=("-", "--", ":")[index // len(colours) % 3],
                marker="o" if len(points) < 3 else None,
                label=None if number else title,
            )
    panel.set_xlabel("epoch")
    panel.set_ylabel(what)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    pyplot.close(figure)
    return file.getvalue()
