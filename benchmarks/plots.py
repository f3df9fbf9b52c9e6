"""Plots the results as PNG files."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("agg")

from matplotlib import pyplot

from benchmarks import tables

OURS, OTHERS, CEILING = "#1f6fb4", "#b8bec6", "#ffffff"
CONTRASTS = ("#7a7f87", "#d07a2d")
ROW = 0.32  # height of a bar's row in inches


def input_plot(scenarios: list[dict], path: Path) -> None:
    """Plots images per second of every candidate as horizontal bars, with a panel per scenario.

    Args:
        scenarios: Scenarios with `title` and `results`.
        path: Path of the PNG file.
    """
    rows = [len(scenario["results"]) + 2 for scenario in scenarios]
    figure, panels = pyplot.subplots(
        len(scenarios),
        figsize=(9, ROW * sum(rows) + 0.4),
        height_ratios=rows,
        squeeze=False,
        layout="constrained",
    )
    for panel, scenario in zip(panels[:, 0], scenarios, strict=True):
        _bars(panel, scenario["results"])
        panel.set_title(scenario["title"], loc="left", fontsize=10)
    panels[-1, 0].set_xlabel("images per second: median, lowest and highest turn")
    _save(figure, path)


def starvation_plot(idle: dict[str, list[float]], rates: Sequence[float], path: Path) -> None:
    """Plots the idle time of simulated devices against their rate, with a line per feed.

    Args:
        idle: Idle shares, 0..1, at every rate, by feed.
        rates: Rates of the devices in images per second.
        path: Path of the PNG file.
    """
    figure, panel = pyplot.subplots(figsize=(8, 4.8), layout="constrained")
    others = itertools.cycle(CONTRASTS)
    for label, shares in idle.items():
        ours = label.startswith("ours")
        style = {"color": OURS if ours else next(others), "linewidth": 2.2 if ours else 1.5}
        dash = "--" if "raw" in label else "-"
        panel.plot(rates, [100 * share for share in shares], dash, marker="o", label=label, **style)
    panel.set_xscale("log")
    panel.set_xticks(rates, [f"{rate:,.0f}" for rate in rates])
    panel.minorticks_off()
    panel.set_ylim(-2, 102)
    panel.set_xlabel("images per second that the (simulated) device could train on")
    panel.set_ylabel("device idle, %")
    panel.grid(alpha=0.3)
    figure.legend(*panel.get_legend_handles_labels(), loc="outside upper left", ncols=2, fontsize=8)
    _save(figure, path)


def _bars(panel: pyplot.Axes, results: list[dict]) -> None:
    found = sorted(((tables.summary(each), each) for each in results), key=lambda f: f[0]["median"])
    medians = [figures["median"] for figures, _ in found]
    spread = [
        [figures["median"] - figures["lowest"] for figures, _ in found],
        [figures["highest"] - figures["median"] for figures, _ in found],
    ]
    colours = {"ours": OURS, "ceiling": CEILING}
    bars = panel.barh(
        [each["label"] for _, each in found],
        medians,
        xerr=spread,
        color=[colours.get(each["name"], OTHERS) for _, each in found],
        edgecolor="#6a7078",
        error_kw={"ecolor": "#404040", "elinewidth": 1, "capsize": 2},
    )
    panel.bar_label(bars, [f" {median:,.0f}" for median in medians], fontsize=8, padding=3)
    panel.set_xlim(0, 1.15 * max(figures["highest"] for figures, _ in found))
    panel.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)


def _save(figure: pyplot.Figure, path: Path) -> None:
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
