"""What a pipeline asks of a split's images, however they are stored."""

import abc
from collections.abc import Callable

import tensorflow as tf

from data.shards.datasets import Dataset

# The V windows of images: (height, width, draws) int32 [n], int32 [n], float32 [n, D] ->
# int32 [n, V, 4]: top, left, height, width; outside of an image is zero.
WindowsOf = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
# Which of them are mirrored: float32 [n, D] -> bool [n, V].
MirrorOf = Callable[[tf.Tensor], tf.Tensor]
Columns = dict[str, tf.Tensor]
Stages = dict[str, tf.data.Dataset]


class Reader(abc.ABC):
    """Reads records by blocks of shards, plans them in bulk and makes batches of images."""

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        *,
        windows_of: WindowsOf,
        mirror_of: MirrorOf | None,
        size: int,
    ) -> None:
        """Reads nothing yet.

        Args:
            dataset: Where the records are.
            split: One of its splits.
            windows_of: What is wanted of an image.
            mirror_of: Which windows are mirrored; None for none.
            size: Side of every window in the end, S.
        """
        self.shards = dataset.shards(split)
        self.size = size
        self.windows_of = windows_of
        self._label_offset = dataset.label_offset
        self._mirror_of = mirror_of

    @abc.abstractmethod
    def read(self, block: Columns) -> tf.Tensor:
        """Takes up a block of shards.

        Args:
            block: The fields of an `order.Block`.

        Returns:
            A row for each record, in stored order: [records, ...].
        """

    def pick(self, block: Columns, places: tf.Tensor) -> tf.Tensor:
        """The rows of `read` at some places, int32 [n]; for when most are not wanted."""
        return tf.gather(self.read(block), places)

    @abc.abstractmethod
    def plan(self, rows: tf.Tensor, draws: tf.Tensor) -> Columns:
        """All that can be known of some images before their pixels are.

        Args:
            rows: [n, ...], some of `read`.
            draws: float32 [n, D].

        Returns:
            "label": int32 [n], -1 without one; "draws"; and what `cut` needs.
        """

    @abc.abstractmethod
    def cut(self, planned: tf.data.Dataset, batch_size: int, threads: int) -> tf.data.Dataset:
        """Makes images of what was planned.

        Args:
            planned: Elements of `plan`, to which columns [n, ...] may have been added.
            batch_size: Examples per batch, b; what is left at the end is dropped.
            threads: Size of the pipeline's thread pool.

        Returns:
            Batches of (uint8 [b, V, S, S, 3], the label, draws and added columns).
        """

    @abc.abstractmethod
    def stages(self, planned: tf.data.Dataset, batch_size: int, threads: int) -> Stages:
        """What `cut` does, up to and including each of its stages, for a measurement.

        Args:
            planned: As for `cut`.
            batch_size: As for `cut`.
            threads: As for `cut`.

        Returns:
            Data sets of [b, ...] by the name of the stage; only their length counts.
        """

    def labels(self, stored: tf.Tensor) -> tf.Tensor:
        """Those of records, int64 or int32 [n], as networks have them: int32 [n]."""
        return tf.cast(tf.maximum(stored - self._label_offset, -1), tf.int32)

    def mirrored(self, windows: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Which of the windows, int32 [n, V, 4], are mirrored: bool [n, V]."""
        if self._mirror_of:
            return self._mirror_of(draws)
        return tf.zeros(tf.shape(windows)[:2], tf.bool)
