"""Opens the images that `--data` names, of any kind: `open_source(data)`."""

import functools
import os
from dataclasses import replace

from data.images.examples import UNLABELLED, Example, Source, Upload
from data.images.reading import PassedOver
from data.sources import archives, tree
from data.sources.folders import image_folder
from data.sources.imagenet import ilsvrc2012, images_in_archive, is_ilsvrc2012, readable_names
from data.sources.packaged import digits, is_tfds_folder, tfds

__all__ = [
    "KINDS",
    "UNLABELLED",
    "Example",
    "Source",
    "Upload",
    "is_path",
    "open_images",
    "open_source",
]

KINDS = (  # (recognises, opens); the first that recognises the data opens it
    (lambda data: data == "digits", digits),
    (lambda data: data.startswith("tfds:"), tfds),
    (is_tfds_folder, tfds),
    (is_ilsvrc2012, ilsvrc2012),
    (os.path.isdir, image_folder),
    (archives.is_archive, image_folder),
)


def is_path(data: str | os.PathLike) -> bool:
    """Whether `data` is a path, neither built in nor of TFDS."""
    return not os.fspath(data).startswith("tfds:") and data != "digits"


def open_source(
    data: str | os.PathLike,
    *,
    val_data: str | os.PathLike | None = None,
    validation_fraction: float = 0.1,
    seed: int = 0,
    lenient: bool = False,
) -> Source:
    """Recognises the kind of `data` and lists its images.

    Args:
        data: `digits`, `tfds:NAME`, a folder or an archive of one: class folders, `train`, `val`
            and `test` folders of them, a folder of ILSVRC2012 as folders or archives, or one that
            TFDS has prepared.
        val_data: A separate folder of class folders for validation.
        validation_fraction: Part of train, 0 <= fraction < 1, to hold out if there is no
            validation split; 0 for no validation.
        seed: Seed of the held-out images and of the stored order.
        lenient: Whether to accept faulty data, which will only be examined, see `image_folder`.

    Returns:
        The source. Classes that are all WordNet ids of ILSVRC2012 have readable names.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there are no images or only one class, or the layout is not supported.
    """
    data = os.fspath(data)
    if not 0 <= validation_fraction < 1:
        raise ValueError(f"expected validation_fraction in [0, 1), received {validation_fraction}")
    if seed < 0:
        raise ValueError(f"expected seed of at least 0, received {seed}")
    for recognises, open_kind in KINDS:
        if recognises(data):
            if lenient and open_kind is image_folder:
                open_kind = functools.partial(image_folder, lenient=True)
            source = open_kind(
                data, val_data=val_data, validation_fraction=validation_fraction, seed=seed
            )
            break
    else:
        exists = os.path.exists(data)
        raise (ValueError if exists else FileNotFoundError)(
            f"{data}: {'a file' if exists else 'no such folder'}; expected digits, tfds:NAME, a "
            f"folder of images or an archive ({', '.join(archives.SUFFIXES)})"
        )
    if len(source.class_names) < 2 and not lenient:
        raise ValueError(
            f"{data}: found {len(source.class_names)} class ({', '.join(source.class_names)}), "
            "expected a folder for each of two or more classes; passed over: "
            f"{', '.join(source.passed_over.parts()) or 'nothing'}"
        )
    return replace(source, class_names=readable_names(source.class_names))


def open_images(
    location: str | os.PathLike, passed_over: PassedOver | None = None
) -> list[Example]:
    """Lists images to classify: of a folder, of a .tar file, or a single file of any name.

    In a folder, and below it, images are recognised by their extension; hidden files are ignored.

    Args:
        location: The file or folder.
        passed_over: List to add unused files and folders to.

    Returns:
        Unlabelled examples; the name of a file is its path.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        PermissionError: If a folder cannot be opened.
        ValueError: If a .tar file is damaged.
    """
    if os.path.isdir(location):
        folder = tree.scan(location)
        tree.pass_over_below(folder, passed_over or PassedOver())
        paths = [member.path for member in folder.members()]
    elif not os.path.exists(location):
        raise FileNotFoundError(f"no image or folder {location}")
    elif os.fspath(location).endswith(".tar"):
        return images_in_archive(location)
    else:
        paths = [os.fspath(location)]
    return [Example(path, UNLABELLED, path) for path in paths]
