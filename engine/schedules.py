"""Learning-rate schedules: functions of the step, and of the validation error for `plateau`."""

import dataclasses
import math

import numpy as np

_PEAK = 0.3  # one_cycle: fraction of the training at which the rate peaks
_FIRST, _LAST = 1 / 25, 1e-5  # one_cycle: first and last rate as fractions of the base rate
_TRIANGLE = ((0.0, 0.23, 1.0), (0.2, 1.0, 0.07))  # triangle: parts of the training, of the rate


@dataclasses.dataclass
class Plateau:
    """Divides the rate when the error stops improving (Krizhevsky et al. 2012, section 5).

    The paper's authors did this by hand; here `patience` epochs without a new best trigger it.

    Attributes:
        patience: Epochs without improvement before a division.
        best: Lowest error so far, in [0, 1].
        waited: Epochs since the lowest error or the last division.
        divisions: Number of divisions so far.
    """

    patience: int = 5
    best: float = math.inf
    waited: int = 0
    divisions: int = 0

    def observe(self, error: float) -> None:
        """Records the error of a finished epoch."""
        if error < self.best:
            self.best, self.waited = error, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.waited, self.divisions = 0, self.divisions + 1


def _constant(schedule: "Schedule", progress: float) -> float:
    return 1.0


def _plateau(schedule: "Schedule", progress: float) -> float:
    return schedule.decay**schedule.plateau.divisions


def _step(schedule: "Schedule", progress: float) -> float:
    return schedule.decay ** sum(progress >= milestone for milestone in schedule.milestones)


def _exponential(schedule: "Schedule", progress: float) -> float:
    """Decays by the factor `decay` every `decay_steps`, continuously."""
    steps = progress * (schedule.total_steps - schedule.warmup_steps)
    return schedule.decay ** (steps / schedule.decay_steps)


def _polynomial(schedule: "Schedule", progress: float) -> float:
    return (1 - progress) ** schedule.power


def _cosine(schedule: "Schedule", progress: float) -> float:
    """Decays along half a cosine (I. Loshchilov and F. Hutter, arXiv:1608.03983), once."""
    return (1 + math.cos(math.pi * progress)) / 2


def _one_cycle(schedule: "Schedule", progress: float) -> float:
    """Rises to the base rate, then falls to nearly 0 (L. Smith, arXiv:1708.07120).

    Both phases are cosines; the momentum is constant. A warm-up replaces the first phase.
    """
    if schedule.warmup_steps:
        return _LAST + (1 - _LAST) * _cosine(schedule, progress)
    if progress < _PEAK:
        return _FIRST + (1 - _FIRST) * (1 - _cosine(schedule, progress / _PEAK))
    return _LAST + (1 - _LAST) * _cosine(schedule, (progress - _PEAK) / (1 - _PEAK))


def _triangle(schedule: "Schedule", progress: float) -> float:
    """Rises and falls linearly (K. Jordan, arXiv:2404.00498). A warm-up replaces the rise."""
    times, rates = _TRIANGLE
    if schedule.warmup_steps:
        return float(np.interp(progress, (0, 1), rates[1:]))
    return float(np.interp(progress, times, rates))


SCHEDULES = {
    "plateau": _plateau,
    "step": _step,
    "exponential": _exponential,
    "polynomial": _polynomial,
    "cosine": _cosine,
    "one_cycle": _one_cycle,
    "triangle": _triangle,
    "constant": _constant,
}
_AFTER_WARMUP = {
    "exponential",
    "polynomial",
    "cosine",
    "one_cycle",
    "triangle",
}  # schedules that start at the end of the warm-up


@dataclasses.dataclass
class Schedule:
    """The learning rate of every step.

    Attributes:
        name: A key of `SCHEDULES`.
        base: Learning rate after the warm-up, before any decay.
        total_steps: Optimizer updates in the whole training.
        warmup_steps: Steps in which the rate rises linearly from base / warmup_steps to base.
        milestones: Fractions of the training in [0, 1] at which `step` decays.
        decay: Factor of one decay of `step`, `plateau` and `exponential`.
        decay_steps: Steps in which `exponential` decays by the factor `decay`.
        power: Exponent of `polynomial`.
        plateau: State of `plateau`.
    """

    name: str
    base: float
    total_steps: int
    warmup_steps: int = 0
    milestones: tuple[float, ...] = (0.5, 0.75)
    decay: float = 0.1
    decay_steps: float = 1.0
    power: float = 1.0
    plateau: Plateau = dataclasses.field(default_factory=Plateau)

    def rate(self, step: int) -> float:
        """Returns the learning rate of the update from `step` to `step` + 1."""
        if step < self.warmup_steps:
            return self.base * (step + 1) / self.warmup_steps
        start = self.warmup_steps if self.name in _AFTER_WARMUP else 0
        progress = (step - start) / max(1, self.total_steps - start)
        return self.base * SCHEDULES[self.name](self, progress)

    @property
    def state(self) -> dict:
        """State to store in a checkpoint, as JSON values."""
        return dataclasses.asdict(self.plateau)

    @state.setter
    def state(self, state: dict) -> None:
        self.plateau = Plateau(**state)
