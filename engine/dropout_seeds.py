"""Random layers whose draws are functions of the step, not of a hidden state."""

import keras
import tensorflow as tf

from runtime import randomness


class DropoutSeeds:
    """Makes every random layer's draws a function of (seed, step, layer, replica, part).

    Keras keeps a hidden state per layer, which no checkpoint format saves and which is the same on
    every replica; this replaces it, so that a resumed run draws the masks of an uninterrupted one.

    Attributes:
        part: Of the batch that is being computed, int or integer []; 0 where it is not divided.
    """

    def __init__(self, model: keras.Model, seed: int, step: tf.Variable | keras.Variable) -> None:
        """Takes over the draws of a model.

        Args:
            model: A built model with stock Keras layers (Dropout, ...).
            seed: The run's seed.
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
        # Odd numbers, which spread neighbours over all bits.
        for number, odd in ((replica, 0x9E3779B9), (self.part, 0x85EBCA6B)):
            spread = tf.cast(number, tf.uint32) * tf.constant(odd, tf.uint32)
            mixed = tf.bitwise.bitwise_xor(mixed, spread)
        return tf.stack([mixed, tf.cast(tf.convert_to_tensor(self._step), tf.uint32)])
