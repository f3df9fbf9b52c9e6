"""Readers that decode images when they are needed, and of JPEGs no more than the windows."""

import functools
from collections.abc import Callable

import cv2
import numpy as np
import tensorflow as tf

from data.pipeline import callbacks, pixels
from data.pipeline.reader import Columns, Reader, Stages
from data.shards import random_access, records
from data.shards.datasets import UNKNOWN

_as_it_is = tf.autograph.experimental.do_not_convert

# At the border of a partly decoded JPEG colours differ from the whole (chroma is interpolated).
_MARGIN = 2

# Assembling a batch, which is not parallel, takes at most a tenth of the time.
_BATCHES = 2
_CALL_BYTES = 512 << 20  # of images decoded by a call, about
_DECODED = 12  # bytes of decoded pixels per byte of a JPEG
_THREADS_OF_A_BATCH = 8

_FORMATS = [records.JPEG, records.PNG, records.RAW]
_JPEG, _PNG, _RAW = range(len(_FORMATS))
_PIXEL = {  # a file of one pixel
    format: cv2.imencode(extension, np.zeros([1, 1, 3], np.uint8))[1].tobytes()
    for format, extension in ((_JPEG, ".jpg"), (_PNG, ".png"))
}


class Encoded(Reader):
    """Reads records that hold image files of any kind and size.

    A batch is one call: all its images are decoded in parallel, then cut, resized and mirrored
    into the batch. A call per image would add a tenth to the time of decoding.
    """

    @functools.cached_property
    def _files(self) -> random_access.Files:
        return random_access.Files([shard.path for shard in self.shards])

    def read(self, block: Columns) -> tf.Tensor:
        """Reads a block; a row is a serialised record, string [].

        Also counts the records: TensorFlow does not notice a shard that was cut between two.
        """
        paths = tf.constant([shard.path for shard in self.shards])
        files = tf.gather(paths, tf.boolean_mask(block["shards"], block["shards"] >= 0))
        at_most = tf.cast(block["records"], tf.int64) + 1
        serialized = tf.data.TFRecordDataset(files).batch(at_most).get_single_element()
        count = tf.size(serialized)
        facts = ["shards changed: records expected, found, files", block["records"], count, files]
        whole = tf.debugging.Assert(tf.equal(count, block["records"]), facts)
        with tf.control_dependencies([whole]):
            return tf.identity(serialized)

    def pick(self, block: Columns, places: tf.Tensor) -> tf.Tensor:
        """Reads the records at the given places, and no others."""
        arguments = [block["shards"], block["records"], places]
        return tf.ensure_shape(callbacks.call(self._picked, arguments, tf.string), [None])

    def _picked(self, shards: np.ndarray, expected: int, places: np.ndarray) -> np.ndarray:
        return self._files.read(shards[shards >= 0], expected, places)

    def plan(self, rows: tf.Tensor, draws: tf.Tensor) -> Columns:
        """Parses records and plans how to decode them."""
        record = records.parse(rows)
        known = self._what_to_decode(record, draws)
        return {"label": self.labels(record["label"]), "draws": draws, **known}

    def cut(self, planned: tf.data.Dataset, batch_size: int, threads: int) -> tf.data.Dataset:
        """Decodes images and cuts their windows out."""
        count = self._per_call(batch_size)

        def finished(batch):
            images, windows = self._decoded(batch)
            mirror = self.mirrored(windows, batch["draws"])
            parts = callbacks.call(self._cut, [windows, mirror, *images], tf.uint8)
            shape = [count, windows.shape[1], self.size, self.size, 3]
            return tf.ensure_shape(parts, shape), batch

        batches = _each(planned, finished, count, threads)
        return batches if count == batch_size else batches.rebatch(batch_size, drop_remainder=True)

    def stages(self, planned: tf.data.Dataset, batch_size: int, threads: int) -> Stages:
        """The stages decode and augment."""

        def decoded(batch):
            images, windows = self._decoded(batch)
            sizes = [tf.size(image) for image in images]  # an unused image would not be decoded
            return windows[:, 0, 0] + tf.add_n(sizes)

        whole = self.cut(planned, batch_size, threads)
        return {
            "decode": _each(planned, decoded, self._per_call(batch_size), threads),
            "augment": whole.map(_as_it_is(lambda parts, batch: parts[:, 0, 0, 0, 0])),
        }

    def _per_call(self, batch_size: int) -> int:
        """Images per call, which are decoded at the same time: a divisor of the batch size."""
        size = sum(shard.bytes for shard in self.shards)
        examples = max(1, sum(shard.examples for shard in self.shards))
        most = max(1, _CALL_BYTES * examples // max(1, _DECODED * size))
        return max(n for n in range(1, min(batch_size, most) + 1) if batch_size % n == 0)

    def _cut(self, windows: np.ndarray, mirror: np.ndarray, *images: np.ndarray) -> np.ndarray:
        return pixels.cut(images, windows, mirror, self.size)

    def _what_to_decode(self, record: Columns, draws: tf.Tensor) -> Columns:
        """The columns that `_decoded` needs, from a parsed record."""
        return {"encoded": record["encoded"]}

    def _decoded(self, batch: Columns) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Decodes a batch [b, ...], whose columns it pops: arguments of `_cut`, and windows."""
        images = [pixels.decoded(encoded) for encoded in tf.unstack(batch.pop("encoded"))]
        height, width, _ = tf.unstack(tf.stack([tf.shape(image) for image in images]), axis=1)
        return images, self.windows_of(height, width, batch["draws"])


class Jpegs(Encoded):
    """Reads JPEG records of known size: the part to decode is computed in bulk."""

    def _what_to_decode(self, record: Columns, draws: tf.Tensor) -> Columns:
        height, width = (tf.cast(record[side], tf.int32) for side in ("height", "width"))
        windows = self.windows_of(height, width, draws)
        shape = tf.stack([height, width], axis=-1)
        first = tf.reduce_min(windows[..., :2], axis=1) - _MARGIN
        end = tf.reduce_max(windows[..., :2] + windows[..., 2:], axis=1) + _MARGIN
        corner, end = tf.maximum(first, 0), tf.minimum(end, shape)
        return {
            "encoded": record["encoded"],
            "decoded": tf.concat([corner, end - corner], axis=-1),
            "windows": windows - tf.pad(corner, [[0, 0], [0, 2]])[:, tf.newaxis],
        }

    def _decoded(self, batch: Columns) -> tuple[list[tf.Tensor], tf.Tensor]:
        each = zip(*(tf.unstack(batch.pop(name)) for name in ("encoded", "decoded")), strict=True)
        images = [
            tf.io.decode_and_crop_jpeg(encoded, part, channels=3, dct_method=pixels.DCT)
            for encoded, part in each
        ]
        return images, batch.pop("windows")


class Mixed(Jpegs):
    """Reads records of known size in any of the formats JPEG, PNG and RAW.

    Choosing the decoder in the graph takes 7 us, a third of the time of decoding a small JPEG.
    Instead every image passes a JPEG decoder and a PNG decoder, and the wrong one gets a file of a
    single pixel, in less than half that time. PNGs are decoded whole, raw pixels not at all.
    """

    def _what_to_decode(self, record: Columns, draws: tf.Tensor) -> Columns:
        is_format = tf.cast(record["format"][:, tf.newaxis] == _FORMATS, tf.int32)
        return {
            **super()._what_to_decode(record, draws),
            "format": tf.argmax(is_format, axis=1),
            "shape": tf.stack([record["height"], record["width"]], axis=1),
        }

    def _decoded(self, batch: Columns) -> tuple[list[tf.Tensor], tf.Tensor]:
        format, shape, part = batch.pop("format"), batch.pop("shape"), batch["decoded"]
        is_jpeg, encoded = format == _JPEG, batch["encoded"]
        batch["encoded"] = tf.where(is_jpeg, encoded, _PIXEL[_JPEG])
        batch["decoded"] = tf.where(is_jpeg[:, tf.newaxis], part, [[0, 0, 1, 1]])
        jpegs, windows = super()._decoded(batch)
        files = tf.where(format == _PNG, encoded, _PIXEL[_PNG])
        pngs = [tf.io.decode_png(file, channels=3) for file in tf.unstack(files)]
        raw = tf.where(format == _RAW, encoded, b"")
        return [format, shape, part, raw, *jpegs, *pngs], windows

    def _cut(
        self,
        windows: np.ndarray,
        mirror: np.ndarray,
        format: np.ndarray,
        shape: np.ndarray,
        part: np.ndarray,
        raw: np.ndarray,
        *decoded: np.ndarray,
    ) -> np.ndarray:
        images, pngs = list(decoded[: len(raw)]), decoded[len(raw) :]
        for number in np.flatnonzero(format != _JPEG):
            is_png = format[number] == _PNG
            whole = pngs[number] if is_png else pixels.of_raw(raw[number], *shape[number])
            top, left, height, width = part[number]
            images[number] = whole[top : top + height, left : left + width]
        return super()._cut(windows, mirror, *images)


# The reader of a split by its encoding; for raw splits see `decoded.Decoded`.
READERS = {"jpeg": Jpegs, "png": Mixed, "mixed": Mixed, UNKNOWN: Encoded}


def _each(
    planned: tf.data.Dataset, function: Callable, count: int, threads: int
) -> tf.data.Dataset:
    """Calls a function with `count` planned images at a time, a few calls in parallel."""
    return planned.rebatch(count, drop_remainder=True).map(
        _as_it_is(function),
        num_parallel_calls=_BATCHES + threads // _THREADS_OF_A_BATCH,
        deterministic=True,
    )
