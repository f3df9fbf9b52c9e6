"""Reader of decoded images: of raw shards, or of a split that was decoded into memory.

A batch is cropped in one pass over NumPy arrays: TensorFlow's overhead per image would take longer,
for images of 32 x 32 many times longer. Raw shards are memory-mapped, so that the pixels of a batch
are copied once only, from the system's page cache.
"""

import collections
import functools
import mmap
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
import tensorflow as tf
from numpy.lib.stride_tricks import as_strided

from data.pipeline import buffers, callbacks, facts, order, pixels
from data.pipeline.reader import Columns, Reader, no_autograph
from data.shards import records
from data.shards.datasets import UNKNOWN, Dataset, Shard
from runtime.memory import free_memory

CACHES = ("auto", "memory", "none")

_AUTO_BYTES = 2 << 30  # maximum size of the images that "auto" decodes to memory
_AUTO_FRACTION = 0.25  # of the free memory, another maximum of that size
_SAMPLE = 100  # images from which the size of all is estimated
_CALL_BYTES = 4 << 20  # approximate size of the crops that one call makes
_CHUNK = 512  # maximum number of images that a thread decodes at a time
_CHUNK_BYTES = 4 << 20  # approximate size of their pixels
_MAPPED_BYTES = 4 * order.BLOCK_BYTES  # a block, the next one, and blocks of batches still in use


class Images(NamedTuple):
    """The decoded images of one shard.

    Attributes:
        pixels: uint8 [bytes], in memory or memory-mapped: the images' RGB values, row by row.
        table: int64 [n, 4], a row per image: offset of its first byte in `pixels`, height, width,
            label.
    """

    pixels: np.ndarray
    table: np.ndarray


OpenShard = Callable[[Shard], Images]


class Decoded(Reader):
    """Reads decoded images."""

    def __init__(self, dataset: Dataset, split: str, *, open_shard: OpenShard, **options) -> None:
        """Prepares to read a split.

        Args:
            dataset: The data set.
            split: One of its splits.
            open_shard: Opens a shard; may be called repeatedly for the same shard.
            **options: The other arguments of `Reader`.
        """
        super().__init__(dataset, split, **options)
        self._open = open_shard

    def read(self, block: Columns) -> tf.Tensor:
        """Reads where the images of a block are: shard and row of `Images.table`, int64 [n, 5]."""
        rows = callbacks.call(self._read, [block["shards"], block["records"]], tf.int64)
        return tf.ensure_shape(rows, [None, 5])

    def _read(self, shards: np.ndarray, expected: int) -> np.ndarray:
        tables = []
        for index in shards[shards >= 0]:
            table = self._open(self.shards[index]).table
            tables.append(np.insert(table, 0, index, axis=1))
        rows = np.concatenate(tables)
        if len(rows) != expected:
            files = [self.shards[index].path for index in shards[shards >= 0]]
            raise ValueError(f"shards changed: records expected {expected}, {len(rows)} in {files}")
        return rows

    def plan(self, rows: tf.Tensor, draws: tf.Tensor) -> Columns:
        """Computes windows and mirroring."""
        sizes_and_labels = tf.cast(rows[:, 2:], tf.int32)  # after shard and offset
        height, width, label = tf.unstack(sizes_and_labels, axis=1)
        windows = self.windows_fn(height, width, draws)
        return {
            "label": self.labels(label),
            "draws": draws,
            "rows": rows,
            "windows": windows,
            "mirror": self.mirrored(windows, draws),
        }

    def crop(self, planned: tf.data.Dataset, batch_size: int, threads: int) -> tf.data.Dataset:
        """Crops images and batches them; one call makes several batches if they are small."""
        side, views = self.size, planned.element_spec["windows"].shape[1]

        def crop(columns):
            arguments = [columns.pop(name) for name in ("rows", "windows", "mirror")]
            crops = callbacks.call(self._crop, arguments, tf.uint8)
            return tf.ensure_shape(crops, [None, views, side, side, 3]), columns

        batches = max(1, _CALL_BYTES // (batch_size * views * side * side * 3))
        return (
            planned.rebatch(batches * batch_size)
            .map(no_autograph(crop), num_parallel_calls=threads, deterministic=True)
            .rebatch(batch_size, drop_remainder=True)
        )

    def _crop(self, rows: np.ndarray, windows: np.ndarray, mirror: np.ndarray) -> np.ndarray:
        opened = {
            shard: self._open(self.shards[shard]).pixels for shard in set(rows[:, 0].tolist())
        }
        memory, *others = {id(data): data for data in opened.values()}.values()
        # `gather` is faster, but only for one memory and windows that need no resizing.
        if others or (windows[..., 2:] != self.size).any() or len(memory) < 3 * self.size:
            images = [_image(opened[shard], *where) for shard, *where, _ in rows.tolist()]
            return pixels.crop(images, windows, mirror, self.size, reflects=self.reflects)
        result = buffers.empty([*mirror.shape, self.size, self.size, 3])
        images = np.repeat(rows[:, 1:4], mirror.shape[1], axis=0)
        flat = windows.reshape([-1, 4]), result.reshape([-1, *result.shape[2:]])
        gather(memory, images, *flat, reflects=self.reflects)
        return pixels.mirror(result, mirror)


def gather(
    memory: np.ndarray,
    images: np.ndarray,
    windows: np.ndarray,
    result: np.ndarray,
    *,
    reflects: bool = False,
) -> None:
    """Crops windows of S x S pixels out of images in contiguous memory.

    A row of a window is a strip of 3 S consecutive bytes. Where the window reaches beyond its image
    the strip contains other pixels, which are replaced. All strips are gathered at once; windows
    that reach beyond the memory, as may happen for the first and last images, are cropped singly.

    Args:
        memory: uint8 [bytes], at least 3 S bytes.
        images: int64 [n, 3]: offset of the first byte in memory, height, width.
        windows: int32 [n, 4]: top, left, S, S; not entirely outside of the images.
        result: uint8 [n, S, S, 3], to be filled.
        reflects: See `pixels.crop`.
    """
    count, size = result.shape[:2]
    offset, height, width = (column[:, np.newaxis] for column in images.T)
    top, left = windows[:, :1], windows[:, 1:2]
    row, column = top + np.arange(size), left + np.arange(size)
    if reflects:
        row = _reflected(row, height)
    strips = as_strided(memory, [len(memory) - 3 * size + 1, 3 * size], [1, 1])
    first, last = np.maximum(top, 0), np.minimum(top + size, height) - 1
    begin, end = (offset + 3 * (each * width + left) for each in (first, last))
    reachable = (begin >= 0) & (end < len(strips))
    inside = (row >= 0) & (row < height) & reachable
    gathered = strips[np.where(inside, offset + 3 * (row * width + left), 0)]
    if reflects:
        _reflect_columns(gathered.reshape(result.shape), left, width, result)
    else:
        columns = np.repeat((column >= 0) & (column < width), 3, axis=1).view(np.uint8)
        np.multiply(gathered, columns[:, np.newaxis], out=result.reshape([count, size, 3 * size]))
        result[~inside] = 0
    for number in np.flatnonzero(~reachable):
        image, window = _image(memory, *images[number]), windows[number].reshape([1, 1, 4])
        straight = np.zeros([1, 1], bool)
        result[number] = pixels.crop([image], window, straight, size, reflects=reflects)[0, 0]


def _reflected(places: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Reflects places beyond 0..length - 1 at the border, without repeating the border's pixels."""
    last = length - 1
    return last - abs(last - abs(places))


def _reflect_columns(
    windows: np.ndarray, left: np.ndarray, width: np.ndarray, result: np.ndarray
) -> None:
    """Copies windows [n, S, S, 3] whose columns beyond the image are reflected ones of their own.

    Windows of equal place, left [n, 1], in images of equal width [n, 1] are copied together.
    """
    column = np.arange(result.shape[2])
    places, groups = np.unique(np.hstack([left, width]), axis=0, return_inverse=True)
    for group, (first, length) in enumerate(places.tolist()):
        members = np.flatnonzero(groups.ravel() == group)
        source = _reflected(first + column, length) - first
        result[members] = windows[members][:, :, source]


def _image(memory: np.ndarray, offset: int, height: int, width: int) -> np.ndarray:
    return memory[offset : offset + 3 * height * width].reshape([height, width, 3])


def chosen_cache(dataset: Dataset, cache: str) -> str:
    """Resolves the cache "auto" of a data set to "memory" or "none".

    "memory" if the decoded images of all splits together take at most 2 GiB and a quarter of the
    free memory. Raw splits are never decoded to memory: the system's page cache holds them.

    Args:
        dataset: The data set.
        cache: One of `CACHES`.

    Returns:
        "memory" or "none".
    """
    if not _encoded_splits(dataset):
        return "none"
    if cache != "auto":
        return cache
    fits = decoded_bytes(dataset) <= min(_AUTO_BYTES, _AUTO_FRACTION * free_memory())
    return "memory" if fits else "none"


def decoded_bytes(dataset: Dataset) -> int:
    """Estimates the bytes of the decoded images of all encoded splits, from samples."""
    count = 0.0  # of pixels
    for split in _encoded_splits(dataset):
        areas = np.prod(facts.stored_sizes(dataset, split, _SAMPLE), axis=1)
        count += dataset.num_examples(split) * areas.mean()
    return round(3 * count)


def _encoded_splits(dataset: Dataset) -> list[str]:
    return [
        split
        for split in dataset.splits
        if dataset.encodings[split] != "raw" and dataset.num_examples(split)
    ]


@functools.lru_cache(maxsize=4)
def in_memory(shards: tuple[Shard, ...], encoding: str, threads: int) -> dict[Shard, Images]:
    """Decodes all images of a split; the result is cached.

    Args:
        shards: The shards of the split.
        encoding: How the split is stored, one of `datasets.ENCODINGS`.
        threads: Number of images decoded at a time.
    """
    sample_bytes = 3 * np.prod(facts.sizes(shards, encoding, _SAMPLE) or [(1, 1)], axis=1)
    expected = np.median(sample_bytes) * sum(shard.examples for shard in shards)
    tables = {shard: [np.zeros([0, 4], np.int64)] for shard in shards}
    # The images are never in memory twice: pages that were not written yet take no memory, and the
    # system resizes an array by remapping its pages, not by copying them.
    memory, end = np.empty(round(expected), np.uint8), 0
    with ThreadPoolExecutor(threads) as pool:
        chunk = min(_CHUNK, max(1, _CHUNK_BYTES // max(sample_bytes)))
        for shard, images, labels in _decode(shards, encoding, chunk, pool, threads):
            shapes = np.array([image.shape for image in images], np.int64)
            sizes = shapes.prod(axis=1)
            table = [end + np.cumsum(sizes) - sizes, *shapes[:, :2].T, labels]
            tables[shard].append(np.stack(table, axis=1))
            begin, end = end, end + int(sizes.sum())
            if end > len(memory):
                memory.resize(end, refcheck=False)
            np.concatenate([image.ravel() for image in images], out=memory[begin:end])
    memory.resize(end, refcheck=False)
    return {shard: Images(memory, np.concatenate(tables[shard])) for shard in shards}


def _decode(
    shards: Sequence[Shard], encoding: str, chunk: int, pool: Executor, ahead: int
) -> Iterator[tuple[Shard, list[np.ndarray], np.ndarray]]:
    """Yields chunks of decoded images and their labels, in stored order.

    Args:
        shards: The shards to decode.
        encoding: How they are stored, one of `datasets.ENCODINGS`.
        chunk: Maximum number of images in a chunk.
        pool: Threads that decode.
        ahead: Number of chunks that are decoded in advance.
    """
    decode = _decode_unknown if encoding == UNKNOWN else _decode_known

    def decode_chunk(serialized: tf.Tensor) -> tuple[list[np.ndarray], np.ndarray]:
        record = records.parse(serialized)
        columns = (record[name].numpy() for name in ("encoded", "format", "height", "width"))
        return decode(zip(*columns, strict=True)), record["label"].numpy()

    pending = collections.deque()
    for shard in shards:
        for serialized in tf.data.TFRecordDataset(shard.path).batch(chunk):
            pending.append((shard, pool.submit(decode_chunk, serialized)))
            if len(pending) > ahead:
                first_shard, future = pending.popleft()
                yield first_shard, *future.result()
    for shard, future in pending:
        yield shard, *future.result()


def _decode_known(rows: Iterable[tuple]) -> list[np.ndarray]:
    """Decodes with OpenCV, with TensorFlow's result; small images in a fifth of its time."""
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    return [
        pixels.from_raw(encoded, height, width)
        if format == records.RAW
        else cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
        for encoded, format, height, width in rows
    ]


def _decode_unknown(rows: Iterable[tuple]) -> list[np.ndarray]:
    return [pixels.decode_image(encoded).numpy() for encoded, *_ in rows]


class Mapped:
    """Opens raw shards by mapping them into memory; thread-safe."""

    def __init__(self) -> None:
        """Starts without open shards."""
        self._open: dict[Shard, np.ndarray] = {}
        self._tables: dict[Shard, np.ndarray] = {}
        self._lock = threading.Lock()

    def __call__(self, shard: Shard) -> Images:
        """Opens a shard; closes the longest open ones if all together exceed `_MAPPED_BYTES`.

        Raises:
            ValueError: If the shard is damaged, which is checked on the first opening.
        """
        with self._lock:
            if shard not in self._open:
                self._open[shard] = _map(shard.path)
                while sum(map(len, self._open.values())) > _MAPPED_BYTES and len(self._open) > 1:
                    self._open.pop(next(iter(self._open)))
            data = self._open[shard]
            if shard not in self._tables:
                try:
                    self._tables[shard] = records.locate(data)
                except ValueError as error:
                    raise ValueError(f"{shard.path}: {error}") from error
            return Images(data, self._tables[shard])


def _map(path: str) -> np.ndarray:
    """Maps a file into memory as uint8 [bytes] and lets the system start to read it."""
    if not os.path.getsize(path):
        return np.zeros(0, np.uint8)
    with open(path, "rb") as file:
        memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    memory.madvise(mmap.MADV_WILLNEED)
    return np.frombuffer(memory, np.uint8)
