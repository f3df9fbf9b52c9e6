"""Readers that decode images when they are needed; of a JPEG only the part that is cropped."""

import functools
from collections.abc import Callable

import cv2
import numpy as np
import tensorflow as tf

from data.pipeline import callbacks, pixels
from data.pipeline.reader import Columns, Reader, no_autograph
from data.shards import random_access, records
from data.shards.datasets import UNKNOWN

# Pixels decoded in addition on each side of a window. At its border a partly decoded JPEG differs
# from the whole image, because chroma is interpolated.
_MARGIN = 2

_CALL_BYTES = 512 << 20  # approximate size of the images that one call decodes
_DECODED_PER_ENCODED_BYTE = 12  # of a typical JPEG

# Number of parallel calls: at least two, because cropping into the batch, up to a tenth of a call's
# time, uses one thread only; meanwhile the other call decodes.
_MIN_CALLS = 2
_THREADS_PER_ADDITIONAL_CALL = 8

_FORMATS = [records.JPEG, records.PNG, records.RAW]
_JPEG, _PNG, _RAW = range(len(_FORMATS))
_ONE_PIXEL_FILE = {
    format: cv2.imencode(extension, np.zeros([1, 1, 3], np.uint8))[1].tobytes()
    for format, extension in ((_JPEG, ".jpg"), (_PNG, ".png"))
}


class Encoded(Reader):
    """Reads records that hold image files of any format and size.

    One call produces a whole batch: its images are decoded in parallel, then cropped, resized and
    mirrored into the batch. A call per image would take a tenth longer. If the decoded images of a
    batch are large, the batch is produced by several calls.
    """

    def read(self, block: Columns) -> tf.Tensor:
        """Reads the serialised records of a block, string [records].

        Also checks their number: TensorFlow does not notice a shard truncated between two records.
        """
        paths = tf.constant([shard.path for shard in self.shards])
        files = tf.gather(paths, tf.boolean_mask(block["shards"], block["shards"] >= 0))
        at_most = tf.cast(block["records"], tf.int64) + 1
        serialized = tf.data.TFRecordDataset(files).batch(at_most).get_single_element()
        count = tf.size(serialized)
        message = ["shards changed: records expected, found, files", block["records"], count, files]
        is_complete = tf.debugging.Assert(tf.equal(count, block["records"]), message)
        with tf.control_dependencies([is_complete]):
            return tf.identity(serialized)

    def read_at(self, block: Columns, indices: tf.Tensor) -> tf.Tensor:
        """Reads only the serialised records at the given indices, string [n]."""
        arguments = [block["shards"], block["records"], indices]
        return tf.ensure_shape(callbacks.call(self._read_at, arguments, tf.string), [None])

    def _read_at(self, shards: np.ndarray, expected: int, indices: np.ndarray) -> np.ndarray:
        return self._files.read(shards[shards >= 0], expected, indices)

    @functools.cached_property
    def _files(self) -> random_access.Files:
        return random_access.Files([shard.path for shard in self.shards])

    def plan(self, rows: tf.Tensor, draws: tf.Tensor) -> Columns:
        """Parses serialised records and computes which part of each image to decode."""
        record = records.parse(rows)
        columns = self._columns_to_decode(record, draws)
        return {"label": self.labels(record["label"]), "draws": draws, **columns}

    def _columns_to_decode(self, record: Columns, draws: tf.Tensor) -> Columns:
        """Returns the columns that `decode` needs, from parsed records [n] and draws [n, D]."""
        return {"encoded": record["encoded"]}

    def crop(self, planned: tf.data.Dataset, batch_size: int, threads: int) -> tf.data.Dataset:
        """Decodes, crops, resizes and mirrors images and batches them."""
        count = self._images_per_call(batch_size)

        def decode_and_crop(columns):
            decoded, windows = self.decode(columns)
            mirror = self.mirrored(windows, columns["draws"])
            crops = callbacks.call(self._crop, [windows, mirror, *decoded], tf.uint8)
            shape = [count, windows.shape[1], self.size, self.size, 3]
            return tf.ensure_shape(crops, shape), columns

        batches = self.map_calls(planned, decode_and_crop, batch_size, threads)
        return batches if count == batch_size else batches.rebatch(batch_size, drop_remainder=True)

    def map_calls(
        self, planned: tf.data.Dataset, function: Callable, batch_size: int, threads: int
    ) -> tf.data.Dataset:
        """Maps a function over planned images, as many at a time as one call decodes.

        Args:
            planned: Elements of `plan`.
            function: Function of the columns of `plan`, [n, ...].
            batch_size: Examples per batch; n is a divisor of it.
            threads: Size of the pipeline's thread pool.
        """
        return planned.rebatch(self._images_per_call(batch_size), drop_remainder=True).map(
            no_autograph(function),
            num_parallel_calls=_MIN_CALLS + threads // _THREADS_PER_ADDITIONAL_CALL,
            deterministic=True,
        )

    def _images_per_call(self, batch_size: int) -> int:
        """Returns the largest divisor of the batch size whose images fit into `_CALL_BYTES`."""
        size = sum(shard.bytes for shard in self.shards)
        examples = max(1, sum(shard.examples for shard in self.shards))
        most = max(1, _CALL_BYTES * examples // max(1, _DECODED_PER_ENCODED_BYTE * size))
        return max(n for n in range(1, min(batch_size, most) + 1) if batch_size % n == 0)

    def decode(self, columns: Columns) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Decodes n images; removes the columns that are needed only for that from `columns`.

        Returns:
            The tensors that `_crop` receives, here images uint8 [H, W, 3], and the windows into
            them, int32 [n, V, 4].
        """
        images = [pixels.decode_image(encoded) for encoded in tf.unstack(columns.pop("encoded"))]
        height, width, _ = tf.unstack(tf.stack([tf.shape(image) for image in images]), axis=1)
        return images, self.windows_fn(height, width, columns["draws"])

    def _crop(self, windows: np.ndarray, mirror: np.ndarray, *images: np.ndarray) -> np.ndarray:
        return pixels.crop(images, windows, mirror, self.size, reflects=self.reflects)


class Jpegs(Encoded):
    """Reads JPEG records of known size, so that the part to decode can be computed in advance."""

    def _columns_to_decode(self, record: Columns, draws: tf.Tensor) -> Columns:
        height, width = (tf.cast(record[side], tf.int32) for side in ("height", "width"))
        windows = self.windows_fn(height, width, draws)
        first = tf.reduce_min(windows[..., :2], axis=1) - _MARGIN
        end = tf.reduce_max(windows[..., :2] + windows[..., 2:], axis=1) + _MARGIN
        first, end = tf.maximum(first, 0), tf.minimum(end, tf.stack([height, width], axis=-1))
        return {
            "encoded": record["encoded"],
            "decoded_part": tf.concat([first, end - first], axis=-1),
            "windows": windows - tf.pad(first, [[0, 0], [0, 2]])[:, tf.newaxis],
        }

    def decode(self, columns: Columns) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Decodes the part of each JPEG around its windows."""
        files, parts = (tf.unstack(columns.pop(name)) for name in ("encoded", "decoded_part"))
        images = [
            tf.io.decode_and_crop_jpeg(file, part, channels=3, dct_method=pixels.DCT)
            for file, part in zip(files, parts, strict=True)
        ]
        return images, columns.pop("windows")


class Mixed(Jpegs):
    """Reads records of known size in any of the formats JPEG, PNG and RAW.

    A conditional in the graph that chooses the decoder takes 7 us, a third of the time of decoding
    a small JPEG. Instead a JPEG decoder and a PNG decoder run for every image, and the one of the
    wrong format gets a file of a single pixel, which takes less than 3.5 us. PNGs are decoded as a
    whole; raw pixels need no decoder.
    """

    def _columns_to_decode(self, record: Columns, draws: tf.Tensor) -> Columns:
        is_format = tf.cast(record["format"][:, tf.newaxis] == _FORMATS, tf.int32)
        return {
            **super()._columns_to_decode(record, draws),
            "format": tf.argmax(is_format, axis=1),
            "shape": tf.stack([record["height"], record["width"]], axis=1),
        }

    def decode(self, columns: Columns) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Passes each image through a JPEG decoder and a PNG decoder."""
        format, shape = columns.pop("format"), columns.pop("shape")
        encoded, part = columns["encoded"], columns["decoded_part"]
        is_jpeg = format == _JPEG
        columns["encoded"] = tf.where(is_jpeg, encoded, _ONE_PIXEL_FILE[_JPEG])
        columns["decoded_part"] = tf.where(is_jpeg[:, tf.newaxis], part, [[0, 0, 1, 1]])
        jpegs, windows = super().decode(columns)
        files = tf.where(format == _PNG, encoded, _ONE_PIXEL_FILE[_PNG])
        pngs = [tf.io.decode_png(file, channels=3) for file in tf.unstack(files)]
        raw = tf.where(format == _RAW, encoded, b"")
        return [format, shape, part, raw, *jpegs, *pngs], windows

    def _crop(
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
            whole = pngs[number] if is_png else pixels.from_raw(raw[number], *shape[number])
            top, left, height, width = part[number]
            images[number] = whole[top : top + height, left : left + width]
        return super()._crop(windows, mirror, *images)


# The reader of a split by its encoding; for raw splits see `decoded.Decoded`.
READERS = {"jpeg": Jpegs, "png": Mixed, "mixed": Mixed, UNKNOWN: Encoded}
