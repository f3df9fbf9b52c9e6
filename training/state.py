"""How far a training is: what a checkpoint keeps besides the variables."""

import contextlib
import dataclasses
from collections.abc import Mapping

import numpy as np

from engine import checkpoints
from engine.totals import Totals
from engine.trainer import NotFinite
from training.agreement import check_weights, wait_for_all
from training.build import Setup
from training.log import Log

ROLLBACK = 0.1  # times the learning rate, after the loss was not finite


@dataclasses.dataclass
class State:
    """Sums over the epoch so far, and the best accuracy.

    Attributes:
        epoch: Scores of the epoch's training steps.
        recent: Scores of the steps since the last point of the curves.
        best_accuracy: Highest validation top-1 accuracy; -1 before the first.
        best_of_epochs: The same at the ends of epochs only: stopping between does not change it.
        stale: Epochs since then.
        slower: Factor of the schedule's learning rates, below 1 after a rollback.
    """

    epoch: Totals = Totals()
    recent: Totals = Totals()
    best_accuracy: float = -1.0
    best_of_epochs: float = -1.0
    stale: int = 0
    slower: float = 1.0

    @classmethod
    def from_json(cls, values: Mapping) -> "State":
        """The inverse of `dataclasses.asdict`."""
        totals = {name: Totals(**values[name]) for name in ("epoch", "recent")}
        return cls(**{**values, **totals})

    def add(self, totals: Totals) -> None:
        """Adds the scores of training steps."""
        self.epoch += totals
        self.recent += totals

    def observe(self, accuracy: float, *, ends_epoch: bool) -> bool:
        """Takes note of a validation; returns whether it is the best so far.

        Args:
            accuracy: Top-1, a fraction; -1 where nothing was validated.
            ends_epoch: Whether the epoch ends here, too.
        """
        is_best = accuracy > self.best_accuracy
        self.best_accuracy = max(accuracy, self.best_accuracy)
        if ends_epoch:
            self.stale = 0 if accuracy > self.best_of_epochs else self.stale + 1
            self.best_of_epochs = max(accuracy, self.best_of_epochs)
            self.epoch = Totals()
        return is_best

    def gave_up(self, patience: int | None) -> bool:
        """Whether `--early_stopping` ends the training."""
        return 0 < (patience or 0) <= self.stale


def validate(setup: Setup, log: Log, state: State, rate: float) -> bool:
    """Validates, tells of the epoch, or of the part of it that was trained; moves the schedule.

    Args:
        setup: What the training works with.
        log: Is told.
        state: At the epoch's end its sums start anew.
        rate: The last step's learning rate.

    Returns:
        Whether the accuracy is the best so far.
    """
    step, train, validation = setup.trainer.step, state.epoch.means, {}
    if setup.validation is not None:
        log.confusion = np.zeros([setup.dataset.num_classes] * 2, np.int64)
        with setup.average.in_use() if setup.average else contextlib.nullcontext():
            validation = setup.evaluator.evaluate(setup.validation, log.confusion).means
    log.epoch(step, rate, train, validation)
    ends_epoch = step % setup.steps_per_epoch == 0
    if ends_epoch:
        setup.schedule.plateau.observe(1 - (validation or train)["top1_accuracy"])
        log.meter.reset()
    return state.observe(validation.get("top1_accuracy", -1.0), ends_epoch=ends_epoch)


def save(setup: Setup, log: Log, state: State, *, best: bool = False) -> None:
    """Writes a checkpoint while the training goes on.

    Raises:
        NotFinite: If a value is not finite; nothing is written then.
    """
    step = setup.trainer.step
    about = {
        "step": step,
        "flags": log.flags,
        "network": setup.network,
        "class_names": setup.dataset.class_names,
        "storage": setup.dataset.storage,
        "data_fingerprint": setup.dataset.fingerprint,
        "versions": checkpoints.versions(),
        "device": setup.device,
        "schedule": setup.schedule.state,
        "state": dataclasses.asdict(state),
    }
    tensors = checkpoints.values(setup.variables)
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise NotFinite(step - 1, state.slower * setup.schedule.rate(step - 1))
    log.save(tensors, about, best=best)


def restored(setup: Setup, checkpoint: checkpoints.Checkpoint) -> State:
    """Makes network, optimizer and schedule as they were at a checkpoint; returns the state."""
    checkpoints.assign(setup.variables, checkpoint)
    setup.schedule.state = checkpoint.about["schedule"]
    return State.from_json(checkpoint.about["state"])


def rolled_back(setup: Setup, log: Log, state: State, error: NotFinite) -> State:
    """Goes back to the last checkpoint, once, where `--on_nan` says so.

    Raises:
        NotFinite: If it does not, or there is no checkpoint.
    """
    log.saving.wait()
    wait_for_all(setup)
    once = setup.running.on_nan == "rollback" and state.slower == 1
    checkpoint = log.run.last(log.say) if once else None
    if checkpoint is None:
        raise error
    state = restored(setup, checkpoint)
    log.forget_after(setup.trainer.step)
    check_weights(setup, log.run.folder)
    state.slower = ROLLBACK
    log.say(
        f"warning: {error}; back to step {setup.trainer.step} "
        f"with {ROLLBACK:g} of the learning rate"
    )
    return state
