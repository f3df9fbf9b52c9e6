"""Exponential moving average of a network's weights, used instead of them for inference.

B. Polyak and A. Juditsky, SIAM J. Control Optim. 30 (1992). In the first steps the decay is
smaller, as in TensorFlow's `ExponentialMovingAverage`.
"""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf


class Average:
    """Moving average of all weights of a model, including batch statistics.

    Attributes:
        variables: Averages by path of the weight.
    """

    def __init__(self, strategy: tf.distribute.Strategy, model: keras.Model, decay: float) -> None:
        """Starts at the current weights.

        Args:
            strategy: Strategy in whose scope the model was created.
            model: Built model.
            decay: Fraction of the average that a step keeps, in [0, 1).
        """
        self._strategy, self._model, self._decay = strategy, model, decay
        with strategy.scope():
            self.variables = {
                weight.path: keras.Variable(weight.numpy(), trainable=False, name="average")
                for weight in model.weights
            }

    def start(self) -> None:
        """Restarts at the current weights."""
        for weight in self._model.weights:
            self.variables[weight.path].assign(weight.numpy())

    def update(self, steps: tf.Tensor) -> None:
        """Moves the average towards the weights; call it outside the replica context.

        Args:
            steps: Optimizer updates done, integer [].
        """
        done = tf.cast(steps, tf.float32)
        decay = tf.minimum(self._decay, (1 + done) / (10 + done))

        def move(average: tf.Variable, weight: tf.Tensor) -> tf.Operation:
            return average.assign(weight + decay * (average - weight))

        for weight in self._model.weights:
            average = self.variables[weight.path].value
            self._strategy.extended.update(average, move, args=(weight.value,))

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
