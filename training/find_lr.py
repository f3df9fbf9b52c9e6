"""Finds a learning rate: `python train.py ... --find_lr` lets it rise and watches the loss.

L. Smith, arXiv:1506.01186, section 3.3: a short training in which every step has a larger learning
rate than the one before. Proposed is the rate at which the smoothed loss falls fastest.
"""

import csv
import dataclasses
import math
from pathlib import Path

import numpy as np

from engine.trainer import NotFinite
from report import plots
from training import parts
from training.build import Setup

STEPS = 100
LOWEST, HIGHEST = 1e-6, 10.0
SMOOTHING = 0.9  # how much of the running mean a step keeps
DIVERGED = 2.0  # times the lowest smoothed loss: more need not be seen
FEWEST = 10  # steps that the running mean needs
HALF = 5  # steps before and after one, for the slope there


@dataclasses.dataclass
class Curve:
    """Losses at rising learning rates.

    Attributes:
        rates: Of each step.
        losses: Of its batch before the update, in nats.
        smoothed: Running means of the losses.
    """

    rates: list[float] = dataclasses.field(default_factory=list)
    losses: list[float] = dataclasses.field(default_factory=list)
    smoothed: list[float] = dataclasses.field(default_factory=list)

    def add(self, rate: float, loss: float) -> None:
        """Adds a step; the mean of the first few is not drawn towards 0."""
        self.rates.append(rate)
        self.losses.append(loss)
        kept = SMOOTHING ** np.arange(len(self.losses))[::-1]
        self.smoothed.append(float(np.average(self.losses, weights=kept)))

    @property
    def has_diverged(self) -> bool:
        """Whether the loss has risen so far that it will not come back."""
        last = self.smoothed[-1]
        return not math.isfinite(last) or last > DIVERGED * min(self.smoothed)

    @property
    def proposed(self) -> float:
        """The rate at which the smoothed loss falls fastest, before its lowest point.

        The slope is that of a line through a few steps; the first ones are not smooth yet.

        Raises:
            RuntimeError: If it never falls.
        """
        usable = self.smoothed[FEWEST:]
        end = FEWEST + int(np.argmin(usable)) + 1 if usable else 0
        places = range(FEWEST + HALF, min(end, len(self.smoothed) - HALF))
        slopes = {place: self._slope(place) for place in places}
        if min(slopes.values(), default=0.0) >= 0:
            raise RuntimeError("the loss does not fall at any learning rate: try --overfit_batch")
        return self.rates[min(slopes, key=slopes.get)]

    def _slope(self, place: int) -> float:
        """Of a line through the smoothed losses around a step."""
        around = self.smoothed[place - HALF : place + HALF + 1]
        return float(np.polyfit(range(-HALF, HALF + 1), around, 1)[0])


def find(setup: Setup) -> Curve:
    """Trains for a few steps with rising learning rates; nothing is saved."""
    batches = setup.train_batches(0, setup.total).repeat()
    iterator = setup.trainer.iterate(batches)
    curve = Curve()
    for rate in np.geomspace(LOWEST, HIGHEST, STEPS):
        try:
            done = setup.trainer.train(iterator, [float(rate)])
        except NotFinite:
            break
        curve.add(float(rate), done.totals.means["loss"])
        if curve.has_diverged:
            break
    return curve


def report(setup: Setup, curve: Curve) -> list[str]:
    """Writes the curve as find_lr.csv and find_lr.png, in the run folder or here.

    Returns:
        A line about what to use.

    Raises:
        RuntimeError: If there is nothing to propose.
        OSError: If the files cannot be written.
    """
    proposed = curve.proposed
    folder = Path(setup.running.run_dir or ".")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "find_lr.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("learning_rate", "loss", "smoothed_loss"))
        writer.writerows(zip(curve.rates, curve.losses, curve.smoothed, strict=True))
    path = folder / "find_lr.png"
    plots.learning_rates(curve.rates, curve.losses, curve.smoothed, proposed, path)
    flag = proposed / parts.batch_scale(setup.recipe)
    return [f"the loss falls fastest at --learning_rate={flag:.2g}  ({path})"]
