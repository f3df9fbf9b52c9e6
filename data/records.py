"""The bytes on disk: TFRecord shards of `tf.train.Example` under the keys the field shares.

The only file that knows them. Other tools' shards (TF-slim, Model Garden) use the same keys.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import tensorflow as tf

ENCODED = "image/encoded"
FORMAT = "image/format"
LABEL = "image/class/label"
HEIGHT = "image/height"
WIDTH = "image/width"
FILENAME = "image/filename"

_FEATURES = {
    "encoded": (ENCODED, tf.io.FixedLenFeature([], tf.string)),
    "label": (LABEL, tf.io.FixedLenFeature([], tf.int64, default_value=-1)),
    "height": (HEIGHT, tf.io.FixedLenFeature([], tf.int64, default_value=0)),
    "width": (WIDTH, tf.io.FixedLenFeature([], tf.int64, default_value=0)),
    "filename": (FILENAME, tf.io.FixedLenFeature([], tf.string, default_value="")),
}


def shard_name(split: str, index: int, shards: int) -> str:
    """Returns the file name of a shard, as in "train-00000-of-00016.tfrecord"."""
    return f"{split}-{index:05d}-of-{shards:05d}.tfrecord"


def example_bytes(
    *, encoded: bytes, format: str, label: int, height: int, width: int, filename: str
) -> bytes:
    """Serialises one image.

    Args:
        encoded: A JPEG file, or for format "RAW" uint8 RGB pixels [height, width, 3].
        format: "JPEG" or "RAW".
        label: Class from 0; -1 for an image without one.
        height: Of the stored image, in pixels.
        width: Of the stored image, in pixels.
        filename: Where the image came from, relative to its source.

    Returns:
        A serialised `tf.train.Example`.
    """
    values = {
        ENCODED: _bytes(encoded),
        FORMAT: _bytes(format.encode()),
        LABEL: _int64(label),
        HEIGHT: _int64(height),
        WIDTH: _int64(width),
        FILENAME: _bytes(os.fsencode(filename)),
    }
    example = tf.train.Example(features=tf.train.Features(feature=values))
    return example.SerializeToString(deterministic=True)


def write_shard(path: str | Path, records: Iterable[bytes]) -> tuple[int, int, str]:
    """Writes one shard and makes sure that it is on the disk.

    Args:
        path: File to write.
        records: Serialised examples, written in this order.

    Returns:
        Number of examples, size of the file in bytes, its sha256 in hexadecimal.

    Raises:
        RuntimeError: If it cannot be written, as on a full disk.
    """
    examples = 0
    try:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records:
                writer.write(record)
                examples += 1
    except tf.errors.OpError as error:
        raise RuntimeError(f"{path} cannot be written: {error.message}") from None
    with open(path, "rb") as shard:
        os.fsync(shard.fileno())
        digest = hashlib.file_digest(shard, "sha256").hexdigest()
    return examples, os.path.getsize(path), digest


def parse(serialized: tf.Tensor, *, filename: bool = False) -> dict[str, tf.Tensor]:
    """Reads one record; decodes nothing.

    Args:
        serialized: string [], one record of a shard.
        filename: Whether to read the file name too.

    Returns:
        "encoded": string []; "label", "height", "width": int64 [] (-1, 0, 0 where a foreign
        record has none); with `filename` also "filename": string [].
    """
    wanted = {name: row for name, row in _FEATURES.items() if filename or name != "filename"}
    parsed = tf.io.parse_single_example(serialized, dict(wanted.values()))
    return {name: parsed[key] for name, (key, _) in wanted.items()}


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _int64(value: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
