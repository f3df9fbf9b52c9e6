"""Progress of a training: the values that a checkpoint stores besides the variables."""

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

ROLLBACK = 0.1  # factor of the learning rate after a rollback


@dataclasses.dataclass
class State:
    """Scores of the current epoch and the best accuracies so far.

    Attributes:
        epoch: Training scores of the current epoch.
        recent: Training scores since the last point of the curves.
        best_accuracy: Highest validation top-1 accuracy in [0, 1]; -1 before the first validation.
        best_of_epochs: Highest of the accuracies at the ends of epochs, which validations at other
            steps do not change.
        stale: Epochs since `best_of_epochs` was reached.
        slower: Factor of the scheduled learning rate, below 1 after a rollback.
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
        """Records a validation; returns whether its accuracy is the best so far.

        Args:
            accuracy: Top-1 accuracy in [0, 1]; -1 if there are no validation images.
            ends_epoch: Whether the step is the last of its epoch.
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
    """Validates, logs the scores and, at the end of an epoch, advances the plateau schedule.

    Args:
        setup: Objects of the training.
        log: Log that receives the scores.
        state: Progress of the training, updated in place.
        rate: Learning rate of the last step.

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
    """Writes a checkpoint in the background.

    Raises:
        NotFinite: If a value is not finite; no checkpoint is written.
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
    """Restores network, optimizer and schedule from a checkpoint; returns its state."""
    checkpoints.assign(setup.variables, checkpoint)
    setup.schedule.state = checkpoint.about["schedule"]
    return State.from_json(checkpoint.about["state"])


def rolled_back(setup: Setup, log: Log, state: State, error: NotFinite) -> State:
    """Goes back to the last checkpoint if `--on_nan=rollback`, at most once per training.

    Raises:
        NotFinite: If no rollback is allowed or there is no checkpoint.
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
