"""Packaged data sets, digits and TFDS: their images are written to a spool file first."""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from data.images.decode import Storage
from data.images.examples import Example, Source, Splits, hold_out
from data.images.names import SPLITS
from data.shards.series import fingerprint
from data.sources.folders import name_of

DIGITS_FRACTION = 0.2
_DIGITS_TRAIN = 1437  # the other images
_CAUSE_CHARACTERS = 400
_INTERNALS = re.compile(r"\{\{.*?\}\}\s*|\s*\[Op:.*")  # TensorFlow's, around a message
_TFDS_FILES = ("dataset_info.json", "features.json")  # in the folder of every version


def digits(data: str, *, val_data: None, validation_fraction: float, seed: int) -> Source:
    """Opens scikit-learn's 1,797 handwritten digits of 8 x 8 pixels.

    A stratified fifth is held out; `validation_fraction` is ignored. Source: E. Alpaydin and
    C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
    """
    _refuse_val_data(data, val_data)
    version = importlib.metadata.version("scikit-learn")
    return Source(
        name="digits",
        class_names=tuple("0123456789"),
        fingerprint=hashlib.sha256(f"digits {version}".encode()).hexdigest(),
        list_splits=functools.partial(_spool_digits, seed),
        storage=Storage(short_side=8, quality=95, encoding="raw"),
        seed=seed,
        validation_fraction=DIGITS_FRACTION,
        eight_bit=True,
        train_images=_DIGITS_TRAIN,
    )


def is_tfds_folder(data: str | os.PathLike) -> bool:
    """Whether a folder was prepared by TFDS: NAME/VERSION, or NAME with such folders in it."""
    return bool(_versions(data))


def tfds(data: str, *, val_data: None, validation_fraction: float, seed: int) -> Source:
    """Opens `tfds:NAME`, or a folder that TFDS has prepared.

    Images and classes are the features "image" and "label", or the only ones of their types. A data
    set named by NAME is downloaded and prepared if necessary. Without a validation split a part of
    train is held out.

    Raises:
        ValueError: If TFDS does not know the data set or cannot get it, it lacks these features or
            a train split, or the folder has several versions.
    """
    _refuse_val_data(data, val_data)
    files = []
    if data.startswith("tfds:"):
        name = data.removeprefix("tfds:")
        builder = _call_tfds(data, "builder", name)
    else:
        folder = _version(data)
        builder = _call_tfds(data, "builder_from_directory", folder)
        name, files = builder.info.full_name, sorted(filter(Path.is_file, folder.iterdir()))
    keys = _image_and_label(data, builder.info.features)
    with _tfds_errors(data):
        builder.download_and_prepare()
    sizes = {split: info.num_examples for split, info in builder.info.splits.items()}
    if "train" not in sizes:
        raise ValueError(f"{data}: expected a train split, found {sorted(sizes)}")
    held_out = 0 if "validation" in sizes else validation_fraction
    class_names = builder.info.features[keys[1]].names
    identity = (builder.info.full_name, sorted(sizes.items()), class_names)
    if files:
        identity += (keys, fingerprint(files))
    return Source(
        name=name_of(name.replace("/", "_")),
        class_names=tuple(class_names),
        fingerprint=hashlib.sha256(repr(identity).encode()).hexdigest(),
        list_splits=functools.partial(_spool_tfds, data, builder, keys, validation_fraction, seed),
        seed=seed,
        validation_fraction=validation_fraction,
        classes_are_folders=False,
        train_images=round((1 - held_out) * sizes["train"]),
    )


def digit_images() -> tuple[np.ndarray, np.ndarray]:
    """Returns the digits as uint8 [1797, 8, 8], 0..255, and their classes, int64 [1797]."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.rint(bunch.images * (255 / 16)).astype(np.uint8), bunch.target


def _refuse_val_data(data: str, val_data: str | None):
    if val_data is not None:
        raise ValueError(f"expected no val_data with {data}, received {val_data}")


@contextlib.contextmanager
def _tfds_errors(data: str) -> Iterator[None]:
    """Replaces errors of TFDS (unknown name, no network, ...) by a ValueError of one line."""
    try:
        yield
    except Exception as error:  # of any type: of TFDS, of requests, AssertionError
        cause = _INTERNALS.sub("", str(error).partition("\nAvailable datasets")[0])
        cause = textwrap.shorten(cause, _CAUSE_CHARACTERS, placeholder=" ...")
        raise ValueError(f"{data}: TFDS cannot provide it: {cause or repr(error)}") from error


def _versions(data: str | os.PathLike) -> list[Path]:
    folders = [Path(data), *sorted(Path(data).glob("*.*.*"))]
    return [each for each in folders if all(os.path.isfile(each / name) for name in _TFDS_FILES)]


def _version(data: str) -> Path:
    version, *others = _versions(data)
    if others:
        raise ValueError(
            f"{data}: expected the folder of one version, found {version.name}, "
            f"{', '.join(other.name for other in others)} in it"
        )
    return version


def _call_tfds(data: str, function: str, argument: str | Path):
    """Calls a function of TFDS with a name or a folder."""
    import tensorflow_datasets

    with _tfds_errors(data):
        return getattr(tensorflow_datasets, function)(argument)


def _image_and_label(data: str, available) -> tuple[str, str]:
    """Finds the keys of the images and of their classes among the features of a data set."""
    from tensorflow_datasets import features

    keys = []
    for key, kind in (("image", features.Image), ("label", features.ClassLabel)):
        candidates = [name for name in available if isinstance(available[name], kind)]
        keys += [key] if key in available else candidates if len(candidates) == 1 else []
    if len(keys) < 2 or not hasattr(available[keys[1]], "names"):
        raise ValueError(f"{data}: expected the features image and label, found {list(available)}")
    return tuple(keys)


def _spool_digits(seed: int, scratch: Path) -> Splits:
    from sklearn.model_selection import train_test_split

    images, labels = digit_images()
    rows = [
        (f"{label}/{i:04d}.png", label, _png(image))
        for i, (image, label) in enumerate(zip(images, labels.tolist(), strict=True))
    ]
    examples = _spool(scratch / "digits", rows)
    parts = train_test_split(
        np.arange(len(rows)), test_size=DIGITS_FRACTION, stratify=labels, random_state=seed
    )
    return {
        split: [examples[i] for i in sorted(part)]
        for split, part in zip(("train", "validation"), parts, strict=True)
    }


def _spool_tfds(
    data: str, builder, keys: tuple[str, str], validation_fraction: float, seed: int, scratch: Path
) -> Splits:
    from tensorflow_datasets import decode, features

    image, label = keys
    encoded = isinstance(builder.info.features[image], features.Image)
    options = {"decoders": {image: decode.SkipDecoding()}} if encoded else {}
    to_bytes = bytes if encoded else _png
    splits = {}
    for name, split in SPLITS.items():
        if name in builder.info.splits:
            rows = _rows(data, builder, split=name, **options)
            images = (
                (f"{name}/{i:08d}", int(row[label]), to_bytes(row[image]))
                for i, row in enumerate(rows)
            )
            splits[split] = _spool(scratch / split, images)
    if "validation" not in splits:
        splits |= hold_out(splits["train"], validation_fraction, seed)
    return splits


def _rows(data: str, builder, **options) -> Iterator[dict]:
    with _tfds_errors(data):
        yield from builder.as_dataset(**options).as_numpy_iterator()


def _spool(path: Path, rows: Iterable[tuple[str, int, bytes]]) -> list[Example]:
    """Appends images (name, label, bytes) to one file."""
    examples, offset = [], 0
    with open(path, "wb") as file:
        for name, label, data in rows:
            file.write(data)
            examples.append(Example(name, label, str(path), offset, len(data)))
            offset += len(data)
    return examples


def _png(image: np.ndarray) -> bytes:
    """Encodes uint8 [H, W], [H, W, 1] or [H, W, 3] RGB."""
    colour = image.ndim == 3 and image.shape[2] == 3
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if colour else image
    return cv2.imencode(".png", bgr)[1].tobytes()
