"""A moving average of a network's weights, which is tested and used in their place.

B. Polyak and A. Juditsky, SIAM J. Control Optim. 30 (1992); with the decay of a young average as in
TensorFlow's `ExponentialMovingAverage`.
"""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf


class Average:
    """The average of all weights of a model, batch statistics too.

    Attributes:
        variables: The averages, by the path of the weight.
    """

    def __init__(self, strategy: tf.distribute.Strategy, model: keras.Model, decay: float) -> None:
        """Starts at the weights as they are.

        Args:
            strategy: In whose scope the model was made.
            model: Its weights exist.
            decay: How much of the average a step keeps, in [0, 1).
        """
        self._strategy, self._model, self._decay = strategy, model, decay
        with strategy.scope():
            self.variables = {
                weight.path: keras.Variable(weight.numpy(), trainable=False, name="average")
                for weight in model.weights
            }

    def start(self) -> None:
        """Starts again, at the weights as they are."""
        for weight in self._model.weights:
            self.variables[weight.path].assign(weight.numpy())

    def update(self, steps: tf.Tensor) -> None:
        """Moves towards the weights, after so many optimizer updates; outside of replicas."""
        done = tf.cast(steps, tf.float32)
        decay = tf.minimum(self._decay, (1 + done) / (10 + done))

        def move(average: tf.Variable, weight: tf.Tensor) -> tf.Operation:
            return average.assign(weight + decay * (average - weight))

        for weight in self._model.weights:
            average = self.variables[weight.path].value
            self._strategy.extended.update(average, move, args=(weight.value,))

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Gives the model the average for a while."""
        trained = {weight.path: weight.numpy() for weight in self._model.weights}
        try:
            for weight in self._model.weights:
                weight.assign(self.variables[weight.path].numpy())
            yield
        finally:
            for weight in self._model.weights:
                weight.assign(trained[weight.path])
