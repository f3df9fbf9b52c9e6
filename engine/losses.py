"""Losses as sums, so that replicas and partial batches add up exactly."""

from collections.abc import Iterable

import keras
import tensorflow as tf


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Weighted sum of the examples' cross entropies.

    Args:
        logits: float32 [B, K].
        labels: int32 [B], from 0.
        weights: float32 [B]; 0 leaves an example out.

    Returns:
        float32 scalar, in nats.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return tf.reduce_sum(losses * weights)


def l2(variables: Iterable[keras.Variable], weight_decay: float) -> tf.Tensor:
    """The papers' weight decay: weight_decay / 2 times the sum of squares of all kernels.

    Biases and normalisation parameters (rank 1) are not decayed. Its gradient, weight_decay * w,
    goes through the momentum, unlike the decoupled decay of Keras' optimizers.

    Args:
        variables: Trainable variables.
        weight_decay: lambda of `w <- w - rate * (gradient + lambda * w)`.

    Returns:
        float32 scalar.
    """
    kernels = [variable.value for variable in variables if len(variable.shape) > 1]
    return weight_decay * tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
