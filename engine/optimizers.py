"""Optimizers by name: a row is a default learning rate and how to build it."""

from collections.abc import Callable
from typing import NamedTuple

import keras


class Row(NamedTuple):
    """A default learning rate, and `(learning_rate, momentum) -> optimizer`."""

    learning_rate: float
    build: Callable[[float, float], keras.optimizers.Optimizer]


OPTIMIZERS = {
    "momentum": Row(0.01, lambda rate, momentum: keras.optimizers.SGD(rate, momentum)),
    "nesterov": Row(0.01, lambda rate, momentum: keras.optimizers.SGD(rate, momentum, True)),
    "adam": Row(1e-3, lambda rate, momentum: keras.optimizers.Adam(rate, beta_1=momentum)),
}


def build(name: str, learning_rate: float, momentum: float) -> keras.optimizers.Optimizer:
    """Builds an optimizer without weight decay of its own: the papers' L2 is a loss term.

    Args:
        name: A key of `OPTIMIZERS`.
        learning_rate: The first step's; the training step sets it from the schedule.
        momentum: Of the gradient's running mean; Adam's beta 1.
    """
    return OPTIMIZERS[name].build(learning_rate, momentum)
