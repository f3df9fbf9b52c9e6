"""The images of a training: the batch of each step, and the validation images."""

import functools
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from data import pipeline
from data.pipeline import augment, decoded
from data.shards import datasets
from engine import mixing
from training import parts, replay
from training.recipe import Recipe, Running

SAMPLED = 64  # training images on which `training.warnings` checks the network
MEASURED, MEASURED_BATCH = 10_000, 50  # images in all and per batch; stored in random order


class Batches:
    """The images of a training; all randomness is a function of seed and step.

    Attributes:
        dataset: Training and validation images.
        policy: Augmentation policy.
        size: Side of the network's input, in pixels.
        steps_per_epoch: Optimizer updates per epoch.
        cache: "memory" if all images are decoded to memory first, else "none".
    """

    def __init__(
        self,
        recipe: Recipe,
        running: Running,
        dataset: datasets.Dataset,
        *,
        size: int,
        replicas: int,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        """Sets up the pipelines' settings; reads no images.

        Args:
            recipe: Settings that decide the trained weights.
            running: Settings of the run, such as folder, threads and cache.
            dataset: Training and validation images.
            size: Side of the network's input, in pixels.
            replicas: Number of replicas that share a batch.
            share: (i, n) for the i-th of n workers, which reads only its own replicas' images
                (default: the only worker).

        Raises:
            ValueError: If there are fewer training images than the batch size, or the augmentation
                flags are incompatible.
        """
        self.dataset, self.size = dataset, size
        self.policy = parts.policy(recipe)
        self.cache = decoded.chosen_cache(dataset, running.cache)
        self._recipe, self._replicas, self._share = recipe, replicas, share
        self._threads = running.threads
        examples = dataset.num_examples("train")
        self.steps_per_epoch = examples // parts.batch_size(recipe, examples)

    def side(self, step: int) -> int:
        """Returns the side of a step's training images, in pixels."""
        return parts.side(self._recipe, step // self.steps_per_epoch)

    def next_size_change(self, step: int, end: int) -> int:
        """Returns the first step after `step` with images of another size, or `end`."""
        ends = range(step - step % self.steps_per_epoch, end, self.steps_per_epoch)
        return next((other for other in ends if self.side(other) != self.side(step)), end)

    def batches(self, first: int, end: int) -> tf.data.Dataset:
        """Returns the batches of the steps in [first, end), as the trainer iterates over them.

        All images have the size of those of step `first`.
        """
        if self._recipe.overfit_batch:
            return self._batches(0, 1, share=self._share).cache().repeat(end - first)
        return self._batches(first, end, share=self._share)

    def _batches(
        self,
        first: int,
        end: int,
        *,
        side: int | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> tf.data.Dataset:
        return pipeline.train_batches(
            self.dataset,
            self.policy,
            size=side or self.side(first),
            batch_size=self._recipe.batch_size,
            seed=self._recipe.seed,
            step=first,
            steps=end,
            threads=self._threads,
            per_batch=self._recipe.batch_size // self._replicas,
            share=share,
            cache=self.cache,
        )

    @functools.cached_property
    def validation(self) -> tf.data.Dataset:
        """Batches of centre crops of the validation images; one data set for all epochs."""
        return pipeline.test_batches(
            self.dataset,
            "validation",
            size=self.size,
            crops=1,
            batch_size=self._recipe.batch_size // self._replicas,
            threads=self._threads,
            replicas=self._replicas,
            share=self._share,
            cache=self.cache,
        )

    @functools.cached_property
    def sample(self) -> tuple[np.ndarray, np.ndarray]:
        """A few training images, uint8 [B, S, S, 3], and their labels, int32 [B]."""
        images, labels, _ = next(self._batches(0, 1, side=self.size).as_numpy_iterator())
        return images[:SAMPLED], labels[:SAMPLED]

    def centres(self) -> Iterator[np.ndarray]:
        """Yields batches of centre crops of the first training images, float32 [b, S, S, 3]."""
        views = pipeline.test_batches(
            self.dataset,
            "train",
            size=self.size,
            crops=1,
            batch_size=MEASURED_BATCH,
            threads=self._threads,
        )
        for images, _, weights in views.take(MEASURED // MEASURED_BATCH).as_numpy_iterator():
            yield images[weights > 0, 0].astype(np.float32)

    def images_of(self, step: int) -> np.ndarray:
        """Returns the images of a step after all augmentation and mixing, uint8 [B, S, S, 3]."""
        recipe, mix = self._recipe, parts.mix(self._recipe)
        first = 0 if recipe.overfit_batch else step
        images = tf.concat([images for images, *_ in self._batches(first, first + 1)], axis=0)
        images = tf.cast(images, tf.float32)
        if self.policy.colour:
            draws = augment.colour_draws(recipe.seed, step, recipe.batch_size)
            images = self.policy.colour(images, draws)
        if mix:
            number = tf.constant(step, tf.int64)
            plan = mixing.plan(mix, recipe.seed, number, recipe.batch_size, self.side(step))
            images, _ = mixing.mixed(images, plan)
        return tf.saturate_cast(images, tf.uint8).numpy()

    def origins_of(self, step: int) -> list[replay.Origin]:
        """Returns the stored image and the crop behind each image of a step, in batch order."""
        step = 0 if self._recipe.overfit_batch else step
        return replay.origins(
            self.dataset,
            self.policy,
            size=self.side(step),
            batch_size=self._recipe.batch_size,
            seed=self._recipe.seed,
            step=step,
        )
