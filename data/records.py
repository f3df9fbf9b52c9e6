"""The bytes on disk: TFRecord shards of `tf.train.Example` under the keys the field shares.

The only file that knows them. Other tools' shards (TF-slim, Model Garden) use the same keys.
"""

import functools
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
        A serialised `tf.train.Example`, its features in the order of their keys.
    """
    entries = (  # in the order of their keys
        _number(LABEL, label),
        _entry(ENCODED, encoded),
        _entry(FILENAME, os.fsencode(filename)),
        _entry(FORMAT, format.encode()),
        _number(HEIGHT, height),
        _number(WIDTH, width),
    )
    return _field(1, *entries)


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
    return write_records(path, records), *seal(path)


def write_records(path: str | Path, records: Iterable[bytes]) -> int:
    """As `write_shard`, but for what `seal` does; returns the number of examples."""
    examples = 0
    try:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records:
                writer.write(record)
                examples += 1
    except tf.errors.OpError as error:
        raise RuntimeError(f"{path} cannot be written: {error.message}") from None
    return examples


def seal(path: str | Path) -> tuple[int, str]:
    """Makes sure that a shard is on the disk; returns its size in bytes and its sha256.

    Raises:
        RuntimeError: As `write_shard`.
    """
    try:
        with open(path, "rb") as shard:
            os.fsync(shard.fileno())
            digest = hashlib.file_digest(shard, "sha256").hexdigest()
            return os.fstat(shard.fileno()).st_size, digest
    except OSError as error:
        raise RuntimeError(f"{path} cannot be written: {error.strerror}") from None


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


# What protobuf itself would write, in half the time, which counts where images are small.


def _entry(key: str, value: bytes) -> bytes:
    """A feature with one bytes value."""
    return _field(1, _field(1, key.encode()), _field(2, _field(1, _field(1, value))))


@functools.lru_cache(maxsize=4096)
def _number(key: str, value: int) -> bytes:
    """A feature with one int64 value."""
    content = _field(1, _varint(value & (1 << 64) - 1))
    return _field(1, _field(1, key.encode()), _field(2, _field(3, content)))


def _field(number: int, *parts: bytes) -> bytes:
    """A length-delimited field of a message."""
    content = b"".join(parts)
    return b"".join((bytes((number << 3 | 2,)), _varint(len(content)), content))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
