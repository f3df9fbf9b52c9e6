"""The gradients of a batch: micro batches, augmentation on the device, differentiation."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from engine import devices, losses, mixing
from engine.dropout_seeds import DropoutSeeds
from engine.totals import SUMS, score

# (images float32 [b, S, S, 3] in 0..255, step, indices in the global batch [b]) -> images
Colour = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
Targets = list[tuple[tf.Tensor, tf.Tensor]]  # (labels int32 [b], weights float32 [b])


class Gradients:
    """Computes a replica's share of a batch's gradients: `gradients(images, labels, weights)`.

    Attributes:
        batch_size: Examples per update, over all replicas.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: keras.Model,
        step: keras.Variable,
        *,
        batch_size: int,
        seed: int,
        objective: losses.Objective = losses.Objective(),  # noqa: B008
        micro_batch: int | None = None,
        colour: Colour | None = None,
        mix: mixing.Mixing | None = None,
        xla: bool = False,
    ) -> None:
        """Seeds the model's random layers by step.

        Args:
            strategy: Strategy in whose scope the model was created.
            model: Network from float32 images in 0..255 to {"logits": [B, K]}, plus the logits
                of auxiliary heads under other names.
            step: Optimizer updates done.
            batch_size: Examples per update, over all replicas.
            seed: Seed of the random layers and of `mix`.
            objective: Loss to minimise.
            micro_batch: Examples computed at a time, over all replicas; a divisor of `batch_size`.
                Gradients are summed (default: the whole batch).
            colour: Colour augmentation on the device (default: none).
            mix: Settings of mixup and CutMix (default: no mixing).
            xla: Whether XLA compiles loss and gradients; one replica only, see `devices.compiles`.

        Raises:
            ValueError: If the batch does not divide evenly.
        """
        self.batch_size = batch_size
        self._replicas = strategy.num_replicas_in_sync
        self._places = micro_batches(batch_size, micro_batch, self._replicas, pairs=bool(mix))
        self._model = model
        self._step = step
        self._seed = seed
        self._objective = objective
        self._colour = colour
        self._mix = mix
        self._dropout = DropoutSeeds(model, seed, step)
        self._differentiate = devices.compiled(self._gradients) if xla else self._gradients

    @property
    def extent(self) -> str:
        """Description of what is computed at a time, for messages."""
        size = self.batch_size // len(self._places)
        whole = f"a batch of {size} images"
        return whole if len(self._places) == 1 else f"{size} images at a time"

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> list[tf.Tensor]:
        """Sums scores and gradients over the micro batches; call it in the replica context.

        Args:
            images: uint8 or float32 [B / R, S, S, 3], a replica's share of the batch.
            labels: int32 [B / R].
            weights: float32 [B / R].

        Returns:
            Scores [4], see `totals.score`, and a gradient for each trainable variable.
        """
        batch, count = (images, labels, weights), len(self._places)
        if count == 1:
            return self._micro_batch(*batch, 0)

        def add(part, *sums):
            places = tf.gather(self._places, part)
            results = self._micro_batch(*(tf.gather(column, places) for column in batch), part)
            return part + 1, *(a + b for a, b in zip(sums, results, strict=True))

        variables = self._model.trainable_variables
        sums = [0, tf.zeros(SUMS), *(tf.zeros(variable.shape) for variable in variables)]
        if self._replicas == 1:
            more = lambda part, *_: part < count  # noqa: E731
            return tf.while_loop(more, add, sums, parallel_iterations=1)[1:]
        for _ in range(count):  # replicas synchronise in BatchNorm, which a graph loop forbids
            with tf.control_dependencies(sums[1:]):
                sums = add(*sums)
        return sums[1:]

    def _micro_batch(
        self, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, part: int | tf.Tensor
    ) -> list[tf.Tensor]:
        """Augments a micro batch; returns its scores [4] and its share of each gradient."""
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        places = replica * self._places.size + tf.gather(self._places, part)
        step = tf.cast(tf.convert_to_tensor(self._step), tf.int64)
        images = tf.cast(images, tf.float32)
        if self._colour is not None:
            images = self._colour(images, step, places)
        targets = [(labels, weights)]
        if self._mix is not None:
            plan = mixing.plan(self._mix, self._seed, step, self.batch_size, images.shape[1])
            images, own = mixing.mixed(images, tf.gather(plan, places))
            others = mixing.neighbours(labels)
            targets = [(labels, weights * own), (others, weights * (1 - own))]
        logits, *gradients = self._differentiate(images, targets, part)
        return [score(tf.nn.log_softmax(logits), labels, weights), *gradients]

    def _gradients(
        self, images: tf.Tensor, targets: Targets, part: int | tf.Tensor
    ) -> list[tf.Tensor]:
        """Differentiates the loss; returns logits [b, K] and the share of each gradient."""
        self._dropout.part = part
        variables = self._model.trainable_variables
        with tf.GradientTape() as tape:
            heads = self._heads(images)
            loss = self._objective.data_loss(heads, targets) / self.batch_size
            loss += self._objective.regularization(variables) / (self._replicas * len(self._places))
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        return [heads["logits"], *gradients]

    def _heads(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Runs the network in training mode on images that may be smaller than its input."""
        if images.shape[1:] == self._model.input_shape[1:]:
            return self._model(images, training=True)
        return self._model.call(images, training=True)


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
