"""Scores summed over examples: loss, top-1, top-5."""

import dataclasses

import tensorflow as tf

from engine import losses

SUMS = 4  # loss, top-1, top-5, examples


@dataclasses.dataclass(frozen=True)
class Totals:
    """Sums over examples, which can be added over batches, replicas and interruptions.

    Attributes:
        loss: Sum of the cross entropies, in nats.
        top1: Number of examples whose label has the highest logit.
        top5: Number of examples whose label is among the five highest.
        examples: Number of examples.
    """

    loss: float = 0.0
    top1: float = 0.0
    top5: float = 0.0
    examples: float = 0.0

    def __add__(self, other: "Totals") -> "Totals":
        """Adds two totals."""
        left, right = dataclasses.astuple(self), dataclasses.astuple(other)
        return Totals(*(a + b for a, b in zip(left, right, strict=True)))

    @property
    def means(self) -> dict[str, float]:
        """Mean `loss` in nats, `top1_accuracy` and `top5_accuracy` in [0, 1]."""
        count = max(self.examples, 1)
        return {
            "loss": self.loss / count,
            "top1_accuracy": self.top1 / count,
            "top5_accuracy": self.top5 / count,
        }


def score(log_probabilities: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Sums the scores of a batch.

    Of classes that are equally likely, the first counts as the likelier, as in a prediction.

    Args:
        log_probabilities: float32 [B, K].
        labels: int32 [B], from 0.
        weights: float32 [B]; 0 excludes an example.

    Returns:
        float32 [4]: sums of loss, top-1, top-5 and examples.
    """
    is_finite = tf.math.is_finite(tf.gather(log_probabilities, labels, batch_dims=1))

    def hits(k: int) -> tf.Tensor:
        k = min(k, log_probabilities.shape[-1])
        best = tf.math.top_k(log_probabilities, k).indices
        hit = is_finite & tf.reduce_any(best == labels[:, tf.newaxis], axis=-1)
        return tf.reduce_sum(weights * tf.cast(hit, tf.float32))

    loss = losses.cross_entropy(log_probabilities, labels, weights)
    return tf.stack([loss, hits(1), hits(5), tf.reduce_sum(weights)])
