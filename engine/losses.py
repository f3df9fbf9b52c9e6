"""Losses as sums over examples, so that replicas and micro batches add up exactly."""

import dataclasses
from collections.abc import Iterable, Sequence

import keras
import tensorflow as tf


def cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, smoothing: float = 0.0
) -> tf.Tensor:
    """Sums the cross entropies of the examples, with weights.

    Args:
        logits: float32 [B, K].
        labels: int32 [B], from 0.
        weights: float32 [B]; 0 excludes an example.
        smoothing: Fraction of each target spread evenly over all classes (C. Szegedy et al.,
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
    """Returns the weight decay of the papers: weight_decay / 2 times the sum of squared kernels.

    Biases and normalisation parameters (rank 1) are not decayed. The gradient, weight_decay * w,
    goes through the momentum, unlike the decoupled decay of Keras' optimizers. If a paper writes
    lambda / 2n for a set of n examples, weight_decay is lambda / n.

    Args:
        variables: Trainable variables.
        weight_decay: lambda of `w <- w - rate * (gradient + lambda * w)`.

    Returns:
        float32 scalar.
    """
    return weight_decay * sum(tf.nn.l2_loss(kernel) for kernel in _kernels(variables))


def l1(variables: Iterable[keras.Variable], strength: float) -> tf.Tensor:
    """Returns the L1 regularisation: `strength` times the sum of absolute values of all kernels.

    Biases and normalisation parameters (rank 1) are excluded. If a paper writes lambda / n for a
    set of n examples, strength is lambda / n.

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
    """Loss function of a training.

    Attributes:
        l2: Strength of the weight decay, see the function `l2`.
        l1: Strength of the L1 regularisation, see the function `l1`.
        smoothing: Label smoothing, in [0, 1).
        aux_weight: Weight of the loss of each auxiliary head.
        class_weights: Weight of the examples of each class (default: 1 for all).
    """

    l2: float = 0.0
    l1: float = 0.0
    smoothing: float = 0.0
    aux_weight: float = 0.0
    class_weights: Sequence[float] = ()

    def data_loss(
        self,
        heads: dict[str, tf.Tensor],
        targets: Iterable[tuple[tf.Tensor, tf.Tensor]],
    ) -> tf.Tensor:
        """Sums the losses of the examples over all heads and targets.

        Args:
            heads: Logits, float32 [B, K], by head; "logits" is the main one.
            targets: Pairs of labels, int32 [B], and their weights, float32 [B].

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

    def regularization(self, variables: Sequence[keras.Variable]) -> tf.Tensor:
        """Returns the regularisation terms added to the mean loss of a batch, float32 scalar."""
        total = tf.constant(0.0)
        if self.l2:
            total += l2(variables, self.l2)
        if self.l1:
            total += l1(variables, self.l1)
        return total
