import dataclasses
import itertools
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf

from data import pipeline
from data.checks import integrity
from data.images import decode
from data.pipeline import augment, batches, decoded, order, pixels
from data.shards import datasets, random_access, records
from training.stages import input_stages

STILL = augment.POLICIES["none"]
ALTERNATING = dataclasses.replace(augment.POLICIES["cifar"], alternates=True, reflects=True)

# Formats of the records of a split, in turn, by its encoding.
FORMATS = {
    "jpeg": ["JPEG"],
    "png": ["PNG"],
    "raw": ["RAW"],
    "mixed": ["PNG", "RAW", "JPEG"],
    "unknown": ["PNG", "JPEG"],
}
# How the pipeline reads a split: its encoding, and options.
WAYS = {
    **{encoding: (encoding, {}) for encoding in FORMATS},
    "jpeg in memory": ("jpeg", {"cache": "memory"}),
    "png in memory": ("png", {"cache": "memory"}),
    "mixed in memory": ("mixed", {"cache": "memory"}),
    "unknown in memory": ("unknown", {"cache": "memory"}),
}


def photo(height, width, seed=0):
    """A picture with structure at all scales, so that its JPEG is not trivial."""
    noise = np.random.default_rng(seed).integers(0, 256, [height // 8 + 2, width // 8 + 2, 3])
    return cv2.resize(noise.astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(image, format):
    if format == "RAW":
        return image.tobytes()
    extension = {"JPEG": ".jpg", "PNG": ".png"}[format]
    return cv2.imencode(extension, image[..., ::-1])[1].tobytes()


def write_dataset(folder, images, *, shards=1, encoding="raw", offset=0):
    """A data set of images whose labels are their numbers, in the same train and test splits.

    The heights and widths of records of unknown encoding are wrong.
    """
    sized = encoding != "unknown"
    serialized = [
        records.example_bytes(
            encoded=encoded(image, format),
            format=format,
            label=label + offset,
            height=image.shape[0] if sized else 1,
            width=image.shape[1] if sized else 0,
            filename=f"{label}",
        )
        for label, (image, format) in enumerate(
            zip(images, itertools.cycle(FORMATS[encoding]), strict=False)
        )
    ]
    written = []
    for index, part in enumerate(np.array_split(np.array(serialized, object), shards)):
        path = folder / records.shard_name("train", index, shards)
        written.append(datasets.Shard(str(path), *records.write_shard(path, part.tolist())))
    splits = {"train": tuple(written), "test": tuple(written)}
    names = tuple(map(str, range(len(images))))
    zeros, encodings = (0.0, 0.0, 0.0), dict.fromkeys(splits, encoding)
    return datasets.Dataset(folder, names, zeros, zeros, {}, splits, "", encodings, offset)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """103 raw images of 8 x 8 in 7 shards; image i is grey i."""
    images = [np.full([8, 8, 3], number, np.uint8) for number in range(103)]
    return write_dataset(tmp_path_factory.mktemp("numbered"), images, shards=7)


SIZES = [(64, 64), (70, 91), (99, 65), (40, 50), (200, 160)]


def photos_of(folder, encoding):
    """Five pictures of different sizes."""
    images = [photo(*size, seed) for seed, size in enumerate(SIZES)]
    return write_dataset(folder, images, encoding=encoding)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Five JPEGs of different sizes."""
    return photos_of(tmp_path_factory.mktemp("photos"), "jpeg")


@pytest.fixture(scope="module", params=FORMATS)
def stored_photos(request, tmp_path_factory):
    """The same five pictures in every encoding."""
    return photos_of(tmp_path_factory.mktemp("photos"), request.param)


def train(dataset, policy=STILL, **options):
    defaults = {"size": 8, "batch_size": 10, "seed": 0, "steps": 10, "threads": 2}
    batches = pipeline.train_batches(dataset, policy, **{**defaults, **options})
    return list(batches.as_numpy_iterator())


def test(dataset, **options):
    defaults = {"size": 8, "crops": 1, "batch_size": 10, "threads": 2}
    batches = pipeline.test_batches(dataset, "test", **{**defaults, **options})
    return list(batches.as_numpy_iterator())


test.__test__ = False


def labels_of(batches):
    return np.concatenate([batch[1] for batch in batches])


@pytest.fixture(params=["one block", "a block per shard"])
def blocks(request, monkeypatch):
    if request.param == "a block per shard":
        monkeypatch.setattr(order, "BLOCK_BYTES", 1)
    return request.param


def test_an_epoch_holds_every_record_once_less_the_incomplete_batch(numbered, blocks):
    batches = train(numbered, steps=20)
    images, labels, weights = batches[0]
    assert images.shape == (10, 8, 8, 3) and images.dtype == np.uint8
    assert labels.dtype == np.int32 and weights.tolist() == [1.0] * 10
    for images, labels, _ in batches:
        np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
    first, second = labels_of(batches).reshape([2, 100])
    assert len(set(first)) == len(set(second)) == 100
    assert set(first) != set(second)  # others are left out
    assert (first != second).mean() > 0.9


def test_one_block_is_shuffled_over_all_shards(numbered):
    labels = labels_of(train(numbered))
    assert abs(np.corrcoef(labels, np.arange(100))[0, 1]) < 0.3
    assert (abs(np.diff(labels)) > 15).mean() > 0.5  # a shard holds 15 neighbours


def test_shards_come_in_another_order_every_epoch(numbered, monkeypatch):
    monkeypatch.setattr(order, "BLOCK_BYTES", 1)
    orders = {
        tuple(
            block.shards[0]
            for block in order.training_blocks(
                numbered.shards("train"), batch_size=103, seed=0, step=epoch, steps=epoch + 1
            )
        )
        for epoch in range(5)
    }
    assert len(orders) == 5


@pytest.mark.parametrize("step", [1, 7, 10, 23])
def test_a_start_in_the_middle_continues_exactly(numbered, blocks, step):
    policy = dataclasses.replace(ALTERNATING, warp=augment.small_warp)
    whole, rest = (train(numbered, policy, step=s, steps=25) for s in (0, step))
    assert len(rest) == 25 - step
    for expected, got in zip(whole[step:], rest, strict=True):
        for column, same in zip(expected, got, strict=True):
            np.testing.assert_array_equal(column, same)


def test_a_start_in_the_middle_reads_the_block_it_is_in_and_later_ones(numbered, monkeypatch):
    monkeypatch.setattr(order, "BLOCK_BYTES", 1)
    shards, options = numbered.shards("train"), {"batch_size": 10, "seed": 0, "steps": 10}
    whole = order.training_blocks(shards, step=0, **options)
    rest = order.training_blocks(shards, step=5, **options)
    assert len(rest) == 4 and 0 < rest[0].skip < rest[0].records
    assert rest[1:] == whole[-3:] and rest[0].shards == whole[3].shards


def test_a_run_is_a_function_of_its_seed_alone(numbered):
    policy = augment.POLICIES["cifar"]
    runs = [
        train(numbered, policy, seed=seed, threads=threads, steps=3)
        for seed, threads in ((0, 1), (0, 3), (1, 1))
    ]
    images = [np.concatenate([batch[0] for batch in run]) for run in runs]
    np.testing.assert_array_equal(images[0], images[1])
    assert (images[0] != images[2]).mean() > 0.5


def test_replicas_share_the_batches_of_one_device(numbered):
    whole = train(numbered, augment.POLICIES["cifar"], steps=3)
    parts = train(numbered, augment.POLICIES["cifar"], steps=3, per_batch=5)
    assert len(parts) == 6
    for column in range(3):
        np.testing.assert_array_equal(
            np.concatenate([batch[column] for batch in whole]),
            np.concatenate([batch[column] for batch in parts]),
        )
    with pytest.raises(ValueError, match="per_batch must divide 10 / 1. Received: 3"):
        train(numbered, per_batch=3)


@pytest.fixture(params=["raw", "jpeg", "mixed", "jpeg in memory"])
def kept(request, tmp_path_factory):
    """The same numbered images, and options of how they are read."""
    encoding, options = WAYS[request.param]
    images = [np.full([8, 8, 3], number, np.uint8) for number in range(103)]
    folder = tmp_path_factory.mktemp("kept")
    return write_dataset(folder, images, shards=7, encoding=encoding), options


@pytest.mark.parametrize(
    ("kept", "blocks", "workers"),
    [
        ("raw", "one block", 2),
        ("raw", "a block per shard", 3),
        ("jpeg", "one block", 1),
        ("jpeg", "a block per shard", 2),
        ("mixed", "one block", 3),
        ("mixed", "a block per shard", 1),
        ("jpeg in memory", "one block", 2),
        ("jpeg in memory", "a block per shard", 3),
    ],
    indirect=["kept", "blocks"],
)
def test_workers_see_every_example_once_and_in_one_workers_order(kept, blocks, workers):
    """Also where they start in the middle; 96 of 103 examples fill the epoch's batches of 12."""
    dataset, options = kept
    policy, options = ALTERNATING, {"batch_size": 12, "steps": 16, **options}
    whole = train(dataset, policy, **options)
    for step in (0, 3):
        shares = [
            train(dataset, policy, step=step, share=(i, workers), **options) for i in range(workers)
        ]
        assert {len(share) for share in shares} == {16 - step}
        for expected, *parts in zip(whole[step:], *shares, strict=True):
            for column, *of_workers in zip(expected, *parts, strict=True):
                np.testing.assert_array_equal(np.concatenate(of_workers), column)
    epoch = np.concatenate([labels for share in shares for _, labels, _ in share[5:]])
    assert len(set(epoch)) == len(epoch) == 96


def test_workers_have_parts_for_each_of_their_replicas(numbered):
    whole = train(numbered, batch_size=12, steps=4)
    parts = [train(numbered, batch_size=12, steps=4, share=(i, 2), per_batch=3) for i in range(2)]
    assert [len(labels) for share in parts for _, labels, _ in share] == [3] * 16
    found = [labels_of(part).reshape([4, 6]) for part in parts]
    np.testing.assert_array_equal(np.concatenate(found, axis=1), labels_of(whole).reshape([4, 12]))
    with pytest.raises(ValueError, match="per_batch must divide 12 / 5"):
        train(numbered, batch_size=12, share=(0, 5))


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_test_every_image_once(kept, workers):
    dataset, options = kept
    shares = [
        test(dataset, replicas=4, share=(i, workers), batch_size=6, **options)
        for i in range(workers)
    ]
    assert {len(share) for share in shares} == {5 * 4 // workers}
    columns = zip(*(batch for share in shares for batch in share), strict=True)
    _, labels, weights = (np.concatenate(column) for column in columns)
    assert sorted(labels[weights > 0]) == list(range(103)) and len(weights) == 120


def test_a_worker_reads_its_own_records_only(photos, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(records, "read_at", lambda file, *frame: read.append(frame) or b"")
    files = random_access.Files([shard.path for shard in photos.shards("train")])
    assert files.read(np.array([0]), 5, np.array([3, 1, 3])).tolist() == [b""] * 3
    assert len(set(read)) == 2 and sorted(read) == read  # in the file's order
    with pytest.raises(ValueError, match="shards changed: records expected 6, 5 in"):
        files.read(np.array([0]), 6, np.array([0]))


def test_a_worker_names_the_damaged_record(kept, tmp_path):
    dataset, options = kept
    shard, *others = dataset.shards("train")
    content = bytearray(Path(shard.path).read_bytes())
    content[-40] ^= 1
    path = tmp_path / Path(shard.path).name
    path.write_bytes(content)
    damaged = dataclasses.replace(shard, path=str(path))
    dataset = dataclasses.replace(dataset, splits={"train": (damaged, *others)})
    with pytest.raises(integrity.DamagedShard, match=rf"{path.name} record 14"):  # noqa: SIM117
        with integrity.naming_damage(dataset):
            for index in range(2):
                train(dataset, share=(index, 2), **options)


def test_a_worker_notices_a_damaged_record_and_a_shard_that_was_cut_off(photos, tmp_path):
    content = Path(photos.shards("train")[0].path).read_bytes()
    path = tmp_path / "damaged.tfrecord"
    path.write_bytes(content[:2000] + bytes([content[2000] ^ 1]) + content[2001:])
    files, damaged = random_access.Files([str(path)]), 0
    for place in range(5):
        try:
            files.read(np.array([0]), 5, np.array([place]))
        except ValueError as error:
            assert "is damaged" in str(error)
            damaged += 1
    assert damaged == 1
    path.write_bytes(content[:-5])
    with pytest.raises(ValueError, match="is damaged or cut off, at byte"):
        random_access.Files([str(path)]).read(np.array([0]), 5, np.array([0]))


def test_a_batch_larger_than_the_split_is_refused(numbered):
    with pytest.raises(ValueError, match="batch size 104. Received: 103"):
        train(numbered, batch_size=104)


def test_half_of_the_images_are_mirrored(tmp_path):
    ramp = np.broadcast_to(np.arange(8, dtype=np.uint8)[:, None], [8, 8, 3]).copy()
    dataset = write_dataset(tmp_path, [ramp] * 64)
    policy = dataclasses.replace(STILL, mirror=True)
    images = np.concatenate([images for images, *_ in train(dataset, policy, steps=12)])
    plain, turned = ((images == expected).all(axis=(1, 2, 3)) for expected in (ramp, ramp[:, ::-1]))
    assert (plain ^ turned).all()
    assert 40 < turned.sum() < 80  # of 120


def test_alternating_every_image_is_mirrored_in_every_second_epoch(numbered, blocks):
    """At random which of the two."""
    policy = dataclasses.replace(STILL, mirror=True, alternates=True)
    draw = pipeline.draw_fn(numbered, policy, seed=0)
    size, epochs = numbered.num_examples("train"), {}
    for block in order.training_blocks(
        numbered.shards("train"), batch_size=1, seed=0, step=0, steps=3 * size
    ):
        columns = next(iter(batches.block_dataset([block], 1)))
        indices, draws = draw(columns)
        starts = np.cumsum([0, *(numbered.shards("train")[i].examples for i in block.shards)])
        for index, mirrored in zip(
            indices.numpy(), pipeline.is_mirrored(draws).numpy(), strict=True
        ):
            member = np.searchsorted(starts, index, side="right") - 1
            record = (block.shards[member], index - starts[member])
            epochs.setdefault(record, []).append((block.epoch, bool(mirrored)))
    assert len(epochs) == size
    turns = [[mirrored for _, mirrored in sorted(turn)] for turn in epochs.values()]
    assert all(first == third != second for first, second, third in turns)
    assert 0.3 * size < sum(first for first, *_ in turns) < 0.7 * size


def test_the_order_and_the_draws_do_not_depend_on_the_encoding(tmp_path, blocks):
    """Lossless records of the same images make the same batches."""
    images = [photo(*np.random.default_rng(seed).integers(12, 40, 2), seed) for seed in range(30)]
    runs = {}
    for way, (encoding, options) in WAYS.items():
        folder = tmp_path / way
        folder.mkdir()
        dataset = write_dataset(folder, images, shards=3, encoding=encoding)
        options = {"size": 10, "batch_size": 7, "steps": 9, **options}
        runs[way] = train(dataset, augment.POLICIES["alexnet"], **options)
    for run in runs.values():
        np.testing.assert_array_equal(labels_of(run), labels_of(runs["raw"]))
    for way in ("png", "png in memory"):
        for (images, *_), (same, *_) in zip(runs["raw"], runs[way], strict=True):
            np.testing.assert_array_equal(images, same)


@pytest.fixture(params=WAYS)
def reading(request, tmp_path):
    """A function that writes images as records, and reads a window of each of them."""
    encoding, options = WAYS[request.param]

    def read(images, window, size, **policies):
        """The images as they are stored, decoded whole, and the windows, by label."""
        dataset = write_dataset(tmp_path, images, encoding=encoding)
        formats = itertools.cycle(FORMATS[encoding])
        stored = [
            image if format == "RAW" else decode.decode(encoded(image, format))
            for image, format in zip(images, formats, strict=False)
        ]
        window_of = lambda height, width, *_: window(height, width)  # noqa: E731
        policy = dataclasses.replace(STILL, window=window_of, **policies)
        batches = train(dataset, policy, size=size, batch_size=len(images), steps=1, **options)
        ((parts, labels, _),) = batches
        return stored, parts[np.argsort(labels)]

    return read


def fixed(window):
    """A policy with the same window for every image."""

    def everywhere(height, width, size, draws):
        return tf.constant(window, tf.int32) + tf.zeros_like(draws[..., :1], tf.int32)

    return dataclasses.replace(STILL, window=everywhere)


def test_a_window_is_that_of_the_whole_decoded_image(reading):
    """In images of many sizes, each at a place of its own."""
    random = np.random.default_rng(0)
    images = [photo(*random.integers(17, 120, size=2), seed) for seed in range(40)]

    def corner(height, width):
        return (7 * height + 3 * width) % (height - 15), (5 * height + 11 * width) % (width - 15)

    def window(height, width):
        y, x = corner(height, width)
        return tf.stack([y, x, tf.fill(tf.shape(y), 16), tf.fill(tf.shape(y), 16)], axis=-1)

    stored, got = reading(images, window, 16)
    for whole, part in zip(stored, got, strict=True):
        y, x = corner(*whole.shape[:2])
        np.testing.assert_array_equal(part, whole[y : y + 16, x : x + 16])


@pytest.mark.parametrize("reflects", [False, True])
def test_outside_of_the_image_is_zero_or_its_reflection(reading, reflects):
    """The images' heights tell the windows' places."""
    places = [(-4, -3), (0, 1), (4, 4), (-1, 2)]

    def window(height, _):
        corner = tf.gather(tf.constant(places), height - 18)
        return tf.concat([corner, tf.fill(tf.shape(corner), 18)], axis=-1)

    images = [photo(18 + seed % 4, 19, seed) for seed in range(8)]
    stored, got = reading(images, window, 18, reflects=reflects)
    for whole, part in zip(stored, got, strict=True):
        y, x = (side + 4 for side in places[len(whole) - 18])
        beyond = "reflect" if reflects else "constant"
        padded = np.pad(whole, [(4, 4), (4, 4), (0, 0)], beyond)
        np.testing.assert_array_equal(part, padded[y : y + 18, x : x + 18])


def test_a_window_of_another_size_is_resized(reading):
    def window(height, _):
        return tf.constant([3, 5, 30, 20]) + 0 * height[..., tf.newaxis]

    stored, got = reading([photo(40, 50, seed) for seed in range(4)], window, 16)
    for whole, part in zip(stored, got, strict=True):
        expected = pixels.resize(whole[3:33, 5:25], np.empty([16, 16, 3], np.uint8))
        np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize("reflects", [False, True])
@pytest.mark.parametrize("cache", ["none", "memory"])
@pytest.mark.parametrize(
    ("corner", "side", "count"),
    [((-38, -38), 200, 1), ((38, 38), 300, 1), ((0, -38), 300, 3), ((0, 38), 200, 3)],
)
def test_windows_may_reach_beyond_the_ends_of_a_shard(
    tmp_path, side, count, cache, corner, reflects
):
    """The first image of one raw shard has little memory before it, the last little after it."""
    images = [photo(side, side, seed) for seed in range(count)]
    encoding = "raw" if cache == "none" else "png"
    dataset = write_dataset(tmp_path, images, encoding=encoding)
    window, options = [*corner, side, side], {"size": side, "batch_size": count, "steps": 1}
    policy = dataclasses.replace(fixed(window), reflects=reflects)
    ((got, labels, _),) = train(dataset, policy, cache=cache, **options)
    windows, mirrored = np.tile(np.int32(window), [count, 1, 1]), np.zeros([count, 1], bool)
    expected = pixels.crop(images, windows, mirrored, side, reflects=reflects)[:, 0]
    np.testing.assert_array_equal(got, expected[labels])


def test_a_window_may_hold_more_bytes_in_a_row_than_its_shard(tmp_path):
    image = photo(4, 4)
    dataset = write_dataset(tmp_path, [image])
    ((got, *_),) = train(dataset, fixed([-50, -60, 150, 150]), size=150, batch_size=1, steps=1)
    expected = np.zeros([150, 150, 3], np.uint8)
    expected[50:54, 60:64] = image
    np.testing.assert_array_equal(got[0], expected)


@pytest.mark.parametrize(
    ("stored_photos", "name"),
    [
        *(("jpeg", name) for name in augment.POLICIES),
        ("png", "cifar"),
        ("raw", "alexnet"),
        ("mixed", "inception"),
        ("unknown", "alexnet"),
    ],
    indirect=["stored_photos"],
)
def test_images_in_memory_give_the_batches_of_decoding(stored_photos, name):
    policy, options = augment.POLICIES[name], {"size": 48, "batch_size": 5, "steps": 4}
    batches = [train(stored_photos, policy, cache=cache, **options) for cache in ("none", "memory")]
    for from_shards, from_memory in zip(*batches, strict=True):
        for column, same in zip(from_shards, from_memory, strict=True):
            np.testing.assert_array_equal(column, same)
        images, labels, _ = from_memory
        assert images.shape == (5, 48, 48, 3) and sorted(labels) == list(range(5))
        assert images.std(axis=(1, 2, 3)).min() > 10


def test_views_of_images_in_memory_are_those_of_decoding(stored_photos):
    for crops in (1, 10):
        views = [
            test(stored_photos, size=48, crops=crops, cache=cache)[0][0]
            for cache in ("none", "memory")
        ]
        np.testing.assert_array_equal(*views)


def test_small_sets_are_cached_and_large_or_raw_ones_are_not(stored_photos, monkeypatch):
    photos, expected = stored_photos, 2 * 3 * sum(height * width for height, width in SIZES)
    if photos.encodings["train"] == "raw":
        for cache in decoded.CACHES:
            assert decoded.chosen_cache(photos, cache) == "none"  # its pixels are at hand
        return
    assert decoded.chosen_cache(photos, "auto") == "memory"
    assert decoded.chosen_cache(photos, "none") == "none"
    assert decoded.decoded_bytes(photos) == expected  # of two splits
    for free, chosen in ((4 * expected, "memory"), (4 * expected - 1, "none")):
        monkeypatch.setattr(decoded, "free_memory", lambda free=free: free)
        assert decoded.chosen_cache(photos, "auto") == chosen
    monkeypatch.undo()
    monkeypatch.setattr(decoded, "_AUTO_BYTES", expected - 1)
    assert decoded.chosen_cache(photos, "auto") == "none"
    assert decoded.chosen_cache(photos, "memory") == "memory"


@pytest.mark.parametrize("first, last, encoding", [(400, 400, "png"), (200, 300, "unknown")])
def test_decoded_images_are_never_in_memory_twice(first, last, encoding, tmp_path, monkeypatch):
    monkeypatch.setattr(decoded, "_CHUNK_BYTES", 1 << 20, raising=False)
    images = [
        np.full((side, side, 3), side % 256, np.uint8) for side in [first] * 110 + [last] * 40
    ]
    shards = write_dataset(tmp_path, images, encoding=encoding).shards("train")
    decoded.in_memory.cache_clear()
    tracemalloc.start()
    opened = decoded.in_memory(shards, encoding, 2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(image.size for image in images) == len(opened[shards[0]].pixels)
    assert peak < 1.3 * len(opened[shards[0]].pixels)


def test_splits_may_be_stored_differently(tmp_path):
    """Only what is encoded is decoded into memory, or counts for it."""
    raw = photos_of(tmp_path, "raw")
    (tmp_path / "png").mkdir()
    png = photos_of(tmp_path / "png", "png")
    both = dataclasses.replace(
        raw,
        splits={"train": raw.shards("train"), "test": png.shards("test"), "none": ()},
        encodings={"train": "raw", "test": "png", "none": "jpeg"},
    )
    assert decoded.decoded_bytes(both) == 3 * sum(height * width for height, width in SIZES)
    assert decoded.chosen_cache(both, "auto") == "memory"
    policy, options = augment.POLICIES["alexnet"], {"size": 32, "batch_size": 5, "steps": 2}
    decoded.in_memory.cache_clear()
    for cache in ("none", "memory"):
        for expected, got in zip(
            train(raw, policy, **options), train(both, policy, cache=cache, **options), strict=True
        ):
            np.testing.assert_array_equal(got[0], expected[0])
        assert decoded.in_memory.cache_info().misses == 0  # nothing of the raw split
        (views, *_), *_ = test(both, size=32, batch_size=5, cache=cache)
        np.testing.assert_array_equal(views, test(raw, size=32, batch_size=5)[0][0])
    assert decoded.in_memory.cache_info().misses == 1


def test_raw_shards_of_past_blocks_are_closed(numbered, monkeypatch):
    monkeypatch.setattr(decoded, "_MAPPED_BYTES", 2 * numbered.shards("train")[0].bytes)
    opened = decoded.Mapped()
    for shard in numbered.shards("train"):
        first = opened(shard).table[0]
        assert opened(shard).pixels[first[0]] == first[-1]  # image i is grey i
        assert len(opened._open) <= 2


def test_resizing():
    def resized(image, size):
        return pixels.resize(image, np.empty([size, size, 3], np.uint8))

    image = photo(20, 20)
    np.testing.assert_array_equal(resized(image, 20), image)
    larger = resized(image, 31)
    values = tf.image.resize(image, [31, 31])
    np.testing.assert_allclose(larger, values, atol=1)
    stripes = np.tile(np.uint8([0, 255, 255, 0])[:, np.newaxis], [64, 16, 3])
    grey = resized(stripes, 16)
    assert abs(grey.astype(int) - 127).max() < 40  # all pixels count, none is skipped


@pytest.mark.parametrize("keep", [0, 14, 16])
def test_a_shard_with_another_number_of_records_stops_the_run(numbered, tmp_path, keep):
    shards = list(numbered.shards("train"))
    lines = [line.numpy() for line in tf.data.TFRecordDataset(shards[0].path)]
    path = tmp_path / "changed.tfrecord"
    records.write_shard(path, (lines * 2)[:keep])
    shards[0] = dataclasses.replace(shards[0], path=str(path))
    splits = {"train": tuple(shards), "test": tuple(shards)}
    damaged = dataclasses.replace(numbered, splits=splits)
    for read in (train, test):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"shards changed|was empty"):
            read(damaged)


def test_a_raw_shard_that_was_cut_off_is_named_as_such(numbered, tmp_path):
    content = Path(numbered.shards("train")[0].path).read_bytes()
    last = len(records.locate(np.frombuffer(content, np.uint8))) - 1
    for length in (-3, -40, -100):
        with pytest.raises(ValueError, match=f"record {last} is damaged or cut off"):
            records.locate(np.frombuffer(content[:length], np.uint8))
    with pytest.raises(ValueError, match="record 0 is damaged"):
        records.locate(np.frombuffer(content[7:], np.uint8))
    flipped = np.frombuffer(content, np.uint8).copy()
    for place in (3, 10, 500, len(content) - 1):
        flipped[place] ^= 4
        with pytest.raises(ValueError, match=r"record \d+ is damaged"):
            records.locate(flipped)
        flipped[place] ^= 4


@pytest.mark.parametrize(("replicas", "expected"), [(1, 11), (4, 12)])
def test_a_test_sees_every_image_once_in_stored_order(numbered, replicas, expected):
    batches = test(numbered, replicas=replicas)
    assert len(batches) == expected
    views, labels, weights = (np.concatenate(column) for column in zip(*batches, strict=True))
    assert views.shape == (10 * expected, 1, 8, 8, 3) and labels.dtype == np.int32
    assert weights.tolist() == [1.0] * 103 + [0.0] * (10 * expected - 103)
    np.testing.assert_array_equal(labels[:103], np.arange(103))
    np.testing.assert_array_equal(views[:, 0, 0, 0, 0], labels)


def test_filling_up_may_take_more_examples_than_there_are(photos):
    batches = test(photos, batch_size=4, replicas=4)
    assert np.concatenate([weights for *_, weights in batches]).tolist() == [1] * 5 + [0] * 11


def test_ten_views_are_numpy_slices_of_the_image(photos):
    views = test(photos, size=64, crops=10, batch_size=5)[0][0][2]
    image = decode.decode(encoded(photo(99, 65, 2), "JPEG"))
    side, (top, left) = 64, (99 - 64, 65 - 64)
    corners = [(0, 0), (0, left), (top, 0), (top, left), (top // 2, left // 2)]
    five = np.stack([image[y : y + side, x : x + side] for y, x in corners])
    np.testing.assert_array_equal(views, np.concatenate([five, five[:, :, ::-1]]))


def test_one_view_is_the_centre_of_the_ten(photos):
    one, ten = (test(photos, size=48, crops=crops, batch_size=5)[0][0] for crops in (1, 10))
    np.testing.assert_array_equal(one[:, 0], ten[:, 4])


@pytest.mark.parametrize("crops", [1, 6, 10])
@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw", "mixed"])
def test_images_in_memory_get_the_views_of_their_records(tmp_path, encoding, crops):
    dataset = photos_of(tmp_path, encoding)
    formats = itertools.cycle(FORMATS[encoding])
    stored = [
        decode.Stored(encoded(photo(*size, seed), format), format, *size, (0,) * 3, (0,) * 3)
        for seed, (size, format) in enumerate(zip(SIZES, formats, strict=False))
    ]
    expected = test(dataset, size=48, crops=crops, batch_size=5)[0][0]
    views = pipeline.views_of(stored, size=48, crops=crops)
    assert views.shape == (5, crops, 48, 48, 3)
    np.testing.assert_array_equal(views, expected)


def test_foreign_records_of_any_kind_with_labels_from_one(tmp_path):
    images = [photo(40, 30, seed) for seed in range(3)]
    dataset = write_dataset(tmp_path, images, encoding="unknown", offset=1)
    views, labels, _ = test(dataset, size=30, batch_size=3)[0]
    assert labels.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(views[::2, 0], np.stack(images)[::2, 5:35])  # PNG, JPEG, PNG


def test_facts_about_a_split_do_not_depend_on_its_encoding(stored_photos):
    assert pipeline.shorter_side(stored_photos) == 65  # the images', not the options'
    assert pipeline.has_labels(stored_photos, "train")
    assert pipeline.class_counts(stored_photos, "train").tolist() == [1] * 5


def test_every_stage_gives_all_images(stored_photos):
    options = {"size": 48, "batch_size": 5, "seed": 0, "steps": 3, "threads": 2}
    stages = input_stages(stored_photos, STILL, **options)
    decodes = stored_photos.encodings["train"] != "raw"
    assert list(stages) == ["read", *["decode"] * decodes, "augment", "batch"]
    for name, counts in stages.items():
        assert sum(counts.as_numpy_iterator()) == 15, name
    assert "decode" not in input_stages(stored_photos, STILL, **options, cache="memory")


def of_no_image(folder, encoding, format):
    """A data set of one record that holds six bytes."""
    record = records.example_bytes(
        encoded=b"pixels", format=format, label=0, height=40, width=40, filename=""
    )
    path = folder / "one.tfrecord"
    shard = datasets.Shard(str(path), *records.write_shard(path, [record]))
    options = {"splits": {"train": (shard,)}, "encodings": {"train": encoding}}
    return dataclasses.replace(photos_of(folder, encoding), **options)


@pytest.mark.parametrize(
    "encoding, format",
    [("jpeg", "JPEG"), ("png", "PNG"), ("mixed", "JPEG"), ("mixed", "PNG"), ("unknown", "PNG")],
)
def test_the_stage_that_decodes_does_so(tmp_path, encoding, format):
    """TensorFlow leaves out what has no consequence."""
    options = {"size": 8, "batch_size": 1, "seed": 0, "steps": 1, "threads": 1}
    stages = input_stages(of_no_image(tmp_path, encoding, format), STILL, **options)
    assert list(stages["read"].as_numpy_iterator()) == [1]
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(stages["decode"])


def test_a_record_of_another_size_than_it_says_stops_the_run(tmp_path):
    dataset = of_no_image(tmp_path, "mixed", "RAW")
    with pytest.raises(tf.errors.InvalidArgumentError, match="cannot reshape array of size 6"):
        train(dataset, batch_size=1)


def test_an_empty_or_unknown_split_is_refused(numbered):
    with pytest.raises(ValueError, match=r"train, test, received validation"):
        pipeline.test_batches(numbered, "validation", size=8, crops=1, batch_size=1, threads=1)
    empty = dataclasses.replace(numbered, splits={"test": ()})
    with pytest.raises(ValueError, match="empty"):
        test(empty)


def test_plans_cover_long_runs_quickly(numbered):
    shards = numbered.shards("train")
    blocks = order.training_blocks(shards, batch_size=100, seed=0, step=0, steps=500)
    assert sum(block.take for block in blocks) == 50_000
    assert len({block.seed for block in blocks}) == 500


def test_large_images_are_decoded_a_few_at_a_time(photos, monkeypatch):
    whole = train(photos, augment.POLICIES["alexnet"], size=48, batch_size=4, steps=3)
    shards = photos.shards("train")
    mean = sum(shard.bytes for shard in shards) / sum(shard.examples for shard in shards)
    monkeypatch.setattr("data.pipeline.encoded._CALL_BYTES", int(3.5 * 12 * mean))
    seen = []
    decoded = pixels.crop
    monkeypatch.setattr(
        "data.pipeline.pixels.crop",
        lambda images, *rest, **how: (seen.append(len(images)), decoded(images, *rest, **how))[1],
    )
    parts = train(photos, augment.POLICIES["alexnet"], size=48, batch_size=4, steps=3)
    assert set(seen) == {2}  # the largest divisor of 4 that is no more than 3
    for (images, labels, _), (others, same, _) in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, same)
