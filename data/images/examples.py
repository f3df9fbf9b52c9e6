"""Sources of images: where each image's bytes lie, its class and its split."""

import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.images.decode import BadImage, Storage
from data.images.reading import PassedOver

UNLABELLED = -1


class Packing(NamedTuple):
    """How a member of a .zip archive is packed.

    Attributes:
        size: Size of the content in bytes.
        crc32: Checksum of the content.
        deflated: Whether the member is compressed, in the format of RFC 1951.
    """

    size: int
    crc32: int
    deflated: bool

    def unpacked(self, data: bytes) -> bytes:
        """Returns the content of a member.

        Raises:
            BadImage: If the member is damaged.
        """
        try:
            if self.deflated:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, self.size + 1)
        except zlib.error as error:
            raise BadImage(f"its archive is damaged: {error}") from None
        if len(data) != self.size or zlib.crc32(data) != self.crc32:
            raise BadImage("its archive is damaged: the checksum is wrong")
        return data


@dataclass(frozen=True, slots=True)
class Example:
    """One image's bytes.

    Attributes:
        name: Name relative to the source, as in "tench/0001.jpg".
        label: Index into the source's class names, or `UNLABELLED`.
        path: The file that holds the image.
        offset: First byte of the image in that file.
        size: Size in bytes; None for the rest of the file.
        packing: How the image is packed in a .zip archive; None if it is not packed.
    """

    name: str
    label: int
    path: str
    offset: int = 0
    size: int | None = None
    packing: Packing | None = None

    def read(self, max_bytes: int = sys.maxsize) -> bytes:
        """Returns the image's bytes.

        Args:
            max_bytes: Maximum number of bytes.

        Raises:
            OSError: If the file cannot be read.
            BadImage: If the archive is damaged there.
        """
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            if self.packing:
                return self.packing.unpacked(file.read(self.size))[:max_bytes]
            size = max_bytes if self.size is None else min(self.size, max_bytes)
            return file.read(-1 if size == sys.maxsize else size)


@dataclass(frozen=True, slots=True)
class Upload:
    """An image that lies in no file.

    Attributes:
        name: Name given by the sender.
        data: Bytes of the image file.
    """

    name: str
    data: bytes

    @property
    def size(self) -> int:
        """Size in bytes."""
        return len(self.data)

    def read(self) -> bytes:
        """Returns the image's bytes."""
        return self.data


Splits = dict[str, list[Example]]


class Member(NamedTuple):
    """An `Example` whose label is not known yet."""

    name: str
    path: str
    offset: int
    size: int
    packing: Packing | None = None


Listing = dict[str, list[Member]]


@dataclass(frozen=True)
class Source:
    """A set of images to convert.

    Attributes:
        name: Short name, for folders and messages.
        class_names: Names of the classes, by label.
        fingerprint: Hexadecimal digest that identifies the images.
        earlier_fingerprint: Computes the fingerprint of earlier versions; None if it is the same.
        listed: Examples by split, if they are known before `list_splits`.
        list_splits: Returns the examples of "train" and, if there are any, of "validation" and
            "test"; first writes images that lie in no file below the given folder.
        storage: How to store the images; None if the caller decides.
        seed: Seed of the held-out examples and of the stored order.
        validation_fraction: Part of train that is held out if there is no validation split.
        passed_over: Files and folders among the images that are not used.
        joined: Names of the classes made of several folders, and of these folders.
        eight_bit: Whether all images are known to have 8 bits per channel.
        classes_are_folders: Whether each class is a folder; else a class may have no images.
        train_images: Number of training images, about if TFDS holds some out; None if unknown.
    """

    name: str
    class_names: tuple[str, ...]
    fingerprint: str
    list_splits: Callable[[Path], Splits]
    earlier_fingerprint: Callable[[], str] | None = None
    listed: Splits = field(default_factory=dict)
    storage: Storage | None = None
    seed: int = 0
    validation_fraction: float = 0.1
    passed_over: PassedOver = field(default_factory=PassedOver)
    joined: str = ""
    eight_bit: bool = False
    classes_are_folders: bool = True
    train_images: int | None = None


def labelled(listing: Listing, class_names: Sequence[str], split: str) -> list[Example]:
    """Labels the members of each class with its index in `class_names`.

    Raises:
        ValueError: If a class is not in `class_names`.
    """
    labels = {name: label for label, name in enumerate(class_names)}
    if unknown := [name for name in listing if name not in labels]:
        raise ValueError(
            f"class {unknown[0]!r} of the {split} split is not among the {len(labels)} classes of "
            f"the train split, as in {listing[unknown[0]][0].name}"
        )
    return [
        Example(member.name, labels[name], *member[1:])
        for name in sorted(listing, key=labels.get)
        for member in listing[name]
    ]


def hold_out(examples: list[Example], fraction: float, seed: int) -> Splits:
    """Splits examples into train and validation, stratified by class.

    A class of n >= 2 images loses max(1, round(fraction * n)) of them, never all, to validation; a
    single image stays in train.

    Args:
        examples: Labelled examples, in an order that does not change from run to run.
        fraction: Part to hold out, 0 <= fraction < 1; 0 for no validation.
        seed: Seed of the choice.

    Returns:
        "train" and, unless `fraction` is 0, "validation", both in the given order.

    Raises:
        ValueError: If `fraction` is out of range, or validation would be empty.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"expected validation_fraction in [0, 1), received {fraction}")
    if fraction == 0:
        return {"train": examples}
    positions = defaultdict(list)
    for position, example in enumerate(examples):
        positions[example.label].append(position)
    held_out = set()
    for label, members in sorted(positions.items()):
        if len(members) >= 2:
            count = min(max(1, round(fraction * len(members))), len(members) - 1)
            random = np.random.default_rng([seed, label])
            held_out.update(random.choice(members, count, replace=False).tolist())
    if not held_out:
        raise ValueError(
            "the validation split would be empty: no class has two images or more; add images, "
            "name a folder with --val_data or use --validation_fraction=0"
        )
    return {
        "train": [example for i, example in enumerate(examples) if i not in held_out],
        "validation": [example for i, example in enumerate(examples) if i in held_out],
    }
