"""Summaries of kept trainings that share all but the seed, and verdicts by one rule."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks import tables
from report import compare, history

COLUMNS = ("train_top1_accuracy", "validation_top1_accuracy")
RULE = (
    "A is better than B only if the means differ by more than both standard deviations together, "
    "however few or many points that is; else there is no difference beyond the spread. Fewer than "
    "two seeds have no spread, and no verdict."
)


def percent(values: Sequence[float]) -> str:
    """Formats fractions as their mean and standard deviation in percent."""
    return tables.spread([100 * value for value in values])


def top1(results: Sequence[dict], views: int = 1) -> list[float]:
    """Returns the test accuracies with a number of views, of the results that have one."""
    return [each["tests"][str(views)]["top1"] for each in results if str(views) in each["tests"]]


def epochs_to(result: dict, error: float) -> int | None:
    """Returns the number of epochs until a training error; None if it was not reached."""
    reached = (n for n, top1 in enumerate(result["train"], 1) if 1 - top1 <= error)
    return next(reached, None)


def fastest(results: Sequence[dict]) -> dict:
    """Returns the result of the run that took the least time."""
    return min(results, key=lambda result: result["minutes"])


def machine(result: dict) -> str:
    """Describes the machine of a run, with its precision."""
    about = result["machine"]
    gpus = "".join(f", {gpu}" for gpu in about["gpus"])
    return f"{about['cores']} cores ({about['cpu']}){gpus}, {result['precision']}"


def verdict(values: Mapping[str, Sequence[float]], unit: str, *, lower: bool = False) -> list[str]:
    """Says which groups are better than which others, by `RULE`.

    Args:
        values: Values of each group, one per seed.
        unit: Unit of the values.
        lower: Whether the lower value is the better one.

    Returns:
        A sentence for each group that can be better than another, the best one first.
    """
    known = {name: each for name, each in values.items() if len(each) > 1}
    order = sorted(known, key=lambda n: statistics.mean(known[n]), reverse=not lower)
    sentences = []
    for place, name in enumerate(order[:-1]):
        below, same = [], []
        for other in order[place + 1 :]:
            difference = abs(statistics.mean(known[name]) - statistics.mean(known[other]))
            noise = statistics.stdev(known[name]) + statistics.stdev(known[other])
            if difference > noise:
                below.append(f"{other} by {difference:.1f} {unit}")
            else:
                same.append(other)
        parts = [f"is better than {', '.join(below)}"] * bool(below)
        parts += [f"shows no difference beyond the spread to {', '.join(same)}"] * bool(same)
        sentences.append(f"{name} {'; it '.join(parts)}.")
    return sentences


def curves(groups: Mapping[str, Sequence[dict]]) -> bytes | None:
    """Plots the accuracies against the epoch: means over the seeds, with bands.

    Returns:
        PNG file, or None if there are no results.
    """
    histories = {}
    for name, results in groups.items():
        histories[name] = [history.History(None, {}, _rows(each), {}) for each in results]
    validated = any("validation" in each for results in groups.values() for each in results)
    return compare.curves(histories, *COLUMNS[: 1 + validated], band=True)


def _rows(result: dict) -> list[dict[str, float]]:
    """Returns a result's accuracies as rows of metrics.csv."""
    rows = [{"epoch": n, COLUMNS[0]: value} for n, value in enumerate(result["train"], 1)]
    for row, value in zip(rows, result.get("validation", []), strict=False):
        row[COLUMNS[1]] = value
    return rows
