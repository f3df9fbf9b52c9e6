"""The training step, on one device or several replicas.

The loop is explicit because `model.fit` under `tf.distribute` fails or is silently wrong in Keras
3.15 (clipping, dropout masks, uneven batches, several steps per call).
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf

from engine import averages, devices, losses, mixing
from engine.dropout_seeds import DropoutSeeds
from engine.totals import SUMS, Totals, score

# (images float32 [b, S, S, 3] in 0..255, step, indices in the global batch [b]) -> images
Colour = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]

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


def micro_batches(
    batch_size: int, micro_batch: int | None, replicas: int, *, pairs: bool = False
) -> np.ndarray:
    """Divides a replica's share of the batch into micro batches.

    Examples are dealt in turn, so that a micro batch holds the same examples of the global batch
    for any number of replicas.

    Args:
        batch_size: Examples per update, over all replicas.
        micro_batch: Examples computed at a time, over all replicas; None for the whole batch.
        replicas: Number of replicas.
        pairs: Whether neighbours stay together, as mixing requires.

    Returns:
        int32 [parts, examples]: indices into the replica's share.

    Raises:
        ValueError: If the batch does not divide evenly.
    """
    size, together = micro_batch or batch_size, 2 if pairs else 1
    if batch_size % size or size % (together * replicas):
        divisor = f"a divisor of {batch_size} and " if size != batch_size else ""
        raise ValueError(
            f"--{'micro_batch' if micro_batch else 'batch_size'} expects {divisor}a multiple of "
            f"{together * replicas}, received {size}"
        )
    count = batch_size // size
    turns = np.arange(batch_size // replicas, dtype=np.int32).reshape([-1, count, together])
    return turns.transpose([1, 0, 2]).reshape([count, -1])


def _build(
    optimizer: keras.optimizers.Optimizer,
    variables: list[keras.Variable],
    strategy: tf.distribute.Strategy,
) -> None:
    """Creates the optimizer's variables and restricts its weight decay to kernels."""
    if optimizer.weight_decay is not None:
        optimizer.exclude_from_weight_decay([v for v in variables if len(v.shape) < 2])
    # Keras has no public switch for this: clipping needs the summed gradients before the update.
    optimizer._all_reduce_sum_gradients = lambda summed: summed
    with strategy.scope():
        optimizer.build(variables)


def _now() -> tf.Tensor:
    """The time in seconds, float64 []; deterministic kernels exclude `tf.timestamp`."""
    return tf.ensure_shape(tf.numpy_function(time.perf_counter, [], tf.float64), [])


class Trainer:
    """Runs optimizer updates of a model over its strategy's replicas."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        *,
        batch_size: int,
        seed: int,
        objective: losses.Objective = losses.Objective(),  # noqa: B008
        micro_batch: int | None = None,
        clip_norm: float | None = None,
        colour: Colour | None = None,
        mix: mixing.Mixing | None = None,
        average: averages.Average | None = None,
        factors: Mapping[str, float] | None = None,
        xla: bool = False,
    ) -> None:
        """Builds the optimizer and seeds the random layers by step.

        Args:
            strategy: Strategy in whose scope model and optimizer were created.
            model: Network from float32 images in 0..255 to {"logits": [B, K]}, plus the logits
                of auxiliary heads under other names.
            optimizer: Keras optimizer without gradient clipping.
            batch_size: Examples per update, over all replicas.
            seed: Seed of the random layers and of `mix`.
            objective: Loss to minimise.
            micro_batch: Examples computed at a time, over all replicas; a divisor of `batch_size`.
                Gradients are summed (default: the whole batch).
            clip_norm: Maximum norm of the gradient over all variables (default: no clipping).
            colour: Colour augmentation on the device (default: none).
            mix: Settings of mixup and CutMix (default: no mixing).
            average: Moving average of the weights, updated after each step (default: none).
            factors: Learning-rate multipliers by path of the variable (default: 1 for all).
            xla: Whether XLA compiles loss and gradients; one replica only, see `devices.compiles`.

        Raises:
            ValueError: If the batch does not divide evenly.
        """
        self._places = micro_batches(
            batch_size, micro_batch, strategy.num_replicas_in_sync, pairs=bool(mix)
        )
        self._strategy = strategy
        self._model = model
        self._optimizer = optimizer
        self._batch_size = batch_size
        self._seed = seed
        self._objective = objective
        self._clip_norm = clip_norm
        self._colour = colour
        self._mix = mix
        self._average = average
        self._factors = factors or {}
        self._differentiate, self._update = self._gradients, self._update_graph
        if xla:
            compiled = functools.partial(tf.function, autograph=False, jit_compile=True)
            self._differentiate, self._update = map(compiled, (self._gradients, self._update_graph))
        _build(optimizer, model.trainable_variables, strategy)
        self._clock = DropoutSeeds(model, seed, optimizer.iterations)
        self._train = tf.function(self._train_graph, autograph=False)

    @property
    def optimizer(self) -> keras.optimizers.Optimizer:
        """The optimizer, with its variables."""
        return self._optimizer

    @property
    def step(self) -> int:
        """Optimizer updates done."""
        return int(self._optimizer.iterations.numpy())

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
        """
        step, count = self.step, len(rates)
        padded = tf.constant(
            rates + [0.0] * (MAX_STEPS - count), tf.float32
        )  # padded to one shape, so that the graph is traced once
        done, before, last, sums, norm, waited = self._train(iterator, padded, tf.constant(count))
        if not (before and last):
            failed = int(done) - (1 if before else 2)
            raise NotFinite(step + failed, rates[failed])
        return Progress(Totals(*map(float, sums)), float(norm), float(waited))

    def fits(self) -> bool:
        """Whether a step fits in memory; runs one and restores all variables."""
        model, optimizer = self._model, self._optimizer
        kept = [*model.weights, *optimizer.variables]
        before = [variable.numpy() for variable in kept]
        share = self._batch_size // self._strategy.num_replicas_in_sync
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
            if self._average:
                self._average.start()
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
            scores, *gradients = self._strategy.run(self._accumulated, args=batch)
            scores = self._strategy.reduce(tf.distribute.ReduceOp.SUM, scores, axis=None)
            norm = self._update(gradients, rates[step])
            finite = tf.math.is_finite(scores[0]) & tf.math.is_finite(norm)
            return step + 1, last, finite, sums + tf.cast(scores, tf.float64), norm, waited

        # The condition waits for the step before the last, so that a GPU always has its next step.
        # Had it more of them, copies of batches would wait for all: TensorFlow orders them so.
        start = (0, True, True, tf.zeros(SUMS, tf.float64), 0.0, tf.constant(0.0, tf.float64))
        more = lambda step, before, *_: before & (step < count)  # noqa: E731
        return tf.while_loop(more, one, start, parallel_iterations=1)

    def _update_graph(self, gradients: list[tf.Tensor], rate: tf.Tensor) -> tf.Tensor:
        """Updates the weights by each replica's gradients; returns the norm of their sum."""
        before = self._slow_ones()
        norms = self._strategy.run(self._apply, args=(gradients, rate))
        self._slow_down(before)
        if self._average:
            self._average.update(self._optimizer.iterations)
        return self._strategy.experimental_local_results(norms)[0]

    def _apply(self, gradients: list[tf.Tensor], rate: tf.Tensor) -> tf.Tensor:
        """Sums the gradients over the replicas and applies them; returns the norm of the sum."""
        if self._strategy.num_replicas_in_sync > 1:
            context = tf.distribute.get_replica_context()
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        norm = tf.linalg.global_norm(gradients)
        if self._clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self._clip_norm, norm)
        self._optimizer.learning_rate.assign(rate)
        variables = self._model.trainable_variables
        self._optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return norm

    def _slow_ones(self) -> list[tuple[tf.Variable, tf.Tensor, float]]:
        """Returns the variables with a learning-rate multiplier, their values and multipliers."""
        slow = [v for v in self._model.trainable_variables if self._factors.get(v.path, 1.0) != 1]
        if not slow:
            return []
        values = self._strategy.run(lambda: [tf.identity(variable.value) for variable in slow])
        factors = [self._factors[variable.path] for variable in slow]
        return list(zip([variable.value for variable in slow], values, factors, strict=True))

    def _slow_down(self, before: list[tuple[tf.Variable, tf.Tensor, float]]) -> None:
        """Scales each update by its multiplier, for any optimizer."""
        for variable, value, factor in before:

            def follow(variable: tf.Variable, old: tf.Tensor, factor=factor) -> tf.Operation:
                return variable.assign(old + factor * (variable - old))

            self._strategy.extended.update(variable, follow, args=(value,))

    def _accumulated(self, *batch: tf.Tensor) -> list[tf.Tensor]:
        """Sums the results of `_part` over the micro batches of a replica."""
        count = len(self._places)
        if count == 1:
            return self._part(*batch, 0)

        def add(part, *sums):
            places = tf.gather(self._places, part)
            found = self._part(*(tf.gather(column, places) for column in batch), part)
            return part + 1, *(a + b for a, b in zip(sums, found, strict=True))

        variables = self._model.trainable_variables
        sums = [0, tf.zeros(SUMS), *(tf.zeros(variable.shape) for variable in variables)]
        if self._strategy.num_replicas_in_sync == 1:
            more = lambda part, *_: part < count  # noqa: E731
            return tf.while_loop(more, add, sums, parallel_iterations=1)[1:]
        for _ in range(count):  # replicas synchronise in BatchNorm, which a graph loop forbids
            with tf.control_dependencies(sums[1:]):
                sums = add(*sums)
        return sums[1:]

    def _part(
        self, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, part: int | tf.Tensor
    ) -> list[tf.Tensor]:
        """Returns the scores [4] of a micro batch and its share of each gradient."""
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        places = replica * self._places.size + tf.gather(self._places, part)
        step = tf.cast(tf.convert_to_tensor(self._optimizer.iterations), tf.int64)
        images = tf.cast(images, tf.float32)
        if self._colour is not None:
            images = self._colour(images, step, places)
        targets = [(labels, weights)]
        if self._mix is not None:
            plan = mixing.plan(self._mix, self._seed, step, self._batch_size, images.shape[1])
            images, own = mixing.mixed(images, tf.gather(plan, places))
            others = mixing.neighbours(labels)
            targets = [(labels, weights * own), (others, weights * (1 - own))]
        logits, *gradients = self._differentiate(images, targets, part)
        return [score(tf.nn.log_softmax(logits), labels, weights), *gradients]

    def _gradients(
        self, images: tf.Tensor, targets: list[tuple[tf.Tensor, tf.Tensor]], part: int | tf.Tensor
    ) -> list[tf.Tensor]:
        """Returns the logits [b, K] of a micro batch and its share of each gradient."""
        replicas, variables = self._strategy.num_replicas_in_sync, self._model.trainable_variables
        self._clock.part = part
        with tf.GradientTape() as tape:
            heads = self._heads(images)
            loss = self._objective.of_examples(heads, targets) / self._batch_size
            loss += self._objective.of_weights(variables) / (replicas * len(self._places))
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        return [heads["logits"], *gradients]

    def _heads(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Runs the network in training mode on images that may be smaller than its input."""
        if images.shape[1:] == self._model.input_shape[1:]:
            return self._model(images, training=True)
        return self._model.call(images, training=True)

    def weight_norm(self) -> float:
        """Returns the Euclidean norm of all trainable variables."""
        return float(tf.linalg.global_norm([v.value for v in self._model.trainable_variables]))
