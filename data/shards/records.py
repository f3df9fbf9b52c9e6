"""The format on disk: TFRecord shards of `tf.train.Example`.

The keys are those of other tools (TF-slim, Model Garden); no other file knows them.
"""

import functools
import hashlib
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import crc32c
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from data.images.reading import shortened
from data.shards import messages

ENCODED = "image/encoded"
FORMAT = "image/format"
LABEL = "image/class/label"
TEXT = "image/class/text"  # name of the label; in other tools' records only
HEIGHT = "image/height"
WIDTH = "image/width"
FILENAME = "image/filename"

JPEG, PNG, RAW = b"JPEG", b"PNG", b"RAW"  # the formats of our own records

_LENGTH = struct.Struct("<Q")  # at the begin of a record
_CHECKSUM = struct.Struct("<I")  # after the length, and after the content
HEADER_BYTES = _LENGTH.size + _CHECKSUM.size
_FOOTER_BYTES = _CHECKSUM.size

_FEATURES = {
    "encoded": (ENCODED, tf.io.FixedLenFeature([], tf.string)),
    "label": (LABEL, tf.io.FixedLenFeature([], tf.int64, default_value=-1)),
    "height": (HEIGHT, tf.io.FixedLenFeature([], tf.int64, default_value=0)),
    "width": (WIDTH, tf.io.FixedLenFeature([], tf.int64, default_value=0)),
    "format": (FORMAT, tf.io.FixedLenFeature([], tf.string, default_value="")),
    "filename": (FILENAME, tf.io.FixedLenFeature([], tf.string, default_value="")),
    "text": (TEXT, tf.io.FixedLenFeature([], tf.string, default_value="")),
}
_TYPES = {tf.string: "bytes_list", tf.int64: "int64_list"}  # names in a tf.train.Example


def shard_name(split: str, index: int, shards: int) -> str:
    """Returns the file name of a shard, as in "train-00000-of-00016.tfrecord"."""
    return f"{split}-{index:05d}-of-{shards:05d}.tfrecord"


def example_bytes(
    *, encoded: bytes, format: str, label: int, height: int, width: int, filename: str
) -> bytes:
    """Serialises one image.

    Args:
        encoded: An image file, or for format "RAW" uint8 RGB pixels [height, width, 3].
        format: "JPEG", "PNG" or "RAW".
        label: Class from 0; -1 for an image without one.
        height: Height of the stored image in pixels.
        width: Width of the stored image in pixels.
        filename: Name of the image, relative to its source.

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
    return messages.field(1, *entries)


def write_shard(path: str | Path, records: Iterable[bytes]) -> tuple[int, int, str]:
    """Writes one shard and flushes it to the disk.

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
    """Writes one shard without `seal`; returns the number of examples.

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
    return examples


def seal(path: str | Path) -> tuple[int, str]:
    """Flushes a shard to the disk; returns its size in bytes and its sha256.

    Raises:
        RuntimeError: If it cannot be written, as on a full disk.
    """
    try:
        with open(path, "rb") as shard:
            os.fsync(shard.fileno())
            digest = hashlib.file_digest(shard, "sha256").hexdigest()
            return os.fstat(shard.fileno()).st_size, digest
    except OSError as error:
        raise RuntimeError(f"{path} cannot be written: {error.strerror}") from None


def parse(
    serialized: tf.Tensor, *, filename: bool = False, text: bool = False
) -> dict[str, tf.Tensor]:
    """Parses records; decodes no image.

    Args:
        serialized: Records of a shard, string [] or [n].
        filename: Whether to return the file names too.
        text: Whether to return the names of the labels too.

    Returns:
        "encoded", "format": string; "label", "height", "width": int64; with `filename` also
        "filename", with `text` also "text": string; all of the argument's shape. If a foreign
        record lacks them, label is -1, height and width are 0, format, filename and text empty.
    """
    optional = {"filename": filename, "text": text}
    features = {name: row for name, row in _FEATURES.items() if optional.get(name, True)}
    parsed = tf.io.parse_example(serialized, dict(features.values()))
    return {name: parsed[key] for name, (key, _) in features.items()}


def keys(serialized: bytes) -> str:
    """Lists the keys of a record."""
    return shortened(sorted(tf.train.Example.FromString(serialized).features.feature)) or "none"


def complaint(serialized: bytes) -> str:
    """Describes why `parse` cannot read a record; "" if it can."""
    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except DecodeError:
        return "no tf.train.Example"
    if ENCODED not in features:
        return f"the keys {keys(serialized)}; expected {ENCODED} and {LABEL}"
    for key, row in _FEATURES.values():
        kind = features[key].WhichOneof("kind") if key in features else None
        count = len(getattr(features[key], kind).value) if kind else 1
        if kind not in (None, _TYPES[row.dtype]) or count != 1:
            return f"{key} as {kind} of {count}; expected {_TYPES[row.dtype]} of 1"
    return ""


class Located(NamedTuple):
    """The fields of a record; of the image, the first byte in its shard and the one after it."""

    begin: int
    end: int
    format: str
    height: int
    width: int
    label: int
    filename: str


def frames(memory: memoryview, max_records: int = sys.maxsize) -> tuple[list[tuple[int, int]], int]:
    """Finds the records of a shard by their stated lengths; checks no checksum.

    Args:
        memory: The whole file, uint8 [bytes].
        max_records: Maximum number of records.

    Returns:
        Begin and end of the content of every complete record, and the end of the last one, which
        is less than the size of a truncated file.
    """
    frames, offset = [], 0
    while offset + HEADER_BYTES <= len(memory) and len(frames) < max_records:
        (length,) = _LENGTH.unpack_from(memory, offset)
        begin = offset + HEADER_BYTES
        if begin + length + _FOOTER_BYTES > len(memory):
            break
        frames.append((begin, begin + length))
        offset = begin + length + _FOOTER_BYTES
    return frames, offset


def begins(memory: memoryview | bytes) -> bool:
    """Whether a file begins like a shard, with a length and its checksum."""
    return _checksum(memory[: _LENGTH.size]) == memory[_LENGTH.size : HEADER_BYTES]


def read_at(file: BinaryIO, begin: int, end: int) -> bytes:
    """Reads one record of a shard and compares its checksum.

    Args:
        file: The shard.
        begin: Begin of the record's content, from `frames`.
        end: End of the record's content.

    Raises:
        ValueError: If the record is damaged.
    """
    file.seek(begin)
    content = file.read(end - begin)
    if _checksum(content) != file.read(_FOOTER_BYTES):
        raise ValueError(f"{file.name}: the record at byte {begin} is damaged")
    return content


def unsound(memory: memoryview, frames: list[tuple[int, int]]) -> list[int]:
    """Finds the records with a wrong checksum of their length or content.

    Args:
        memory: The whole file, uint8 [bytes].
        frames: Begin and end of the contents of its records.

    Returns:
        Numbers of these records, from 0.
    """
    return [
        number
        for number, (begin, end) in enumerate(frames)
        if _checksum(memory[begin - HEADER_BYTES :][: _LENGTH.size])
        != memory[begin - _CHECKSUM.size : begin]
        or _checksum(memory[begin:end]) != memory[end : end + _CHECKSUM.size]
    ]


def _checksum(data: memoryview | bytes) -> bytes:
    """Computes the checksum of TFRecord files: CRC32C, rotated, plus a constant."""
    crc = crc32c.crc32c(data)
    return _CHECKSUM.pack((crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF)


def locate_image(memory: memoryview, begin: int, end: int) -> Located:
    """Finds the image in `memory[begin:end]`, an example that `example_bytes` made.

    Raises:
        ValueError: If it is something else.
    """
    try:
        values = _values(memory, begin, end)
        text = {
            key: os.fsdecode(bytes(memory[slice(*values[key.encode()])]))
            for key in (FORMAT, FILENAME)
        }
        numbers = {key: _signed(memory, values, key) for key in (HEIGHT, WIDTH, LABEL)}
        return Located(*values[ENCODED.encode()], text[FORMAT], *numbers.values(), text[FILENAME])
    except (IndexError, KeyError, ValueError) as error:
        raise ValueError(f"no record of an image: {error!r}") from error


def locate(shard: np.ndarray) -> np.ndarray:
    """Finds the pixels in a shard of "RAW" examples that `write_shard` wrote.

    Args:
        shard: The whole file, uint8 [bytes].

    Returns:
        int64 [n, 4], a row per record: first byte of its pixels, height, width, label.

    Raises:
        ValueError: If the file is cut off or damaged, or holds something else; names the record.
    """
    memory, rows = memoryview(shard), []
    records, end = frames(memory)
    if damaged := unsound(memory, records):
        raise ValueError(f"record {damaged[0]} is damaged: its checksum is wrong")
    if end < len(memory):
        raise ValueError(f"record {len(records)} is damaged or cut off, at byte {end}")
    for number, frame in enumerate(records):
        try:
            rows.append(_located(memory, *frame))
        except (IndexError, KeyError, ValueError) as error:
            raise ValueError(f"record {number} is not one of raw pixels: {error!r}") from error
    return np.array(rows, np.int64).reshape([-1, 4])


def _located(memory: memoryview, begin: int, end: int) -> tuple[int, int, int, int]:
    """Finds the first pixel byte, height, width and label of the example in `memory[begin:end]`."""
    values = _values(memory, begin, end)
    pixels, last = values[ENCODED.encode()]
    height, width, label = (_signed(memory, values, key) for key in (HEIGHT, WIDTH, LABEL))
    if last - pixels != 3 * height * width:
        raise KeyError(f"{last - pixels} bytes of {height} x {width} pixels")
    return pixels, height, width, label


def _values(memory: memoryview, begin: int, end: int) -> dict[bytes, tuple[int, int]]:
    """Finds begin and end of the value of each feature of an example, by its key."""
    result = {}
    (features,) = messages.fields(memory, begin, end)  # the only one of an Example
    for entry in messages.fields(memory, *features):
        (key_begin, key_end), value = messages.fields(memory, *entry)
        (values,) = messages.fields(memory, *value)  # a list of bytes or of int64, of length 1
        (first,) = messages.fields(memory, *values)
        result[bytes(memory[key_begin:key_end])] = first
    return result


def _signed(memory: memoryview, values: dict[bytes, tuple[int, int]], key: str) -> int:
    value, _ = messages.read_varint(memory, values[key.encode()][0])
    return value - (value >> 63 << 64)


# The same bytes as Google's library, in half the time, which matters if images are small.
def _entry(key: str, value: bytes) -> bytes:
    """Encodes a feature with one bytes value."""
    return messages.field(
        1,
        messages.field(1, key.encode()),
        messages.field(2, messages.field(1, messages.field(1, value))),
    )


@functools.lru_cache(maxsize=4096)
def _number(key: str, value: int) -> bytes:
    """Encodes a feature with one int64 value."""
    content = messages.field(1, messages.varint(value & (1 << 64) - 1))
    return messages.field(
        1, messages.field(1, key.encode()), messages.field(2, messages.field(3, content))
    )
