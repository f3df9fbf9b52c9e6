"""Sums of scores over examples: loss, top-1, top-5."""

import dataclasses

import tensorflow as tf

from engine import losses

SUMS = 4  # loss, top-1, top-5, examples


@dataclasses.dataclass(frozen=True)
class Totals:
    """Sums over examples, which add up over batches, replicas and interruptions.

    Attributes:
        loss: Cross entropies, in nats.
        top1: Examples whose label has the highest logit.
        top5: Examples whose label is among the five highest.
        examples: How many.
    """

    loss: float = 0.0
    top1: float = 0.0
    top5: float = 0.0
    examples: float = 0.0

    def __add__(self, other: "Totals") -> "Totals":
        """Sums both."""
        mine, others = dataclasses.astuple(self), dataclasses.astuple(other)
        return Totals(*(a + b for a, b in zip(mine, others, strict=True)))

    @property
    def means(self) -> dict[str, float]:
        """`loss` in nats, `top1_accuracy` and `top5_accuracy` as fractions."""
        count = max(self.examples, 1)
        return {
            "loss": self.loss / count,
            "top1_accuracy": self.top1 / count,
            "top5_accuracy": self.top5 / count,
        }


def score(log_probabilities: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Sums [4] of loss, top-1, top-5 and examples from [B, K], [B] and [B]."""

    def hits(k: int) -> tf.Tensor:
        k = min(k, log_probabilities.shape[-1])
        hit = tf.nn.in_top_k(labels, log_probabilities, k)
        return tf.reduce_sum(weights * tf.cast(hit, tf.float32))

    loss = losses.cross_entropy(log_probabilities, labels, weights)
    return tf.stack([loss, hits(1), hits(5), tf.reduce_sum(weights)])
