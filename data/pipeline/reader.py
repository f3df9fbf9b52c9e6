"""The interface to a split's records, however its images are stored."""

import abc
from collections.abc import Callable

import tensorflow as tf

from data.shards.datasets import Dataset

# The V windows of each image: (height, width, draws) int32 [n], int32 [n], float32 [n, D] ->
# int32 [n, V, 4]: top, left, height, width; a window is black outside of its image.
WindowsOf = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
# Which windows are mirrored: draws float32 [n, D] -> bool [n, V].
MirrorOf = Callable[[tf.Tensor], tf.Tensor]
Columns = dict[str, tf.Tensor]
Stages = dict[str, tf.data.Dataset]


class Reader(abc.ABC):
    """Reads records in blocks of shards, plans them in bulk and makes batches of images."""

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        *,
        windows_of: WindowsOf,
        mirror_of: MirrorOf | None,
        size: int,
    ) -> None:
        """Prepares to read a split.

        Args:
            dataset: The data set.
            split: One of its splits.
            windows_of: Computes the windows to cut out of images.
            mirror_of: Computes which windows are mirrored; None for none.
            size: Side of all windows after resizing, S.
        """
        self.shards = dataset.shards(split)
        self.size = size
        self.windows_of = windows_of
        self._label_offset = dataset.label_offset
        self._mirror_of = mirror_of

    @abc.abstractmethod
    def read(self, block: Columns) -> tf.Tensor:
        """Reads a block of shards.

        Args:
            block: The fields of an `order.Block`.

        Returns:
            A row for each record, in stored order: [records, ...].
        """

    def pick(self, block: Columns, places: tf.Tensor) -> tf.Tensor:
        """Reads the records of a block at the given places, int32 [n]: rows [n, ...]."""
        return tf.gather(self.read(block), places)

    @abc.abstractmethod
    def plan(self, rows: tf.Tensor, draws: tf.Tensor) -> Columns:
        """Computes everything about images that does not need their pixels.

        Args:
            rows: Rows of `read`, [n, ...].
            draws: float32 [n, D], uniform in [0, 1).

        Returns:
            "label": int32 [n], -1 without one; "draws"; and the columns that `cut` needs.
        """

    @abc.abstractmethod
    def cut(self, planned: tf.data.Dataset, batch_size: int, threads: int) -> tf.data.Dataset:
        """Cuts planned images out and batches them.

        Args:
            planned: Elements of `plan`; columns [n, ...] may have been added.
            batch_size: Examples per batch, b; an incomplete last batch is dropped.
            threads: Size of the pipeline's thread pool.

        Returns:
            Batches of (uint8 [b, V, S, S, 3], {"label", "draws" and added columns}).
        """

    @abc.abstractmethod
    def stages(self, planned: tf.data.Dataset, batch_size: int, threads: int) -> Stages:
        """The pipeline of `cut` up to and including each of its stages, to measure them.

        Args:
            planned: Elements of `plan`.
            batch_size: Examples per batch, b.
            threads: Size of the pipeline's thread pool.

        Returns:
            Data sets of [b, ...] by the name of the stage; only the length of an element counts.
        """

    def labels(self, stored: tf.Tensor) -> tf.Tensor:
        """Class labels from 0, int32 [n], for the labels of records; -1 without one."""
        return tf.cast(tf.maximum(stored - self._label_offset, -1), tf.int32)

    def mirrored(self, windows: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Whether each of the windows, int32 [n, V, 4], is mirrored: bool [n, V]."""
        if self._mirror_of:
            return self._mirror_of(draws)
        return tf.zeros(tf.shape(windows)[:2], tf.bool)
