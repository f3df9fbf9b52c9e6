"""Labelled images for tests: a split of a converted data set, or unconverted class folders."""

import collections
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import cv2
import numpy as np
import tensorflow as tf

from data import pipeline
from data.images import workers
from data.images.decode import Storage, Stored
from data.images.examples import Example
from data.images.names import composed
from data.images.reading import PassedOver
from data.images.resized import Resized
from data.pipeline import pixels, views
from data.shards import random_access, records
from data.shards.datasets import Dataset
from data.sources import folders, imagenet

_NAMED = 5  # names in a message
_RECORDS = 64  # records parsed at a time


class TestSet(Protocol):
    """Labelled images in a fixed order.

    Attributes:
        name: Name of the images in messages.
        class_names: Class names, indexed by label.
    """

    name: str
    class_names: Sequence[str]

    def batches(
        self, *, size: int, crops: int, batch_size: int, threads: int, replicas: int
    ) -> tf.data.Dataset:
        """Returns batches of views like `pipeline.test_batches`, which documents the arguments."""

    def filenames(self) -> list[str]:
        """Returns the file names of the images that `batches` or `whole` returned, in order."""

    def pictures(self, positions: Sequence[int]) -> list[np.ndarray]:
        """Reads the images at these positions, as stored: uint8 [H, W, 3]."""

    def whole(self, side: int) -> Iterator[tuple[np.ndarray, int]]:
        """Yields every image, uint8 [H, W, 3], with shorter side `side`, and its label."""

    def remarks(self) -> list[str]:
        """Returns lines for the user about the images that `batches` or `whole` left out."""


class Split:
    """A split of a converted data set."""

    def __init__(self, dataset: Dataset, split: str) -> None:
        """Opens a labelled split of a data set.

        Args:
            dataset: Converted data set.
            split: Name of a split that has labels.
        """
        self.name, self.class_names = f"{split} split of {dataset.folder}", dataset.class_names
        self._dataset, self._split = dataset, split
        self._paths = [shard.path for shard in dataset.shards(split)]
        self._filenames: list[str] | None = None

    def batches(self, **options: int) -> tf.data.Dataset:
        """Returns the batches of `pipeline.test_batches`, which documents the options."""
        return pipeline.test_batches(self._dataset, self._split, **options)

    def filenames(self) -> list[str]:
        """Returns the file names of all images in stored order."""
        if self._filenames is None:
            collections.deque(self._parsed(), maxlen=0)
        return self._filenames

    def pictures(self, positions: Sequence[int]) -> list[np.ndarray]:
        """Reads the images at these positions, as stored: uint8 [H, W, 3]; skips other records."""
        shards, count = np.arange(len(self._paths)), self._dataset.num_examples(self._split)
        serialized_records = random_access.Files(self._paths).read(
            shards, count, np.array(positions, np.int64)
        )
        return [pixels.from_record(records.parse(serialized)) for serialized in serialized_records]

    def whole(self, side: int) -> Iterator[tuple[np.ndarray, int]]:
        """Yields every image, uint8 [H, W, 3], with shorter side `side`, and its label."""
        for columns in self._parsed():
            for values in zip(*map(tf.unstack, columns.values()), strict=True):
                record = dict(zip(columns, values, strict=True))
                label = int(record["label"]) - self._dataset.label_offset
                yield _scaled(pixels.from_record(record), side), label

    def remarks(self) -> list[str]:
        """Returns no lines, because a split leaves no images out."""
        return []

    def _parsed(self) -> Iterator[dict[str, tf.Tensor]]:
        """Yields all records in the batches of `records.parse`, and keeps their file names."""
        decoded_names = []
        for serialized in tf.data.TFRecordDataset(self._paths).batch(_RECORDS):
            columns = records.parse(serialized, filename=True)
            filenames = columns["filename"].numpy()
            decoded_names += [name.decode(errors="backslashreplace") for name in filenames]
            yield columns
        self._filenames = decoded_names


class Folder:
    """Images in class folders, `root/CLASS/**`, or of ILSVRC2012, decoded on demand."""

    def __init__(
        self,
        root: str,
        class_names: Sequence[str],
        storages: Mapping[int, Storage | Resized],
        processes: int,
    ) -> None:
        """Lists the images.

        A folder is named by a class name of the network or its WordNet id; images in other folders
        are left out.

        Args:
            root: Folder of the class folders, or ILSVRC2012's flat validation images, see
                `imagenet.flat_validation`.
            class_names: Class names of the network.
            storages: Storage format that images are brought to before views are cropped, or how
                they are resized, by the side of the views.
            processes: Upper limit of decoding processes.

        Raises:
            FileNotFoundError: If the folder does not exist.
            ValueError: If it has no class folders, or none of the network's classes; or if flat
                validation images have no labels.
        """
        self.name, self.class_names = root, class_names
        self._storages, self._processes = storages, processes
        self._passed_over = PassedOver()
        listing = imagenet.flat_validation(root)
        listing = listing or folders.list_class_folders(root, self._passed_over)
        if not listing:
            raise ValueError(
                f"{root} holds no CLASS/*.jpg images, expected class folders or "
                f"{imagenet.VALIDATION} with {imagenet.DEVKIT} beside it; "
                "for images without labels use classify.py"
            )
        labels = {composed(name): label for label, name in enumerate(class_names)}
        folder_labels = {name: labels.get(imagenet.readable_names([name])[0]) for name in listing}
        self._unknown = {n: len(listing[n]) for n, label in folder_labels.items() if label is None}
        self._examples = [
            Example(member.name, folder_labels[name], *member[1:])
            for name in sorted(listing)
            if folder_labels[name] is not None
            for member in listing[name]
        ]
        if not self._examples:
            raise ValueError(
                f"no folder of {root} has the name of a class: expected some of "
                f"{_first_names(class_names)}, received {_first_names(list(listing))}"
            )
        self._read_examples: list[Example] = []
        self._rejected: list[str] = []

    def batches(
        self, *, size: int, crops: int, batch_size: int, threads: int, replicas: int
    ) -> tf.data.Dataset:
        """Returns batches like `pipeline.test_batches`, without the unreadable images."""
        del threads
        signature = (
            tf.TensorSpec([batch_size, len(views.VIEWS[crops]), size, size, 3], tf.uint8),
            tf.TensorSpec([batch_size], tf.int32),
            tf.TensorSpec([batch_size], tf.float32),
        )
        return tf.data.Dataset.from_generator(
            lambda: self._batches(size, crops, batch_size, replicas), output_signature=signature
        ).prefetch(2)

    def _batches(
        self, size: int, crops: int, batch_size: int, replicas: int
    ) -> Iterator[tuple[np.ndarray, ...]]:
        readable = self._readable(self._storages[size])
        while batch := list(itertools.islice(readable, batch_size * replicas)):
            missing = batch_size * replicas - len(batch)
            images = pipeline.views_of([stored for _, stored in batch], size=size, crops=crops)
            images = np.concatenate([images, *[images[-1:]] * missing])
            labels = np.int32([example.label for example, _ in batch] + [0] * missing)
            weights = np.float32([1] * len(batch) + [0] * missing)
            for begin in range(0, len(images), batch_size):  # one batch per replica
                part = slice(begin, begin + batch_size)
                yield images[part], labels[part], weights[part]

    def whole(self, side: int) -> Iterator[tuple[np.ndarray, int]]:
        """Yields every image, uint8 [H, W, 3], with shorter side `side`, and its label."""
        storage = self._storages[side]
        if isinstance(storage, Resized):  # to the side itself at once
            storage = dataclasses.replace(storage, image_size=side, short_side=side)
        for example, stored in self._readable(storage):
            yield _scaled(pixels.from_stored(stored), side), example.label

    def _readable(self, storage: Storage | Resized) -> Iterator[tuple[Example, Stored]]:
        self._read_examples, self._rejected = [], []
        prepared = self._stored(self._examples, storage)
        for example, stored in zip(self._examples, prepared, strict=True):
            if isinstance(stored, workers.Rejected):
                self._rejected.append(f"{example.name}: {stored.reason}")
            else:
                self._read_examples.append(example)
                yield example, stored

    def filenames(self) -> list[str]:
        """Returns the file names of the readable images."""
        return [example.name for example in self._read_examples]

    def pictures(self, positions: Sequence[int]) -> list[np.ndarray]:
        """Reads the images at these positions, as converted: uint8 [H, W, 3]."""
        examples = [self._read_examples[position] for position in positions]
        storage = next(iter(self._storages.values()))
        return [pixels.from_stored(stored) for stored in self._stored(examples, storage)]

    def remarks(self) -> list[str]:
        """Returns lines about other files, folders of unknown classes and unreadable images."""
        lines = []
        if parts := self._passed_over.parts():
            lines.append(f"passed over: {', '.join(parts)}")
        if self._unknown:
            lines.append(
                f"not counted: {sum(self._unknown.values())} images in folders that are no class "
                f"of the network: {_first_names(list(self._unknown))}"
            )
        if self._rejected:
            lines.append(f"not counted: {len(self._rejected)} unreadable: {self._rejected[0]}, ...")
        return lines

    def _stored(
        self, examples: Sequence[Example], storage: Storage | Resized
    ) -> Iterator[Stored | workers.Rejected]:
        processes = max(1, min(self._processes, len(examples)))
        return workers.prepared(examples, storage, processes)


def _scaled(image: np.ndarray, side: int) -> np.ndarray:
    height, width = image.shape[:2]
    scale = side / min(height, width)
    size = (max(side, round(scale * width)), max(side, round(scale * height)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return image if scale == 1 else cv2.resize(image, size, interpolation=interpolation)


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def thumbnail(image: np.ndarray, side: int) -> bytes:
    """Encodes an image, uint8 [H, W, 3], as JPEG with a longer side of at most `side` pixels."""
    scale = min(1.0, side / max(image.shape[:2]))
    height, width = (max(1, round(scale * length)) for length in image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1].tobytes()
