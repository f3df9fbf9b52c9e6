"""Compares the variables at the end of trainings."""

from pathlib import Path

import numpy as np

from benchmarks.gpu.jobs import step_files


def digest(folder: Path) -> str:
    """Returns the sha256 of all variables of a run's newest checkpoint, also the optimizer's."""
    return _newest(folder).about["sha256"]


def difference(one: Path, other: Path) -> tuple[float, str]:
    """Returns the largest difference between the weights in use of two runs.

    Returns:
        The difference relative to the weight's largest value, and the path of the weight.
    """
    from engine import checkpoints

    first, second = (checkpoints.weights_in_use(_newest(folder)) for folder in (one, other))
    found = {
        name: float(np.abs(first[name] - second[name]).max() / (np.abs(first[name]).max() or 1))
        for name in first
    }
    name = max(found, key=found.get)
    return found[name], name


def _newest(folder: Path):
    """Reads and checks a run's newest checkpoint; TensorFlow is imported while trainings run."""
    from engine import checkpoints

    return checkpoints.read(step_files(folder)[-1])
