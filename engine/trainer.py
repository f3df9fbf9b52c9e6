"""The training step, on one device or several replicas.

The loop is explicit because `model.fit` under `tf.distribute` fails or is silently wrong in Keras
3.15 (clipping, dropout masks, uneven batches, several steps per call).
"""

import dataclasses
import time
from collections.abc import Iterator

import keras
import tensorflow as tf

from engine import devices
from engine.gradients import Gradients
from engine.totals import SUMS, Totals
from engine.updates import Update

MAX_STEPS = 64  # steps per call of `Trainer.train`


class NotFinite(RuntimeError):
    """Raised if the loss or gradient is infinite or NaN; `step` is the failed update."""

    def __init__(self, step: int, rate: float) -> None:
        """Takes the failed step and its learning rate."""
        self.step = step
        super().__init__(
            f"the loss or its gradient is not finite at step {step}, learning rate {rate:g}"
        )


@dataclasses.dataclass(frozen=True)
class Progress:
    """Result of a call of `Trainer.train`.

    Attributes:
        totals: Scores of the training examples, each computed before its step's update.
        gradient_norm: Norm of the last step's gradient, which is summed over all replicas.
        waited: Seconds spent waiting for batches.
    """

    totals: Totals
    gradient_norm: float
    waited: float


class Trainer:
    """Runs training steps on a strategy's replicas, several per call."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: keras.Model,
        gradients: Gradients,
        update: Update,
    ) -> None:
        """Prepares the loop over the steps.

        Args:
            strategy: Strategy in whose scope the model was created.
            model: Network to train.
            gradients: Computes each replica's gradients of a batch.
            update: Updates the weights by them.
        """
        self._strategy = strategy
        self._model = model
        self._gradients = gradients
        self._update = update
        self._train = tf.function(self._train_graph, autograph=False)

    @property
    def step(self) -> int:
        """Optimizer updates done."""
        return int(self._update.optimizer.iterations.numpy())

    def iterate(self, batches: tf.data.Dataset) -> Iterator:
        """Returns an iterator over batches [B / R, ...], one for each of R replicas per step."""
        if self._strategy.num_replicas_in_sync == 1:
            return iter(devices.prefetched(batches))
        return iter(self._strategy.distribute_datasets_from_function(lambda context: batches))

    def train(self, iterator: Iterator, rates: list[float]) -> Progress:
        """Runs one update per learning rate.

        Args:
            iterator: Iterator from `iterate`.
            rates: Learning rates of the next steps, at most `MAX_STEPS`.

        Raises:
            NotFinite: If a loss or gradient is not finite; the weights are then unusable.
            ResourceExhaustedError: If the device has too little memory for a step.
        """
        step, count = self.step, len(rates)
        padded = tf.constant(
            rates + [0.0] * (MAX_STEPS - count), tf.float32
        )  # padded to one shape, so that the graph is traced once
        try:
            results = self._train(iterator, padded, tf.constant(count))
        except tf.errors.ResourceExhaustedError as error:
            raise tf.errors.ResourceExhaustedError(
                error.node_def,
                error.op,
                f"the device has too little memory for {self._gradients.extent}: "
                "try --micro_batch=auto, or a smaller --batch_size",
            ) from error
        done, before, last, sums, norm, waited = results
        if not (before and last):
            failed = int(done) - (1 if before else 2)
            raise NotFinite(step + failed, rates[failed])
        return Progress(Totals(*map(float, sums)), float(norm), float(waited))

    def fits(self) -> bool:
        """Whether a step fits in memory; runs one and restores all variables."""
        model = self._model
        kept = [*model.weights, *self._update.optimizer.variables]
        before = [variable.numpy() for variable in kept]
        share = self._gradients.batch_size // self._strategy.num_replicas_in_sync
        images = tf.zeros([share, *model.input_shape[1:]], tf.uint8)
        batch = (images, tf.zeros([share], tf.int32), tf.ones([share]))
        try:
            self.train(self.iterate(tf.data.Dataset.from_tensors(batch).repeat()), [0.0])
        except tf.errors.ResourceExhaustedError:
            return False
        except NotFinite:
            pass  # can happen on black images; only memory matters here
        finally:
            for variable, value in zip(kept, before, strict=True):
                variable.assign(value)
            self._update.restart_averages()
        return True

    def _train_graph(
        self, iterator: Iterator, rates: tf.Tensor, count: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        def one(step, before, last, sums, norm, waited):
            asked = _now()
            with tf.control_dependencies([asked]):
                batch = next(iterator)
            local = [t for part in batch for t in self._strategy.experimental_local_results(part)]
            with tf.control_dependencies(local):
                waited += _now() - asked
            scores, *gradients = self._strategy.run(self._gradients, args=batch)
            scores = self._strategy.reduce(tf.distribute.ReduceOp.SUM, scores, axis=None)
            norm = self._update(gradients, rates[step])
            finite = tf.math.is_finite(scores[0]) & tf.math.is_finite(norm)
            return step + 1, last, finite, sums + tf.cast(scores, tf.float64), norm, waited

        # The condition waits for the step before the last, so that a GPU always has its next step.
        # With more in line, TensorFlow would copy the next batch only after all of them.
        start = (0, True, True, tf.zeros(SUMS, tf.float64), 0.0, tf.constant(0.0, tf.float64))
        more = lambda step, before, *_: before & (step < count)  # noqa: E731
        return tf.while_loop(more, one, start, parallel_iterations=1)

    def weight_norm(self) -> float:
        """Returns the Euclidean norm of all trainable variables."""
        return float(tf.linalg.global_norm([v.value for v in self._model.trainable_variables]))


def _now() -> tf.Tensor:
    """The time in seconds, float64 []; deterministic kernels exclude `tf.timestamp`."""
    return tf.ensure_shape(tf.numpy_function(time.perf_counter, [], tf.float64), [])
