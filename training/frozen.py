"""Features: outputs of a network's frozen part, computed once per image and kept in memory.

If the input has no random augmentation, the features are the same in every epoch, so that only the
rest of the network needs to run in training.
"""

import functools
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from data import pipeline
from data.shards import datasets
from models.tools import graphs

MOST_BYTES = 2**30  # maximum size of the features of all images


class TrunkAndHead(NamedTuple):
    """A network cut into two models that share its layers.

    Attributes:
        trunk: Model from images to features, without trainable or random layers.
        head: Model from features to the network's outputs.
    """

    trunk: keras.Model
    head: keras.Model


def trunk_and_head(model: keras.Model, examples: int) -> TrunkAndHead | None:
    """Cuts a network at the end of its frozen part.

    Args:
        model: Network with frozen layers.
        examples: Number of images.

    Returns:
        The two parts; None if they do not meet in a single tensor, or the features of all images
        would take too much memory.
    """
    end = graphs.frozen_end(model)
    if end is None or 4 * examples * np.prod(end.shape[1:]) > MOST_BYTES:
        return None
    return TrunkAndHead(keras.Model(model.input, end), keras.Model(end, model.output))


class Features:
    """Batches of features instead of images."""

    def __init__(
        self, trunk: keras.Model, dataset: datasets.Dataset, *, batch_size: int, threads: int
    ) -> None:
        """Stores the arguments; the features are computed on first use.

        Args:
            trunk: Model from images to features.
            dataset: Training and validation images.
            batch_size: Examples per batch.
            threads: Size of the pipeline's thread pool.
        """
        self._trunk, self._dataset = trunk, dataset
        self._batch_size, self._threads = batch_size, threads

    def train_batches(self, *, seed: int, first: int, end: int) -> tf.data.Dataset:
        """Returns the features for the batches of `pipeline.train_batches`, steps in [first, end).

        Returns:
            Batches (features float32 [b, ...], labels int32 [b], weights float32 [b], all 1).
        """
        features, labels = self._of("train")
        indices = pipeline.train_indices(
            self._dataset, batch_size=self._batch_size, seed=seed, step=first, steps=end
        )
        ones = tf.ones([self._batch_size])
        return indices.map(lambda i: (tf.gather(features, i), tf.gather(labels, i), ones))

    def test_batches(self, split: str) -> tf.data.Dataset:
        """Returns the features of each image of a split once, in stored order.

        Returns:
            Batches (features float32 [b, 1, ...], labels int32 [b], weights float32 [b], all 1).
        """
        features, labels = self._of(split)
        whole = (features[:, tf.newaxis], labels, tf.ones(tf.shape(labels)))
        return tf.data.Dataset.from_tensor_slices(whole).batch(self._batch_size)

    @functools.cache  # noqa: B019 - needed for the whole training
    def _of(self, split: str) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes the features and labels of a split, in stored order."""
        size = self._trunk.input_shape[1]
        batches = pipeline.test_batches(
            self._dataset,
            split,
            size=size,
            crops=1,
            batch_size=self._batch_size,
            threads=self._threads,
        )

        @tf.function(autograph=False)
        def through(images):
            features = self._trunk(tf.cast(images[:, 0], tf.float32), training=False)
            return tf.cast(features, tf.float32)

        shown = tqdm(batches, f"features of the {split} images", leave=False, disable=None)
        found = [(through(images), labels) for images, labels, _ in shown]
        features, labels = (tf.concat(column, axis=0) for column in zip(*found, strict=True))
        count = self._dataset.num_examples(split)  # without the padding of the last batch
        return features[:count], labels[:count]
