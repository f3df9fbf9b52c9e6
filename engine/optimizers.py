"""Optimizers by name: the classes of Keras and their settings."""

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import keras


class Row(NamedTuple):
    """An optimizer of the table.

    Attributes:
        learning_rate: Default learning rate.
        build: Function `(learning_rate, momentum, weight_decay) -> optimizer`.
        decoupled: Whether the optimizer applies weight decay itself, apart from the gradient, as
            in its paper; otherwise weight decay is a term of the loss.
    """

    learning_rate: float
    build: Callable[[float, float, float], keras.optimizers.Optimizer]
    decoupled: bool = False


_MOMENTUM = ("momentum", "beta_1")  # Keras' names for the decay of the gradients' running mean
# arXiv:1711.05101, 1904.00962, 2302.06675, and K. Jordan's Muon.
_DECOUPLED = {"adamw", "lamb", "lion", "muon"}
# Wrappers of other optimizers, one with an evaluation mode, and SGD, which is "momentum" here.
_EXCLUDED = {"lossscaleoptimizer", "multioptimizer", "schedulefreeadamw", "sgd"}


def _sgd(learning_rate, momentum, weight_decay, nesterov=False):
    return keras.optimizers.SGD(learning_rate, momentum, nesterov)


def _row(optimizer: type[keras.optimizers.Optimizer]) -> Row:
    """Builds the row of a Keras class."""
    known = inspect.signature(optimizer).parameters
    decoupled = optimizer.__name__.lower() in _DECOUPLED

    def build(learning_rate, momentum, weight_decay):
        options = {name: momentum for name in _MOMENTUM if name in known}
        if decoupled:  # adam_weight_decay: for the variables that Muon leaves to Adam
            decays = ("weight_decay", "adam_weight_decay")
            options |= {name: weight_decay for name in decays if name in known}
        return optimizer(learning_rate, **options)

    return Row(known["learning_rate"].default, build, decoupled)


def _keras_optimizers() -> dict[str, Row]:
    classes = {
        name.lower(): optimizer
        for name, optimizer in vars(keras.optimizers).items()
        if inspect.isclass(optimizer) and issubclass(optimizer, keras.optimizers.Optimizer)
    }
    return {name: _row(classes[name]) for name in sorted(set(classes) - _EXCLUDED - {"optimizer"})}


OPTIMIZERS = {
    "momentum": Row(0.01, _sgd),
    "nesterov": Row(0.01, functools.partial(_sgd, nesterov=True)),
    **_keras_optimizers(),
}


def build(
    name: str, learning_rate: float, momentum: float, weight_decay: float = 0.0
) -> keras.optimizers.Optimizer:
    """Builds an optimizer.

    Args:
        name: A key of `OPTIMIZERS`.
        learning_rate: Initial learning rate; the training step sets it from the schedule.
        momentum: Decay of the running mean of gradients, such as Adam's beta 1.
        weight_decay: Decoupled weight decay; ignored unless `Row.decoupled` (default: 0).
    """
    return OPTIMIZERS[name].build(learning_rate, momentum, weight_decay)
