"""Random layers, such as dropout, whose draws depend on the step instead of a hidden state."""

import keras
import tensorflow as tf

from runtime import randomness


class DropoutSeeds:
    """Makes each random layer's draws a function of (seed, step, layer, replica, micro batch).

    Keras keeps a hidden state per layer, which no checkpoint format saves and which is the same on
    all replicas. Replacing it lets a resumed run draw the same masks as an uninterrupted one.

    Attributes:
        part: Index of the current micro batch, int or integer [] (default: 0).
    """

    def __init__(self, model: keras.Model, seed: int, step: tf.Variable | keras.Variable) -> None:
        """Replaces the seed generators of a model.

        Args:
            model: Built model with standard Keras layers (Dropout, ...).
            seed: Seed of the run.
            step: Optimizer updates done.
        """
        self.part: int | tf.Tensor = 0
        self._step = step
        for layer in model._flatten_layers():
            if hasattr(layer, "seed_generator"):
                key = randomness.named_key(seed, layer.name)
                layer.seed_generator.next = lambda ordered=True, key=key: self._draw(key)

    def _draw(self, key: int) -> tf.Tensor:
        mixed = tf.constant(key, tf.uint32)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        # Multiplying by large odd constants spreads small integers over all bits.
        for number, multiplier in ((replica, 0x9E3779B9), (self.part, 0x85EBCA6B)):
            spread = tf.cast(number, tf.uint32) * tf.constant(multiplier, tf.uint32)
            mixed = tf.bitwise.bitwise_xor(mixed, spread)
        return tf.stack([mixed, tf.cast(tf.convert_to_tensor(self._step), tf.uint32)])
