"""From shards to uint8 batches: fast, deterministic, and able to start at any step.

A plan (`data.order`) says which records come when. One window of shards is read, shuffled and
planned while the one before it is in use: whatever can be computed for many examples at a time is
computed there. What is left for an image is decoding (`data.encoded`), or only cutting where its
pixels are at hand (`data.decoded`), on a thread pool of the pipeline's own. Randomness is
stateless: what is drawn for an example is a function of (seed, epoch, position in the epoch).
"""

import contextlib
import ctypes
import functools
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import tensorflow as tf

from data.images.decode import Stored
from data.pipeline import augment, buffers, callbacks, decoded, encoded, order, pixels, views
from data.shards import records
from data.shards.datasets import Dataset

DRAWS = augment.GEOMETRY_DRAWS + 1  # the last one mirrors
_DRAWS_STREAM = 1
_LABELS = 256  # records at a time where only their labels are wanted
_VARIED = 4  # batches at a time; Python lets no more go on side by side

# Nothing mapped here has control flow to convert, and converting leaves files behind.
_as_it_is = tf.autograph.experimental.do_not_convert


def train_batches(
    dataset: Dataset,
    policy: augment.Policy,
    *,
    size: int,
    batch_size: int,
    seed: int,
    step: int = 0,
    steps: int,
    threads: int,
    per_batch: int | None = None,
    share: tuple[int, int] = (0, 1),
    cache: str = "none",
) -> tf.data.Dataset:
    """Batches of the train split, from optimizer step `step` to the end of the run.

    The incomplete last batch of every epoch is dropped. Order and geometry depend on the shards,
    on `seed` and on the step, on nothing else.

    Args:
        dataset: Where from.
        policy: How images are varied.
        size: Side of the images in pixels, S.
        batch_size: Examples per optimizer step.
        seed: Not negative.
        step: Optimizer updates done.
        steps: Optimizer updates at the end of the run.
        threads: Size of the pipeline's thread pool.
        per_batch: Examples per batch, b: a divisor of `batch_size`, which is the default. Then
            batch_size / b batches in a row make one step, with the same examples in the same order.
        share: (i, n): only the i-th of n equal parts of every step's examples, for machines that
            train together; nothing else is read of the shards, where they hold encoded images.
        cache: One of `decoded.CACHES`: whether all images are decoded to memory first. The batches
            are the same.

    Returns:
        Batches (images uint8 [b, S, S, 3], labels int32 [b], weights float32 [b], all 1).

    Raises:
        ValueError: Fewer examples than a batch, or `per_batch` does not divide such a part.
    """
    part = batch_size // share[1]
    per_batch = per_batch or part
    if batch_size % share[1] or part % per_batch:
        raise ValueError(f"per_batch must divide {batch_size} / {share[1]}. Received: {per_batch}")
    windows = order.training_windows(
        dataset.shards("train"), batch_size=batch_size, seed=seed, step=step, steps=steps
    )
    reader = _training_reader(dataset, policy, size, cache, threads)

    def finished(images, example):
        images = tf.squeeze(images, axis=1)
        if policy.warp:
            images = policy.warp(images, example["draws"])
        if policy.vary:
            varied = callbacks.call(vary, [images, example["draws"]], tf.uint8)
            images = tf.ensure_shape(varied, images.shape)
        return images, example["label"], tf.ones([per_batch])

    def vary(images, draws):
        result = buffers.empty(images.shape)
        for image, row, place in zip(images, draws, result, strict=True):
            place[...] = policy.vary(image, row)
        return result

    calls = min(threads, _VARIED) if policy.vary else None
    planned = _planned(reader, windows, _Share(*share, batch_size))
    count = sum(window.take for window in windows) // batch_size * (part // per_batch)
    return _batches(reader, planned, finished, per_batch, threads, count, calls)


def train_places(
    dataset: Dataset, *, batch_size: int, seed: int, step: int, steps: int
) -> tf.data.Dataset:
    """Which records the batches of `train_batches` hold, in their order.

    Args:
        dataset: As for `train_batches`, like all others.
        batch_size: Examples per optimizer step, b.
        seed: Not negative.
        step: Optimizer updates done.
        steps: Optimizer updates at the end.

    Returns:
        Batches int32 [b]: places in the stored order of the whole split.
    """
    shards = dataset.shards("train")
    windows = order.training_windows(
        shards, batch_size=batch_size, seed=seed, step=step, steps=steps
    )
    examples = np.array([shard.examples for shard in shards], np.int32)
    begins = np.cumsum(examples, dtype=np.int32) - examples

    def placed(window):
        members = tf.boolean_mask(window["shards"], window["shards"] >= 0)
        counts = tf.gather(examples, members)
        shifts = tf.gather(begins, members) - tf.cumsum(counts, exclusive=True)
        stored = tf.range(window["records"]) + tf.repeat(shifts, counts)
        return tf.gather(stored, drawn(window)[0])

    count = sum(window.take for window in windows) // batch_size
    places = (
        _rows(windows, batch_size).map(_as_it_is(placed)).rebatch(batch_size, drop_remainder=True)
    )
    return places.apply(tf.data.experimental.assert_cardinality(count))


def stages(
    dataset: Dataset,
    policy: augment.Policy,
    *,
    size: int,
    batch_size: int,
    seed: int,
    steps: int,
    threads: int,
    cache: str = "none",
) -> dict[str, tf.data.Dataset]:
    """The pipeline of `train_batches`, up to and including each of its stages, for a measurement.

    Args:
        dataset: As for `train_batches`, like all others.
        policy: How images are varied.
        size: Side of the images in pixels.
        batch_size: Examples per optimizer step.
        seed: Not negative.
        steps: Where to end.
        threads: Size of the pipeline's thread pool.
        cache: One of `decoded.CACHES`.

    Returns:
        By the names read, decode (where there is something to decode), augment and batch: data
        sets whose elements say how many images have come so far since the last: int32 [].
    """
    windows = order.training_windows(
        dataset.shards("train"), batch_size=batch_size, seed=seed, step=0, steps=steps
    )
    reader = _training_reader(dataset, policy, size, cache, threads)
    planned = _planned(reader, windows, _Share(0, 1, batch_size))
    options = {"size": size, "batch_size": batch_size, "seed": seed, "steps": steps}
    whole = train_batches(dataset, policy, **options, threads=threads, cache=cache)
    parts = {
        "read": planned.map(_as_it_is(lambda columns: columns["label"])),
        **reader.stages(planned, batch_size, threads),
        "batch": whole.map(_as_it_is(lambda images, labels, weights: labels)),
    }
    return {
        name: part.map(lambda rows: tf.shape(tf.nest.flatten(rows)[0])[0]).with_options(
            _options(threads)
        )
        for name, part in parts.items()
    }


def drawn(window: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """What is used of a training window, in which order, and what is random about it.

    Args:
        window: The fields of an `order.Window`.

    Returns:
        int32 [n], places among its records, and float32 [n, DRAWS], uniform in [0, 1).
    """
    places = tf.range(window["records"])
    places = tf.random.experimental.stateless_shuffle(places, window["seed"])
    stream = tf.random.experimental.stateless_fold_in(window["seed"], _DRAWS_STREAM)
    draws = tf.random.stateless_uniform([window["records"], DRAWS], stream)
    used = slice(window["skip"], window["skip"] + window["take"])
    return places[used], draws[used]


def is_mirrored(draws: tf.Tensor) -> tf.Tensor:
    """Which images are mirrored, if the policy mirrors: bool [n] for float32 [n, DRAWS]."""
    return draws[:, -1] < 0.5


def test_batches(
    dataset: Dataset,
    split: str,
    *,
    size: int,
    crops: int,
    batch_size: int,
    threads: int,
    replicas: int = 1,
    share: tuple[int, int] = (0, 1),
    cache: str = "none",
) -> tf.data.Dataset:
    """Batches of test views: every image of a split once, in stored order.

    Args:
        dataset: Where from.
        split: One of its splits.
        size: Side of the views in pixels, S.
        crops: Number of views, V, a key of `views.VIEWS`.
        batch_size: Images per batch, b.
        threads: Size of the pipeline's thread pool.
        replicas: The number of batches, of all shares together, is a multiple of it.
        share: (i, n): of `replicas` batches in a row only the i-th of n equal parts.
        cache: As for `train_batches`.

    Returns:
        Batches (views uint8 [b, V, S, S, 3], labels int32 [b], -1 for an image without one,
        weights float32 [b], 0 for what fills up the last batches, else 1).

    Raises:
        ValueError: No such split, or no examples in it.
    """
    shards = dataset.shards(split)
    examples = dataset.num_examples(split)
    if not examples:
        raise ValueError(f"the {split} split of {dataset.folder} is empty, expected examples")
    whole = replicas * batch_size
    steps = -(-examples // whole)
    windows = order.stored_windows(shards, steps * whole)
    share = _Share(*share, whole)

    def windows_of(height, width, draws):
        return views.windows(height, width, size, crops)

    def mirror_of(draws):
        return tf.tile(views.mirrored(crops)[tf.newaxis], [tf.shape(draws)[0], 1])

    reader = _reader(
        dataset,
        split,
        cache,
        threads,
        windows_of=windows_of,
        mirror_of=mirror_of if any(views.mirrored(crops)) else None,
        size=size,
    )

    def planned(window):
        (places,) = share.of(window, tf.range(window["take"]))
        weight = tf.cast(places < window["records"], tf.float32)
        some = share.rows(reader, window, places % window["records"])
        nothing = tf.zeros([tf.size(places), 1])  # an empty row would crash TensorFlow's rebatch
        return {**reader.plan(some, nothing), "weight": weight}

    def finished(images, example):
        return images, example["label"], example["weight"]

    ahead = _rows(windows, whole).map(_as_it_is(planned)).prefetch(1)
    count = steps * (replicas // share.parts)
    return _batches(reader, ahead, finished, batch_size, threads, count)


def views_of(stored: Sequence[Stored], *, size: int, crops: int) -> np.ndarray:
    """The test views of images in memory, by the same operations as those of records.

    Args:
        stored: What a conversion would have written of b images.
        size: Side of the views in pixels, S.
        crops: Number of views, V, a key of `views.VIEWS`.

    Returns:
        uint8 [b, V, S, S, 3].
    """
    windows = np.stack([_test_windows(each.height, each.width, size, crops) for each in stored])
    mirrored = np.tile(_mirrored(crops), [len(stored), 1])
    return pixels.cut([pixels.of_stored(each) for each in stored], windows, mirrored, size)


@functools.lru_cache(1000)  # most images of a set have one of a few sizes
def _test_windows(height: int, width: int, size: int, crops: int) -> np.ndarray:
    return views.windows(height, width, size, crops).numpy()


@functools.cache
def _mirrored(crops: int) -> np.ndarray:
    return views.mirrored(crops).numpy()


def has_labels(dataset, split) -> bool:
    """Whether the first image of a split has a label, as all or none have."""
    first = tf.data.TFRecordDataset([shard.path for shard in dataset.shards(split)]).take(1)
    return all(int(records.parse(serialized)["label"]) >= 0 for serialized in first)


def class_counts(dataset: Dataset, split: str) -> np.ndarray:
    """How many examples of each class a split has, int64 [K]; reads all its records."""
    counts = np.zeros(dataset.num_classes, np.int64)
    paths = [shard.path for shard in dataset.shards(split)]
    for serialized in tf.data.TFRecordDataset(paths).batch(_LABELS):
        labels = records.parse(serialized)["label"].numpy() - dataset.label_offset
        counts += np.bincount(labels[labels >= 0], minlength=len(counts))
    return counts


def shorter_side(dataset: Dataset, sample: int = 100) -> int:
    """The median shorter side, in stored pixels, of the first training images."""
    return int(np.median([min(size) for size in decoded.stored_sizes(dataset, "train", sample)]))


def _training_reader(dataset, policy, size, cache, threads):
    def windows_of(height, width, draws):
        return policy.window(height, width, size, draws)[..., tf.newaxis, :]

    def mirror_of(draws):
        return is_mirrored(draws)[:, tf.newaxis]

    return _reader(
        dataset,
        "train",
        cache,
        threads,
        windows_of=windows_of,
        mirror_of=mirror_of if policy.mirror else None,
        size=size,
    )


class _Share(NamedTuple):
    """Which examples of every step are read here: the `index`-th of equal `parts` of the batch."""

    index: int
    parts: int
    batch_size: int

    def of(self, window, *columns):
        """The rows of what comes of a window, in its order, that are read here."""
        if self.parts == 1:
            return columns
        numbers = (window["first"] + tf.range(window["take"])) % self.batch_size
        mine = numbers // (self.batch_size // self.parts) == self.index
        return [tf.boolean_mask(column, mine) for column in columns]

    def rows(self, reader, window, places):
        """The rows of some records of a window; reads no others, if it needs few of them."""
        if self.parts == 1:
            return tf.gather(reader.read(window), places)
        return reader.pick(window, places)


def _planned(reader, windows, share):
    """Windows of training records, planned one at a time while the one before is in use."""

    def planned(window):
        places, draws = share.of(window, *drawn(window))
        return reader.plan(share.rows(reader, window, places), draws)

    return _rows(windows, share.batch_size).map(_as_it_is(planned)).prefetch(1)


def _batches(reader, planned, finished, batch_size, threads, count, calls=None):
    """Batches of what was planned, cut and finished, `calls` at a time; their number is known."""
    _prepare_process()
    batches = reader.cut(planned, batch_size, threads).map(
        _as_it_is(finished), num_parallel_calls=calls
    )
    batches = batches.apply(tf.data.experimental.assert_cardinality(count))
    return batches.prefetch(2).with_options(_options(threads))


def _reader(dataset, split, cache, threads, **options):
    """How a split's images are read: decoded one by one, or at hand already."""
    shards, encoding = dataset.shards(split), dataset.encodings[split]
    if encoding == "raw":
        return decoded.Decoded(dataset, split, open_shard=decoded.Mapped(), **options)
    if decoded.chosen_cache(dataset, cache) == "memory":
        images = decoded.in_memory(shards, encoding, threads)
        return decoded.Decoded(dataset, split, open_shard=images.__getitem__, **options)
    return encoded.READERS[encoding](dataset, split, **options)


def _rows(windows, batch_size):
    """The plan as tensors; lists of shards are filled up with -1.

    What is added is "first": which example of its batch a window's first one is.
    """
    longest = max((len(window.shards) for window in windows), default=0)
    shards = np.full([len(windows), longest], -1, np.int32)
    for row, window in zip(shards, windows, strict=True):
        row[: len(window.shards)] = window.shards
    columns = {
        name: np.array([getattr(window, name) for window in windows], np.int32)
        for name in ("records", "skip", "take")
    }
    takes = np.array([window.take for window in windows], np.int64)
    columns["first"] = ((np.cumsum(takes) - takes) % batch_size).astype(np.int32)
    seeds = np.array([window.seed for window in windows], np.int32).reshape([-1, 2])
    return tf.data.Dataset.from_tensor_slices({**columns, "shards": shards, "seed": seeds})


def _options(threads):
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    return options


@functools.cache
def _prepare_process():
    """Lets glibc keep freed batches, and OpenCV leave threads to the pipeline.

    By default each new batch (19 MB) is mapped and faulted in.
    """
    cv2.setNumThreads(0)
    m_trim_threshold, m_mmap_threshold, largest_legal = -1, -3, 32 * 2**20
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(m_mmap_threshold, largest_legal)
        mallopt(m_trim_threshold, 2**30)
