"""From shards to uint8 batches: fast, deterministic, and able to start at any step.

A plan (`data.order`) says which records come when. One window of shards is read and shuffled while
the one before it is in use; all work per image happens in one map, which TensorFlow fuses with the
batch, on a thread pool of its own. Randomness is stateless: what is drawn for an example is a
function of (seed, epoch, position in the epoch).
"""

import contextlib
import ctypes
import functools

import numpy as np
import tensorflow as tf

from data import augment, order, pixels, records, views
from data.datasets import Dataset
from data.decode import Stored

_DRAWS = augment.GEOMETRY_DRAWS + 1  # the last one mirrors
_DRAWS_STREAM = 1

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

    Returns:
        Batches (images uint8 [b, S, S, 3], labels int32 [b], weights float32 [b], all 1).

    Raises:
        ValueError: Fewer examples than a batch, or `per_batch` does not divide `batch_size`.
    """
    per_batch = per_batch or batch_size
    if batch_size % per_batch:
        raise ValueError(f"per_batch must divide batch_size {batch_size}. Received: {per_batch}")
    shards = dataset.shards("train")
    windows = order.training_windows(
        shards, batch_size=batch_size, seed=seed, step=step, steps=steps
    )

    def shuffled(window):
        places = tf.range(window["records"])
        places = tf.random.experimental.stateless_shuffle(places, window["seed"])
        stream = tf.random.experimental.stateless_fold_in(window["seed"], _DRAWS_STREAM)
        draws = tf.random.stateless_uniform([window["records"], _DRAWS], stream)
        used = slice(window["skip"], window["skip"] + window["take"])
        return tf.gather(_read(shards, window), places[used]), draws[used]

    batches = _batches(windows, shuffled, _augmented(dataset, policy, size), per_batch, threads)
    if policy.mirror:
        batches = batches.map(_as_it_is(_mirrored))
    return batches.prefetch(2).with_options(_options(threads))


def test_batches(
    dataset: Dataset,
    split: str,
    *,
    size: int,
    crops: int,
    batch_size: int,
    threads: int,
    replicas: int = 1,
) -> tf.data.Dataset:
    """Batches of test views: every image of a split once, in stored order.

    Args:
        dataset: Where from.
        split: One of its splits.
        size: Side of the views in pixels, S.
        crops: Number of views, V, a key of `views.VIEWS`.
        batch_size: Images per batch, b.
        threads: Size of the pipeline's thread pool.
        replicas: The number of batches is a multiple of it.

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
    windows = order.stored_windows(shards, -(-examples // whole) * whole)

    def stored(window):
        places = tf.range(window["take"])
        weights = tf.cast(places < window["records"], tf.float32)
        return tf.gather(_read(shards, window), places % window["records"]), weights

    batches = _batches(windows, stored, _viewed(dataset, size, crops), batch_size, threads)

    def turned(images, labels, weights):
        return _turned(images, crops), labels, weights

    batches = batches.map(_as_it_is(turned))
    return batches.prefetch(2).with_options(_options(threads))


def views_of(stored: Stored, *, size: int, crops: int) -> np.ndarray:
    """The test views of one image in memory, by the same operations as those of records.

    Args:
        stored: What a conversion would have written of it.
        size: Side of the views in pixels, S.
        crops: Number of views, V, a key of `views.VIEWS`.

    Returns:
        uint8 [V, S, S, 3].
    """
    record = {name: getattr(stored, name) for name in ("encoded", "height", "width")}
    opened = pixels.OPEN[stored.format.lower()](record)
    return _turned(_views(opened, size, crops)[tf.newaxis], crops)[0].numpy()


def has_labels(dataset, split) -> bool:
    """Whether the first image of a split has a label, as all or none have."""
    first = tf.data.TFRecordDataset([shard.path for shard in dataset.shards(split)]).take(1)
    return all(int(records.parse(serialized)["label"]) >= 0 for serialized in first)


def shorter_side(dataset: Dataset, sample: int = 100) -> int:
    """The median shorter side, in stored pixels, of the first training images."""
    open_image = pixels.OPEN[dataset.encoding]
    first = tf.data.TFRecordDataset([shard.path for shard in dataset.shards("train")]).take(sample)
    sizes = first.map(_as_it_is(lambda serialized: open_image(records.parse(serialized))[:2]))
    return int(np.median([min(height, width) for height, width in sizes.as_numpy_iterator()]))


def _batches(windows, read, finish, batch_size, threads):
    """Windows of records, read and put in order by `read`, finished one by one and batched."""
    _reuse_large_buffers()
    examples = _rows(windows).map(_as_it_is(read)).prefetch(1).unbatch()
    finished = examples.map(_as_it_is(finish), num_parallel_calls=threads, deterministic=True)
    return finished.batch(batch_size, drop_remainder=True)


def _rows(windows):
    """The plan as tensors; lists of shards are filled up with -1."""
    longest = max((len(window.shards) for window in windows), default=0)
    shards = np.full([len(windows), longest], -1, np.int32)
    for row, window in zip(shards, windows, strict=True):
        row[: len(window.shards)] = window.shards
    columns = {
        name: np.array([getattr(window, name) for window in windows], np.int32)
        for name in ("records", "skip", "take")
    }
    seeds = np.array([window.seed for window in windows], np.int32).reshape([-1, 2])
    return tf.data.Dataset.from_tensor_slices({**columns, "shards": shards, "seed": seeds})


def _read(shards, window):
    """All records of a window; TensorFlow itself does not notice a shard cut between two."""
    paths = tf.constant([shard.path for shard in shards])
    files = tf.gather(paths, tf.boolean_mask(window["shards"], window["shards"] >= 0))
    at_most = tf.cast(window["records"], tf.int64) + 1
    serialized = tf.data.TFRecordDataset(files).batch(at_most).get_single_element()
    found = tf.size(serialized)
    facts = ["shards changed: records expected, found, files", window["records"], found, files]
    whole = tf.debugging.Assert(tf.equal(found, window["records"]), facts)
    with tf.control_dependencies([whole]):
        return tf.identity(serialized)


def _augmented(dataset, policy, size):
    """The map of training: `(serialized, draws) -> (image, label, weight[, mirror])`."""
    open_image = pixels.OPEN[dataset.encoding]

    def augmented(serialized, draws):
        record = records.parse(serialized)
        height, width, read = open_image(record)
        window = policy.window(height, width, size, draws)
        if policy.outside:
            image = pixels.read_padded(read, height, width, window)
        else:
            image = read(window)
        image = pixels.resized(image, size)
        if policy.warp:
            image = policy.warp(image, draws)
        example = image, _label(record, dataset), 1.0
        return (*example, draws[-1] < 0.5) if policy.mirror else example

    return augmented


def _viewed(dataset, size, crops):
    """The map of testing: `(serialized, weight) -> (views, label, weight)`."""
    open_image = pixels.OPEN[dataset.encoding]

    def viewed(serialized, weight):
        record = records.parse(serialized)
        return _views(open_image(record), size, crops), _label(record, dataset), weight

    return viewed


def _views(opened, size, crops):
    """The views of one image, not yet mirrored: uint8 [V, S, S, 3]."""
    height, width, read = opened
    windows = views.windows(height, width, size, crops)
    corner = tf.reduce_min(windows[:, :2], axis=0)
    end = tf.reduce_max(windows[:, :2] + windows[:, 2:], axis=0)
    image = read(tf.concat([corner, end - corner], axis=0))
    windows -= tf.pad(corner, [[0, 2]])
    return tf.stack([pixels.resized(pixels.cut(image, w), size) for w in tf.unstack(windows)])


def _mirrored(images, labels, weights, mirror):
    return pixels.mirrored(images, mirror), labels, weights


def _turned(images, crops):
    """Mirrors those views of a batch [B, V, S, S, 3] that are mirrored."""
    if not any(flip for _, _, flip in views.VIEWS[crops]):
        return images
    mirror = tf.broadcast_to(views.mirrored(crops), tf.shape(images)[:2])
    return pixels.mirrored(images, mirror)


def _label(record, dataset):
    """Class from 0; -1 without one."""
    return tf.cast(tf.maximum(record["label"] - dataset.label_offset, -1), tf.int32)


def _options(threads):
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    options.experimental_optimization.map_and_batch_fusion = True
    return options


@functools.cache
def _reuse_large_buffers():
    """Lets glibc keep freed batches; by default each new one (19 MB) is mapped and faulted in."""
    m_trim_threshold, m_mmap_threshold, largest_legal = -1, -3, 32 * 2**20
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(m_mmap_threshold, largest_legal)
        mallopt(m_trim_threshold, 2**30)
