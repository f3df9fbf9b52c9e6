"""One update of the weights: sum over replicas, clipping, optimizer, multipliers, averages."""

from collections.abc import Collection, Mapping

import keras
import tensorflow as tf

from engine import averages, devices


class Update:
    """Updates the weights by each replica's gradients: `update(gradients, rate)`.

    Attributes:
        optimizer: The optimizer, with its variables.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        *,
        clip_norm: float | None = None,
        factors: Mapping[str, float] | None = None,
        held: Collection[str] = (),
        held_steps: int = 0,
        lookahead: averages.Lookahead | None = None,
        average: averages.Average | None = None,
        xla: bool = False,
    ) -> None:
        """Creates the optimizer's variables and restricts its weight decay to kernels.

        Args:
            strategy: Strategy in whose scope model and optimizer were created.
            model: Built model.
            optimizer: Keras optimizer without gradient clipping.
            clip_norm: Maximum norm of the gradient over all variables (default: no clipping).
            factors: Learning-rate multipliers by path of the variable (default: 1 for all).
            held: Paths of the variables that keep their values in the first steps.
            held_steps: Number of these steps (default: 0).
            lookahead: Slow weights to return to every few steps (default: none).
            average: Moving average of the weights, updated after each step (default: none).
            xla: Whether XLA compiles the update; one replica only, see `devices.compiles`.
        """
        self.optimizer = optimizer
        self._averages = [copies for copies in (lookahead, average) if copies]
        self._strategy = strategy
        self._variables = model.trainable_variables
        self._clip_norm = clip_norm
        self._factors = factors or {}
        self._held, self._held_steps = frozenset(held if held_steps else ()), held_steps
        self._update = devices.compiled(self._update_graph) if xla else self._update_graph
        if optimizer.weight_decay is not None:
            optimizer.exclude_from_weight_decay([v for v in self._variables if len(v.shape) < 2])
        # Keras has no public switch for this: clipping needs the summed gradients first.
        optimizer._all_reduce_sum_gradients = lambda summed: summed
        with strategy.scope():
            optimizer.build(self._variables)

    def __call__(self, gradients: list[tf.Tensor], rate: tf.Tensor) -> tf.Tensor:
        """Updates the weights; call it outside the replica context.

        Args:
            gradients: A gradient of each replica for each trainable variable.
            rate: Learning rate, float32 [].

        Returns:
            Norm of the sum of the gradients, float32 [].
        """
        return self._update(gradients, rate)

    def restart_averages(self) -> None:
        """Restarts all averages of the weights at the current weights."""
        for copies in self._averages:
            copies.start()

    def _update_graph(self, gradients: list[tf.Tensor], rate: tf.Tensor) -> tf.Tensor:
        before = self._slow_ones()
        norms = self._strategy.run(self._apply, args=(gradients, rate))
        self._slow_down(before)
        for copies in self._averages:
            copies.update(self.optimizer.iterations)
        return self._strategy.experimental_local_results(norms)[0]

    def _apply(self, gradients: list[tf.Tensor], rate: tf.Tensor) -> tf.Tensor:
        """Sums the gradients over the replicas and applies them; returns the norm of the sum."""
        if self._strategy.num_replicas_in_sync > 1:
            context = tf.distribute.get_replica_context()
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        norm = tf.linalg.global_norm(gradients)
        if self._clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self._clip_norm, norm)
        self.optimizer.learning_rate.assign(rate)
        self.optimizer.apply_gradients(zip(gradients, self._variables, strict=True))
        return norm

    def _slow_ones(self) -> list[tuple[keras.Variable, tf.Tensor]]:
        """Returns the variables that are held or have a multiplier, and their values."""
        slow = [v for v in self._variables if v.path in self._held or self._factor(v) != 1]
        if not slow:
            return []
        values = self._strategy.run(lambda: [tf.identity(variable.value) for variable in slow])
        return list(zip(slow, values, strict=True))

    def _factor(self, variable: keras.Variable) -> float:
        return self._factors.get(variable.path, 1.0)

    def _slow_down(self, before: list[tuple[keras.Variable, tf.Tensor]]) -> None:
        """Scales each update by its multiplier, in the first steps by 0, for any optimizer."""
        for slow, value in before:

            def follow(variable: tf.Variable, old: tf.Tensor, slow=slow) -> tf.Operation:
                new = old + self._factor(slow) * (variable - old)
                if slow.path in self._held:
                    done = self.optimizer.iterations.value  # with this step
                    new = tf.where(done <= self._held_steps, old, new)
                return variable.assign(new)

            self._strategy.extended.update(slow.value, follow, args=(value,))
