"""Losses as sums, so that replicas and partial batches add up exactly."""

import dataclasses
from collections.abc import Iterable, Sequence

import keras
import tensorflow as tf


def cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, smoothing: float = 0.0
) -> tf.Tensor:
    """Weighted sum of the examples' cross entropies.

    Args:
        logits: float32 [B, K].
        labels: int32 [B], from 0.
        weights: float32 [B]; 0 leaves an example out.
        smoothing: Part of the target that is spread over all classes evenly (C. Szegedy et al.,
            arXiv:1512.00567, section 7).

    Returns:
        float32 scalar, in nats.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    if smoothing:
        uniform = tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_mean(logits, axis=-1)
        losses = (1 - smoothing) * losses + smoothing * uniform
    return tf.reduce_sum(losses * weights)


def l2(variables: Iterable[keras.Variable], weight_decay: float) -> tf.Tensor:
    """The papers' weight decay: weight_decay / 2 times the sum of squares of all kernels.

    Biases and normalisation parameters (rank 1) are not decayed. Its gradient, weight_decay * w,
    goes through the momentum, unlike the decoupled decay of Keras' optimizers. Where a paper
    writes lambda / 2n, over a set of n examples, weight_decay is lambda / n.

    Args:
        variables: Trainable variables.
        weight_decay: lambda of `w <- w - rate * (gradient + lambda * w)`.

    Returns:
        float32 scalar.
    """
    return weight_decay * sum(tf.nn.l2_loss(kernel) for kernel in _kernels(variables))


def l1(variables: Iterable[keras.Variable], strength: float) -> tf.Tensor:
    """Weighs the sum of the absolute values of all kernels with `strength`; rank 1 is left alone.

    Where a paper writes lambda / n, over a set of n examples, that is the strength.

    Args:
        variables: Trainable variables.
        strength: lambda of `w <- w - rate * (gradient + lambda * sign(w))`.

    Returns:
        float32 scalar.
    """
    return strength * sum(tf.reduce_sum(tf.abs(kernel)) for kernel in _kernels(variables))


def _kernels(variables):
    return [variable.value for variable in variables if len(variable.shape) > 1]


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a training makes small.

    Attributes:
        l2: Of the kernels, see `l2`.
        l1: Of the kernels, see `l1`.
        smoothing: Of the labels, in [0, 1).
        aux_weight: Of the loss of every auxiliary head.
        class_weights: Of the examples of each class; empty: all 1.
    """

    l2: float = 0.0
    l1: float = 0.0
    smoothing: float = 0.0
    aux_weight: float = 0.0
    class_weights: Sequence[float] = ()

    def of_examples(
        self,
        heads: dict[str, tf.Tensor],
        targets: Iterable[tuple[tf.Tensor, tf.Tensor]],
    ) -> tf.Tensor:
        """The sum over examples of what is made small.

        Args:
            heads: float32 [B, K] by name: "logits", and those of auxiliary heads.
            targets: Labels, int32 [B], and how much of each example they are, float32 [B].

        Returns:
            float32 scalar.
        """
        total = 0.0
        for labels, weights in targets:
            if self.class_weights:
                weights *= tf.gather(tf.constant(self.class_weights, tf.float32), labels)
            for name, logits in heads.items():
                loss = cross_entropy(logits, labels, weights, self.smoothing)
                total += loss if name == "logits" else self.aux_weight * loss
        return total

    def of_weights(self, variables: Sequence[keras.Variable]) -> tf.Tensor:
        """What the kernels of a network add to the mean loss of a batch; float32 scalar."""
        total = tf.constant(0.0)
        if self.l2:
            total += l2(variables, self.l2)
        if self.l1:
            total += l1(variables, self.l1)
        return total
