"""Scores and predictions of a network, on one device or several replicas."""

from collections.abc import Iterable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from engine import cluster
from engine.totals import SUMS, Totals, score


def predict(
    model: keras.Model,
    views: tf.Tensor,
    temperature: float = 1.0,
    weights: Sequence[float] | None = None,
) -> tf.Tensor:
    """Predicts images from several views each.

    Args:
        model: Network from float32 images in 0..255 to {"logits": [B, K]}.
        views: uint8 [B, V, S, S, 3].
        temperature: Divisor of the logits (C. Guo et al., arXiv:1706.04599, section 4.2).
        weights: Weights of the V views, whose sum is 1 (default: all the same).

    Returns:
        float32 [B, K]: log of the class probabilities averaged over the views.
    """
    count = views.shape[1]
    return averaged(outputs(model, views)["logits"], weights or [1 / count] * count, temperature)


def outputs(model: keras.Model, views: tf.Tensor) -> dict[str, tf.Tensor]:
    """Runs a model on all views, uint8 [B, V, S, S, 3]; returns its outputs, [B * V, ...]."""
    images = tf.cast(tf.reshape(views, [-1, *views.shape[2:]]), tf.float32)
    return model(images, training=False)


def averaged(logits: tf.Tensor, weights: Sequence[float], temperature: float = 1.0) -> tf.Tensor:
    """Averages the class probabilities over the views; returns their logs, float32 [B, K].

    Args:
        logits: float32 [B * V, K].
        weights: Weights of the V views, whose sum is 1.
        temperature: Divisor of the logits.
    """
    if temperature != 1:
        logits /= temperature
    by_view = tf.nn.log_softmax(tf.reshape(logits, [-1, len(weights), logits.shape[-1]]))
    return tf.reduce_logsumexp(by_view + tf.math.log(weights)[:, tf.newaxis], axis=1)


class Evaluator:
    """Scores a model on the strategy's replicas; every example counts exactly once."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: keras.Model,
        weights: Sequence[float] | None = None,
    ) -> None:
        """Prepares to score a model.

        Args:
            strategy: Strategy in whose scope the model was created.
            model: Network, as for `predict`.
            weights: Weights of the views, as for `predict`.
        """
        self._strategy = strategy
        self._model = model
        self._weights = weights
        self._evaluate = tf.function(self._evaluate_graph, autograph=False)
        self._predict = tf.function(self._predict_graph, autograph=False)

    def evaluate(self, batches: Iterable, confusion: np.ndarray | None = None) -> Totals:
        """Sums the scores over batches of (views [b, V, S, S, 3], labels [b], weights [b]).

        Args:
            batches: Data set with R batches per step, padded with examples of weight 0.
            confusion: int64 [K, K], rows: true classes, columns: predicted classes; the counts
                are added in place.
        """
        sums, local_confusion = (
            np.zeros(SUMS),
            None if confusion is None else np.zeros_like(confusion),
        )
        for batch in self._distributed(batches):
            scores, predicted = self._evaluate(*batch)
            sums += scores.numpy()
            if local_confusion is not None:
                labels, counts, predicted = self._gathered(batch[1], batch[2], predicted)
                np.add.at(local_confusion, (labels[counts > 0], predicted[counts > 0]), 1)
        if local_confusion is not None:
            confusion += cluster.summed(self._strategy, local_confusion)
        return Totals(*map(float, sums))

    def predictions(self, batches: Iterable) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Predicts every example, in order.

        Args:
            batches: Batches as for `evaluate`.

        Yields:
            Log probabilities, float32 [n, K], and labels, int32 [n].
        """
        for batch in self._distributed(batches):
            log_probabilities, labels, weights = self._gathered(self._predict(batch[0]), *batch[1:])
            yield log_probabilities[weights > 0], labels[weights > 0]

    def _distributed(self, batches: Iterable) -> Iterable:
        if self._strategy.num_replicas_in_sync == 1:
            return batches
        return self._strategy.distribute_datasets_from_function(lambda context: batches)

    def _gathered(self, *columns) -> list[np.ndarray]:
        """Concatenates the arrays of this worker's replicas."""
        return [
            np.concatenate([part.numpy() for part in self._strategy.experimental_local_results(c)])
            for c in columns
        ]

    def _evaluate_graph(self, views, labels, weights) -> tuple[tf.Tensor, tf.Tensor]:
        scores, predicted = self._strategy.run(self._replica_score, args=(views, labels, weights))
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, scores, axis=None), predicted

    def _replica_score(self, views, labels, weights) -> tuple[tf.Tensor, tf.Tensor]:
        log_probabilities = predict(self._model, views, weights=self._weights)
        return score(log_probabilities, labels, weights), tf.argmax(
            log_probabilities, axis=1, output_type=tf.int32
        )

    def _predict_graph(self, views) -> tf.Tensor:
        return self._strategy.run(
            lambda views: predict(self._model, views, weights=self._weights), args=(views,)
        )
