"""Averages of a network's weights over the steps: one for inference, and one to train on from.

`Average`: B. Polyak and A. Juditsky, SIAM J. Control Optim. 30 (1992). In the first steps the decay
is smaller, as in TensorFlow's `ExponentialMovingAverage`.

`Lookahead`: M. Zhang et al., arXiv:1907.08610, with the strength that rises over the training of
K. Jordan, arXiv:2404.00498, section 3.4.
"""

import contextlib
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf


class _Copies:
    """A copy of all weights of a model, including batch statistics.

    Attributes:
        variables: Copies by path of the weight.
    """

    def __init__(self, strategy: tf.distribute.Strategy, model: keras.Model) -> None:
        """Starts at the current weights.

        Args:
            strategy: Strategy in whose scope the model was created.
            model: Built model.
        """
        self._strategy, self._model = strategy, model
        with strategy.scope():
            self.variables = {
                weight.path: keras.Variable(weight.numpy(), trainable=False, name="average")
                for weight in model.weights
            }

    def start(self) -> None:
        """Restarts at the current weights."""
        for weight in self._model.weights:
            self.variables[weight.path].assign(weight.numpy())

    def _replace(self, new: Callable[[tf.Variable, tf.Tensor], tf.Tensor]) -> None:
        """Sets each copy to a function of itself and of its weight."""

        def move(copy: tf.Variable, weight: tf.Tensor) -> tf.Operation:
            return copy.assign(new(copy, weight))

        for weight in self._model.weights:
            copy = self.variables[weight.path].value
            self._strategy.extended.update(copy, move, args=(weight.value,))


class Average(_Copies):
    """Moving average of all weights of a model, used instead of them for inference."""

    def __init__(self, strategy: tf.distribute.Strategy, model: keras.Model, decay: float) -> None:
        """Starts at the current weights.

        Args:
            strategy: Strategy in whose scope the model was created.
            model: Built model.
            decay: Fraction of the average that a step keeps, in [0, 1).
        """
        super().__init__(strategy, model)
        self._decay = decay

    def update(self, steps: tf.Tensor) -> None:
        """Moves the average towards the weights; call it outside the replica context.

        Args:
            steps: Optimizer updates done, integer [].
        """
        done = tf.cast(steps, tf.float32)
        decay = tf.minimum(self._decay, (1 + done) / (10 + done))
        self._replace(lambda average, weight: weight + decay * (average - weight))

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Sets the model's weights to the average for the duration of a `with` block."""
        trained = {weight.path: weight.numpy() for weight in self._model.weights}
        try:
            for weight in self._model.weights:
                weight.assign(self.variables[weight.path].numpy())
            yield
        finally:
            for weight in self._model.weights:
                weight.assign(trained[weight.path])


class Lookahead(_Copies):
    """Slow weights, to which the network returns every few steps.

    Every k steps the slow weights move to the network's, except for a fraction
    `0.95 ** k * (step / total) ** 3` of the way, and the network goes on from there. In the last of
    all steps, which early stopping does not reach, it goes back to the slow weights in any case.
    """

    def __init__(
        self, strategy: tf.distribute.Strategy, model: keras.Model, period: int, total_steps: int
    ) -> None:
        """Starts at the current weights.

        Args:
            strategy: Strategy in whose scope the model was created.
            model: Built model.
            period: Number of steps k between two returns.
            total_steps: Optimizer updates in the whole training.
        """
        super().__init__(strategy, model)
        self._period, self._total = period, total_steps

    def update(self, steps: tf.Tensor) -> None:
        """Returns to the slow weights if it is time; call it outside the replica context.

        Args:
            steps: Optimizer updates done, integer [].
        """
        steps = tf.cast(steps, tf.int64)
        is_due = steps % self._period == 0
        progress = tf.cast(steps / self._total, tf.float32)
        keep = 0.95**self._period * progress**3
        self._replace(lambda slow, weight: tf.where(is_due, weight + keep * (slow - weight), slow))
        returns = is_due | (steps == self._total)

        def go_back(weight: tf.Variable, slow: tf.Tensor) -> tf.Operation:
            return weight.assign(tf.where(returns, slow, weight))

        for weight in self._model.weights:
            slow = self.variables[weight.path].value
            self._strategy.extended.update(weight.value, go_back, args=(slow,))
