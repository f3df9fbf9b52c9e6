"""The training step and the evaluation, for one device or several replicas alike.

An explicit loop: `model.fit` under `tf.distribute` breaks or is silently wrong in Keras 3.15
(clipping, dropout masks, uneven batches, several steps per call).
"""

import dataclasses
import zlib
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf

from engine import losses

# (images float32 [B, S, S, 3] in 0..255, step, replica) -> images
Colour = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]

MAX_STEPS = 64  # of one call
_SUMS = 4  # loss, top-1, top-5, examples


class NotFinite(RuntimeError):
    """The loss or the gradient is infinite or not a number; `step` is the update that failed."""

    def __init__(self, step: int, rate: float) -> None:
        """Names the step and its learning rate."""
        self.step = step
        super().__init__(
            f"the loss or its gradient is not finite at step {step}, learning rate {rate:g}"
        )


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


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a call of `Trainer.train` did.

    Attributes:
        totals: Over the training examples seen, with the weights of their own step.
        gradient_norm: Of the last step, all replicas' sum.
        waited: Seconds in which the step waited for its batch.
    """

    totals: Totals
    gradient_norm: float
    waited: float


def _score(log_probabilities: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Sums [4] of loss, top-1, top-5 and examples from [B, K], [B] and [B]."""

    def hits(k: int) -> tf.Tensor:
        k = min(k, log_probabilities.shape[-1])
        hit = tf.nn.in_top_k(labels, log_probabilities, k)
        return tf.reduce_sum(weights * tf.cast(hit, tf.float32))

    loss = losses.cross_entropy(log_probabilities, labels, weights)
    return tf.stack([loss, hits(1), hits(5), tf.reduce_sum(weights)])


def set_clock(model: keras.Model, seed: int, step: tf.Variable | keras.Variable) -> None:
    """Makes every random layer's draws a function of (seed, step, layer, replica).

    Keras keeps a hidden state per layer, which no checkpoint format saves and which is the same on
    every replica; this replaces it, so that a resumed run draws the masks of an uninterrupted one.

    Args:
        model: A built model with stock Keras layers (Dropout, ...).
        seed: The run's seed.
        step: Optimizer updates done.
    """
    for layer in model._flatten_layers():
        if hasattr(layer, "seed_generator"):
            key = zlib.crc32(f"{seed}/{layer.name}".encode())
            layer.seed_generator.next = lambda ordered=True, key=key: _draw(key, step)


def _draw(key: int, step: tf.Variable | keras.Variable) -> tf.Tensor:
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    odd = tf.constant(0x9E3779B9, tf.uint32)  # spreads neighbouring replicas over all bits
    mixed = tf.bitwise.bitwise_xor(tf.constant(key, tf.uint32), tf.cast(replica, tf.uint32) * odd)
    return tf.stack([mixed, tf.cast(tf.convert_to_tensor(step), tf.uint32)])


def predict(model: keras.Model, views: tf.Tensor) -> tf.Tensor:
    """Log probabilities of images seen through several views each.

    Args:
        model: Maps float32 images in 0..255 to {"logits": [B, K]}.
        views: uint8 [B, V, S, S, 3].

    Returns:
        float32 [B, K]: logarithms of the probabilities averaged over the views.
    """
    batch, count, *image = views.shape
    images = tf.cast(tf.reshape(views, [-1, *image]), tf.float32)
    logits = model(images, training=False)["logits"]
    by_view = tf.reshape(tf.nn.log_softmax(logits), [-1, count, logits.shape[-1]])
    return tf.reduce_logsumexp(by_view, axis=1) - tf.math.log(float(count))


class Trainer:
    """Runs optimizer updates of a model over its strategy's replicas."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        *,
        batch_size: int,
        weight_decay: float,
        seed: int,
        colour: Colour | None = None,
        aux_weight: float = 0.0,
    ) -> None:
        """Prepares the step; the optimizer is built and the random layers follow the clock.

        Args:
            strategy: In whose scope model and optimizer were made.
            model: Maps float32 images in 0..255 to {"logits": [B, K]}, and to the same of
                auxiliary heads under other names.
            optimizer: A Keras optimizer without decay or clipping of its own.
            batch_size: Global: examples of one update over all replicas.
            weight_decay: The papers' lambda (`losses.l2`).
            seed: Of the random layers.
            colour: The augmentation policy's colour part, or none.
            aux_weight: Of the loss of every auxiliary head.
        """
        self._strategy = strategy
        self._model = model
        self._optimizer = optimizer
        self._batch_size = batch_size
        self._weight_decay = weight_decay
        self._colour = colour
        self._aux_weight = aux_weight
        with strategy.scope():
            optimizer.build(model.trainable_variables)
        set_clock(model, seed, optimizer.iterations)
        self._train = tf.function(self._train_graph, autograph=False)

    @property
    def step(self) -> int:
        """Optimizer updates done."""
        return int(self._optimizer.iterations.numpy())

    def iterate(self, batches: tf.data.Dataset) -> Iterator:
        """Iterator over replica batches [B / replicas, ...], R of them to a step."""
        if self._strategy.num_replicas_in_sync == 1:
            return iter(self._strategy.experimental_distribute_dataset(batches))
        return iter(self._strategy.distribute_datasets_from_function(lambda context: batches))

    def train(self, iterator: Iterator, rates: list[float]) -> Progress:
        """Does one update per learning rate.

        Args:
            iterator: Of `iterate`.
            rates: The learning rates of the next steps, `MAX_STEPS` at most.

        Raises:
            NotFinite: If a loss or gradient is not finite; the weights are spoiled then.
        """
        step, count = self.step, len(rates)
        padded = tf.constant(
            rates + [0.0] * (MAX_STEPS - count), tf.float32
        )  # one shape, one trace
        done, finite, sums, norm, waited = self._train(iterator, padded, tf.constant(count))
        if not finite:
            raise NotFinite(step + int(done) - 1, rates[int(done) - 1])
        return Progress(Totals(*map(float, sums)), float(norm), float(waited))

    def _train_graph(
        self, iterator: Iterator, rates: tf.Tensor, count: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        def more(done, finite, *_):
            return finite & (done < count)

        def one(done, finite, sums, norm, waited):
            asked = tf.timestamp()
            with tf.control_dependencies([asked]):
                batch = next(iterator)
            local = [t for part in batch for t in self._strategy.experimental_local_results(part)]
            with tf.control_dependencies(local):
                waited += tf.timestamp() - asked
            results = self._strategy.run(self._replica_step, args=(*batch, rates[done]))
            scores, norm = (
                self._strategy.reduce(tf.distribute.ReduceOp.SUM, results[0], axis=None),
                self._strategy.experimental_local_results(results[1])[0],
            )
            finite = tf.math.is_finite(scores[0]) & tf.math.is_finite(norm)
            return done + 1, finite, sums + tf.cast(scores, tf.float64), norm, waited

        start = (0, True, tf.zeros(_SUMS, tf.float64), 0.0, tf.constant(0.0, tf.float64))
        return tf.while_loop(more, one, start, parallel_iterations=1)

    def _replica_step(
        self, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, rate: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One replica's share of an update; returns its scores [4] and the gradient's norm."""
        model, optimizer = self._model, self._optimizer
        context = tf.distribute.get_replica_context()
        replicas = self._strategy.num_replicas_in_sync
        images = tf.cast(images, tf.float32)
        if self._colour is not None:
            step = tf.cast(tf.convert_to_tensor(optimizer.iterations), tf.int64)
            images = self._colour(images, step, context.replica_id_in_sync_group)
        with tf.GradientTape() as tape:
            heads = model(images, training=True)
            logits = heads.pop("logits")
            loss = losses.cross_entropy(logits, labels, weights) / self._batch_size
            for auxiliary in heads.values():
                weight = self._aux_weight / self._batch_size
                loss += weight * losses.cross_entropy(auxiliary, labels, weights)
            if self._weight_decay:
                loss += losses.l2(model.trainable_variables, self._weight_decay) / replicas
        variables = model.trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        if replicas > 1:  # Keras' optimizer sums over the replicas again
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
            shares = [gradient / replicas for gradient in gradients]
        else:
            shares = gradients
        optimizer.learning_rate.assign(rate)
        optimizer.apply_gradients(zip(shares, variables, strict=True))
        return _score(tf.nn.log_softmax(logits), labels, weights), tf.linalg.global_norm(gradients)

    def weight_norm(self) -> float:
        """Euclidean norm of all trainable variables."""
        return float(tf.linalg.global_norm([v.value for v in self._model.trainable_variables]))


class Evaluator:
    """Scores a model over the strategy's replicas; every example counts once."""

    def __init__(self, strategy: tf.distribute.Strategy, model: keras.Model) -> None:
        """Takes a model made in the strategy's scope."""
        self._strategy = strategy
        self._model = model
        self._evaluate = tf.function(self._evaluate_graph, autograph=False)

    def evaluate(self, batches: Iterable) -> Totals:
        """Sums over replica batches of (views [b, V, S, S, 3], labels [b], weights [b]).

        Args:
            batches: A data set, R batches to a step, padded with examples of weight 0.
        """
        if self._strategy.num_replicas_in_sync > 1:
            batches = self._strategy.distribute_datasets_from_function(lambda context: batches)
        sums = np.zeros(_SUMS)
        for batch in batches:
            sums += self._evaluate(*batch).numpy()
        return Totals(*map(float, sums))

    def _evaluate_graph(self, views, labels, weights) -> tf.Tensor:
        scores = self._strategy.run(self._replica_score, args=(views, labels, weights))
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, scores, axis=None)

    def _replica_score(self, views, labels, weights) -> tf.Tensor:
        return _score(predict(self._model, views), labels, weights)
