"""Images that are decoded when they are needed, one by one, and no more of them than is needed."""

from collections.abc import Callable

import tensorflow as tf

from data import pixels, records
from data.datasets import Dataset

# The V windows of images: (height, width, draws) int32 [...], int32 [...], float32 [..., D] ->
# int32 [..., V, 4]: top, left, height, width.
WindowsOf = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
# Which of them are mirrored: float32 [n, D] -> bool [n, V].
MirrorOf = Callable[[tf.Tensor], tf.Tensor]
Columns = dict[str, tf.Tensor]
Stages = dict[str, tf.data.Dataset]

_as_it_is = tf.autograph.experimental.do_not_convert

# A part of a JPEG has other colours at its border than the whole (chroma is interpolated).
_MARGIN = 2


class Encoded:
    """Records that hold image files of any kind; `Jpegs` is for most."""

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        *,
        windows_of: WindowsOf,
        mirror_of: MirrorOf | None,
        size: int,
        outside: bool,
    ) -> None:
        """Reads nothing yet.

        Args:
            dataset: Where the records are.
            split: One of its splits.
            windows_of: What is wanted of an image.
            mirror_of: Which windows are mirrored; None for none.
            size: Side of every window in the end, S.
            outside: Whether windows may reach outside of the image, which is zero there.
        """
        self._shards = dataset.shards(split)
        self._label_offset = dataset.label_offset
        self._windows_of = windows_of
        self._mirror_of = mirror_of
        self._size = size
        self._outside = outside

    def read(self, window: Columns) -> tf.Tensor:
        """All records of a window of shards, in stored order: string [records].

        TensorFlow itself does not notice a shard that was cut between two records.
        """
        paths = tf.constant([shard.path for shard in self._shards])
        files = tf.gather(paths, tf.boolean_mask(window["shards"], window["shards"] >= 0))
        at_most = tf.cast(window["records"], tf.int64) + 1
        serialized = tf.data.TFRecordDataset(files).batch(at_most).get_single_element()
        found = tf.size(serialized)
        facts = ["shards changed: records expected, found, files", window["records"], found, files]
        whole = tf.debugging.Assert(tf.equal(found, window["records"]), facts)
        with tf.control_dependencies([whole]):
            return tf.identity(serialized)

    def plan(self, serialized: tf.Tensor, draws: tf.Tensor) -> Columns:
        """All that can be known of some records before they are decoded.

        Args:
            serialized: string [n], some of `read`.
            draws: float32 [n, D].

        Returns:
            "label": int32 [n], -1 without one; "draws"; and what `cut` needs.
        """
        record = records.parse(serialized)
        label = tf.cast(tf.maximum(record["label"] - self._label_offset, -1), tf.int32)
        columns = {"label": label, "draws": draws, **self._what_to_decode(record, draws)}
        return {**columns, "mirror": self._mirror_of(draws)} if self._mirror_of else columns

    def cut(self, planned: tf.data.Dataset, batch_size: int, threads: int) -> tf.data.Dataset:
        """Decodes what was planned.

        Args:
            planned: Elements of `plan`, to which columns [n, ...] may have been added.
            batch_size: Examples per batch, b; what is left at the end is dropped.
            threads: How many examples are decoded at a time.

        Returns:
            Batches of (uint8 [b, V, S, S, 3], the label, draws and added columns).
        """

        def finished(example):
            parts = self._decoded(example)
            return tf.stack([pixels.resized(part, self._size) for part in parts]), example

        def turned(parts, batch):
            return pixels.mirrored(parts, batch.pop("mirror")), batch

        # TensorFlow fuses a map with the batch that follows it.
        batches = self._each(planned, finished, threads).batch(batch_size, drop_remainder=True)
        return batches.map(_as_it_is(turned)) if self._mirror_of else batches

    def stages(self, planned: tf.data.Dataset, batch_size: int, threads: int) -> Stages:
        """What `cut` does, up to and including each of its stages, for a measurement.

        Args:
            planned: As for `cut`.
            batch_size: As for `cut`.
            threads: As for `cut`.

        Returns:
            Data sets of [b, ...] by the name of the stage; only their length counts.
        """

        def pixel(image):  # so that all of it has to be made
            return image[0, 0, 0]

        def decode(example):
            return [pixel(part) for part in self._decoded(example)]

        def augment(example):
            return [pixel(pixels.resized(part, self._size)) for part in self._decoded(example)]

        return {
            stage.__name__: self._each(planned, stage, threads).batch(batch_size)
            for stage in (decode, augment)
        }

    @staticmethod
    def _each(planned, finished, threads):
        return planned.unbatch().map(
            _as_it_is(finished),
            num_parallel_calls=threads,
            deterministic=True,
        )

    def _what_to_decode(self, record, draws):
        return {"encoded": record["encoded"]}

    def _decoded(self, example):
        """The parts of one image, not yet resized; takes out of the example what it needs."""
        image = pixels.decoded(example.pop("encoded"))
        height, width, _ = tf.unstack(tf.shape(image))
        windows = self._windows_of(height, width, example["draws"])
        inside, border = pixels.clipped(windows, height, width)
        parts = [pixels.cut(image, part) for part in tf.unstack(pixels.slices(inside))]
        return self._bordered(parts, tf.unstack(border))

    def _bordered(self, parts, borders):
        if not self._outside:
            return parts
        return [pixels.bordered(*pair) for pair in zip(parts, borders, strict=True)]


class Jpegs(Encoded):
    """JPEG records of known size: where to decode is found for many at a time."""

    def _what_to_decode(self, record, draws):
        height, width = (tf.cast(record[side], tf.int32) for side in ("height", "width"))
        windows, border = pixels.clipped(
            self._windows_of(height, width, draws), height[:, tf.newaxis], width[:, tf.newaxis]
        )
        corner = tf.reduce_min(windows[..., :2], axis=-2)
        end = tf.reduce_max(windows[..., :2] + windows[..., 2:], axis=-2)
        around = tf.concat([corner - _MARGIN, end - corner + 2 * _MARGIN], axis=-1)
        decoded, _ = pixels.clipped(around, height, width)
        windows -= tf.pad(decoded[:, :2], [[0, 0], [0, 2]])[:, tf.newaxis]
        columns = {
            "encoded": record["encoded"],
            "decoded": decoded,
            "parts": pixels.slices(windows),
        }
        return {**columns, "border": border} if self._outside else columns

    def _decoded(self, example):
        image = tf.io.decode_and_crop_jpeg(
            example.pop("encoded"), example.pop("decoded"), channels=3, dct_method=pixels.DCT
        )
        parts = [pixels.cut(image, part) for part in tf.unstack(example.pop("parts"))]
        return self._bordered(parts, tf.unstack(example.pop("border")) if self._outside else [])
