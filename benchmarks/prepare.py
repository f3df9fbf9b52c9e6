"""Writes a scenario's data: shards for our pipeline, the same bytes as files for other loaders."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf
from PIL import Image

from benchmarks.setting import BATCH_SIZE, SCENARIOS, Setting
from data.conversion import conversion
from data.shards import datasets, records
from data.sources import sources

SMALLEST = 256  # photographs with a shorter side are skipped, because none are to be enlarged


def link_images(
    data: str, folder: Path, examples: int, smallest: int = 0, *, square: bool = False
) -> int:
    """Makes class folders of links to images, several per image if necessary.

    Args:
        data: Folder of class folders.
        folder: Folder to make.
        examples: Minimum number of links, so that epochs are long enough.
        smallest: Minimum of the shorter side in pixels; smaller images are skipped.
        square: Whether to crop images to their centre squares, written next to the folder.

    Returns:
        Number of different images.

    Raises:
        ValueError: If no images are left.
    """
    source = sources.open_source(data, validation_fraction=0.0)
    found = source.list_splits(folder)["train"]
    chosen = [example for example in found if _shorter_side(example.path) >= smallest]
    if not chosen:
        raise ValueError(f"{data}: expected images of at least {smallest} pixels, found none")
    paths = [Path(example.path).resolve() for example in chosen]
    if square:
        squares = folder.with_name("squares")
        squares.mkdir()
        paths = [_square(path, squares / f"{index}.png") for index, path in enumerate(paths)]
    for copy in range(-(-examples // len(chosen))):
        for index, (example, path) in enumerate(zip(chosen, paths, strict=True)):
            place = folder / f"class-{example.label:05d}"
            place.mkdir(parents=True, exist_ok=True)
            link = place / f"{index:06d}-{copy}{path.suffix.lower()}"
            link.symlink_to(path)
    return len(chosen)


def prepare(scenario: str, originals: Path, folder: Path, *, size: int, threads: int) -> Setting:
    """Converts images for a scenario.

    Args:
        scenario: Scenario, a key of `SCENARIOS`.
        originals: Folder that `link_images` made.
        folder: Folder to make.
        size: Side of the images in batches in pixels; small images keep theirs.
        threads: Threads of every candidate.
    """
    about = SCENARIOS[scenario]
    source = sources.open_source(originals, validation_fraction=0.0)
    conversion.convert(source, folder / "shards", about.storage, progress=False)
    dataset = datasets.load(folder / "shards")
    labels = np.array([label for _, label, _ in _examples(dataset)], np.int32)
    np.save(folder / "labels.npy", labels)
    if about.storage.encoding == "jpeg":
        _write_files(folder / "files", _examples(dataset))
    if about.storage.encoding == "raw" or about.small:
        side = _write_pixels(folder / "pixels.npy", _examples(dataset), len(labels))
        size = side if about.small else size
    batch_size = min(BATCH_SIZE, len(labels))
    return Setting(scenario, str(folder), str(originals), size, batch_size, threads)


def _square(path: Path, square: Path) -> Path:
    """Writes the centre square of an image without loss; returns its path."""
    image = cv2.imread(str(path))
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    cv2.imwrite(str(square), image[top : top + side, left : left + side])
    return square


def _shorter_side(path: str) -> int:
    with Image.open(path) as image:
        return min(image.size)


def _examples(dataset: datasets.Dataset) -> Iterator[tuple[bytes, int, tuple[int, int]]]:
    """Yields bytes, label, and (height, width) of the records."""
    paths = [shard.path for shard in dataset.shards("train")]
    for serialized in tf.data.TFRecordDataset(paths).as_numpy_iterator():
        features = tf.train.Example.FromString(serialized).features.feature
        keys = (records.LABEL, records.HEIGHT, records.WIDTH)
        label, *shape = (features[key].int64_list.value[0] for key in keys)
        yield features[records.ENCODED].bytes_list.value[0], label, tuple(shape)


def _write_files(folder: Path, examples: Iterator) -> None:
    for index, (encoded, label, _) in enumerate(examples):
        path = folder / f"{label:05d}" / f"{index:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded)


def _write_pixels(path: Path, examples: Iterator, count: int) -> int:
    """Writes decoded squares, all of one size, and returns their side in pixels."""
    images = (_decoded(np.frombuffer(encoded, np.uint8), shape) for encoded, _, shape in examples)
    first = next(images)
    side = first.shape[0]
    pixels = np.lib.format.open_memmap(path, "w+", np.uint8, (count, side, side, 3))
    for index, image in enumerate(itertools.chain([first], images)):
        if image.shape != (side, side, 3):
            raise ValueError(f"expected squares of {side} pixels. Received: {image.shape[:2]}")
        pixels[index] = image
    pixels.flush()
    return side


def _decoded(encoded: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    if encoded.size == 3 * shape[0] * shape[1]:
        return encoded.reshape(*shape, 3)
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)
