"""Learning rates: a function of the step, and of the validation errors for `plateau`."""

import dataclasses
import math


@dataclasses.dataclass
class Plateau:
    """Divides the rate when the error stops improving (Krizhevsky et al. 2012, section 5).

    The paper's authors did it by hand; here: after `patience` epochs without a new best.

    Attributes:
        patience: Epochs without improvement before a division.
        best: Lowest error so far, a fraction in [0, 1].
        waited: Epochs since it was reached or since the last division.
        divisions: How often the rate was divided.
    """

    patience: int = 5
    best: float = math.inf
    waited: int = 0
    divisions: int = 0

    def observe(self, error: float) -> None:
        """Takes in the error of one finished epoch."""
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


def _cosine(schedule: "Schedule", progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


SCHEDULES = {"plateau": _plateau, "step": _step, "cosine": _cosine, "constant": _constant}


@dataclasses.dataclass
class Schedule:
    """The learning rate of every step.

    Attributes:
        name: A key of `SCHEDULES`.
        base: The rate before any decay, after the warm-up.
        total_steps: Optimizer updates of the whole training.
        warmup_steps: Steps of a linear rise from base / warmup_steps to base.
        milestones: Fractions of the training in [0, 1] at which `step` decays.
        decay: Factor of one decay, of `step` and `plateau`.
        plateau: State of `plateau`.
    """

    name: str
    base: float
    total_steps: int
    warmup_steps: int = 0
    milestones: tuple[float, ...] = (0.5, 0.75)
    decay: float = 0.1
    plateau: Plateau = dataclasses.field(default_factory=Plateau)

    def rate(self, step: int) -> float:
        """Learning rate of the update from `step` to `step` + 1."""
        if step < self.warmup_steps:
            return self.base * (step + 1) / self.warmup_steps
        start = self.warmup_steps if self.name == "cosine" else 0
        progress = (step - start) / max(1, self.total_steps - start)
        return self.base * SCHEDULES[self.name](self, progress)

    @property
    def state(self) -> dict:
        """What a checkpoint must hold, as JSON values."""
        return dataclasses.asdict(self.plateau)

    @state.setter
    def state(self, state: dict) -> None:
        self.plateau = Plateau(**state)
