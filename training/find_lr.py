"""Learning-rate range test: `python train.py ... --find_lr`.

L. Smith, arXiv:1506.01186, section 3.3: a short training in which the learning rate rises with
each step. The proposed rate is the one at which the smoothed loss falls fastest.
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
SMOOTHING = 0.9  # decay of the running mean of losses
DIVERGED = 2.0  # stop when the smoothed loss exceeds this multiple of its minimum
FEWEST = 10  # first steps to ignore, in which the running mean is not smooth yet
HALF = 5  # steps before and after a step over which its slope is fitted


@dataclasses.dataclass
class Curve:
    """Losses at rising learning rates.

    Attributes:
        rates: Learning rate of each step.
        losses: Loss of each step's batch before the update, in nats.
        smoothed: Running mean of the losses at each step.
    """

    rates: list[float] = dataclasses.field(default_factory=list)
    losses: list[float] = dataclasses.field(default_factory=list)
    smoothed: list[float] = dataclasses.field(default_factory=list)

    def add(self, rate: float, loss: float) -> None:
        """Adds a step; the running mean is bias-corrected."""
        self.rates.append(rate)
        self.losses.append(loss)
        kept = SMOOTHING ** np.arange(len(self.losses))[::-1]
        self.smoothed.append(float(np.average(self.losses, weights=kept)))

    @property
    def has_diverged(self) -> bool:
        """Whether the smoothed loss has exceeded `DIVERGED` times its minimum or is not finite."""
        last = self.smoothed[-1]
        return not math.isfinite(last) or last > DIVERGED * min(self.smoothed)

    @property
    def proposed(self) -> float:
        """Learning rate at which the smoothed loss falls fastest, before its minimum.

        Slopes are fitted over a few steps; the first steps are ignored as too noisy.

        Raises:
            RuntimeError: If the loss never falls.
        """
        usable = self.smoothed[FEWEST:]
        end = FEWEST + int(np.argmin(usable)) + 1 if usable else 0
        places = range(FEWEST + HALF, min(end, len(self.smoothed) - HALF))
        slopes = {place: self._slope(place) for place in places}
        if min(slopes.values(), default=0.0) >= 0:
            raise RuntimeError("the loss does not fall at any learning rate: try --overfit_batch")
        return self.rates[min(slopes, key=slopes.get)]

    def _slope(self, place: int) -> float:
        """Returns the slope of a line fitted to the smoothed losses around a step."""
        around = self.smoothed[place - HALF : place + HALF + 1]
        return float(np.polyfit(range(-HALF, HALF + 1), around, 1)[0])


def find(setup: Setup) -> Curve:
    """Trains for up to `STEPS` steps with rising learning rates; saves nothing.

    All layers learn from the first step on, whatever `--head_epochs`.
    """
    recipe = dataclasses.replace(setup.recipe, head_epochs=0.0)
    setup = dataclasses.replace(setup, recipe=recipe)
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
    """Writes find_lr.csv and find_lr.png to the run folder (default: the working folder).

    Returns:
        A line with the proposed learning rate.

    Raises:
        RuntimeError: If the loss never falls.
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
