"""The interface to a split's records, independent of how its images are stored."""

import abc
from collections.abc import Callable

import tensorflow as tf

from data.shards.datasets import Dataset

# Crop windows of n images, V of each (V > 1 only for test views):
# (height int32 [n], width int32 [n], draws float32 [n, D]) -> int32 [n, V, 4], with columns top,
# left, height, width in stored pixels, which may reach beyond the image.
WindowsFn = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
# Whether to mirror each window: draws float32 [n, D] -> bool [n, V].
MirrorFn = Callable[[tf.Tensor], tf.Tensor]
Columns = dict[str, tf.Tensor]

# For the functions that tf.data maps: they have no control flow to convert, and AutoGraph leaves
# temporary files behind.
no_autograph = tf.autograph.experimental.do_not_convert


class Reader(abc.ABC):
    """Reads the records of a block of shards, plans their crops in bulk and batches the crops.

    The calls, in order: `read` or `read_at`, `plan`, `crop`.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        *,
        windows_fn: WindowsFn,
        mirror_fn: MirrorFn | None,
        reflects: bool = False,
        size: int,
    ) -> None:
        """Prepares to read a split.

        Args:
            dataset: The data set.
            split: One of its splits.
            windows_fn: Computes the crop windows of images.
            mirror_fn: Computes which windows are mirrored (default: none).
            reflects: Whether an image is reflected at its border where a window reaches beyond it
                (default: it is black there).
            size: Side of the resized crops in pixels, S.
        """
        self.shards = dataset.shards(split)
        self.size = size
        self.reflects = reflects
        self.windows_fn = windows_fn
        self._label_offset = dataset.label_offset
        self._mirror_fn = mirror_fn

    @abc.abstractmethod
    def read(self, block: Columns) -> tf.Tensor:
        """Reads all records of a block.

        Args:
            block: An element of `batches.block_dataset`.

        Returns:
            A row for each record, in stored order: [records, ...].
        """

    def read_at(self, block: Columns, indices: tf.Tensor) -> tf.Tensor:
        """Reads the records of a block at the given indices, int32 [n]: rows [n, ...]."""
        return tf.gather(self.read(block), indices)

    @abc.abstractmethod
    def plan(self, rows: tf.Tensor, draws: tf.Tensor) -> Columns:
        """Computes everything about n images that does not need their pixels.

        Args:
            rows: Rows of `read`, [n, ...].
            draws: Random numbers, float32 [n, D], uniform in [0, 1).

        Returns:
            "label": int32 [n], -1 for an unlabelled image; "draws"; and the columns that `crop`
            needs.
        """

    @abc.abstractmethod
    def crop(self, planned: tf.data.Dataset, batch_size: int, threads: int) -> tf.data.Dataset:
        """Crops, resizes and mirrors images and batches them.

        Args:
            planned: Elements of `plan`, with or without additional columns [n, ...].
            batch_size: Examples per batch, b; an incomplete last batch is dropped.
            threads: Size of the pipeline's thread pool.

        Returns:
            Batches of (uint8 [b, V, S, S, 3], {"label", "draws" and the additional columns}).
        """

    def labels(self, stored: tf.Tensor) -> tf.Tensor:
        """Converts stored labels to classes from 0, int32 [n]; -1 for an unlabelled image."""
        return tf.cast(tf.maximum(stored - self._label_offset, -1), tf.int32)

    def mirrored(self, windows: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Returns whether each of the windows, int32 [n, V, 4], is mirrored: bool [n, V]."""
        if self._mirror_fn:
            return self._mirror_fn(draws)
        return tf.zeros(tf.shape(windows)[:2], tf.bool)
