"""Reads a folder of small images into memory, and identifies it as train.py and test.py do."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from data.conversion import identity
from data.images import decode
from data.images.examples import Example
from data.sources import sources

SIDE = 32  # pixels


@dataclasses.dataclass(frozen=True)
class Images:
    """Training and test images.

    Attributes:
        data: Folder of train/CLASS and test/CLASS.
        val_data: Folder of the test images, which count as validation images: nothing is held out.
        class_names: Names of the K classes, by label.
        storage: How train.py stores such images.
        fingerprint: `Dataset.fingerprint` of the data as train.py stores it.
        train: Training images uint8 [N, 32, 32, 3] in RGB, and labels int32 [N].
        test: Test images, likewise.
    """

    data: str
    val_data: str
    class_names: tuple[str, ...]
    storage: decode.Storage
    fingerprint: str
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def read(folder: Path) -> Images:
    """Reads the folders train/CLASS and test/CLASS of a folder.

    Raises:
        FileNotFoundError: If the folder or test/ in it does not exist.
        ValueError: If the folders are not classes, or a file is not an image of 32 x 32 pixels.
    """
    test = str(folder / "test")
    source = sources.open_source(folder, val_data=test)
    if "test" not in source.listed:
        raise ValueError(f"expected folders train/CLASS and test/CLASS, received {folder}")
    storage = decode.storage_for(SIDE)
    return Images(
        str(folder),
        test,
        source.class_names,
        storage,
        identity.fingerprint(source, storage),
        *(_decoded(source.listed[split]) for split in ("train", "test")),
    )


def _decoded(examples: list[Example]) -> tuple[np.ndarray, np.ndarray]:
    images = []
    for example in examples:
        encoded = np.frombuffer(example.read(), np.uint8)
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB) if len(encoded) else None
        if image is None or image.shape != (SIDE, SIDE, 3):
            found = "no image" if image is None else f"{image.shape[1]} x {image.shape[0]}"
            raise ValueError(f"{example.path}: expected {SIDE} x {SIDE} pixels, received {found}")
        images.append(image)
    return np.stack(images), np.array([example.label for example in examples], np.int32)
