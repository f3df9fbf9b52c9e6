"""Images in class folders: `root/{train,val,test}/CLASS/**` or flat `root/CLASS/**`."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from data.examples import (
    SPLIT_ORDER,
    Listing,
    Member,
    Source,
    fingerprint_of_files,
    hold_out,
    labelled,
    natural_order,
)

EXTENSIONS = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".avif")
# What folders of splits, and the splits of TFDS, are called.
SPLITS = {name: name for name in SPLIT_ORDER} | {"val": "validation", "valid": "validation"}


def image_folder(
    data: str,
    *,
    val_data: str | None,
    validation_fraction: float,
    seed: int,
    lenient: bool = False,
) -> Source:
    """Opens a folder of images.

    Classes are the folders of the train split (of `data` itself in the flat layout) that hold an
    image, in natural order; deeper folders belong to their class. Beside other classes, a "train"
    that holds images and no folders is a class. Files count by their extension
    (`EXTENSIONS`, any case); what they are is found out by their content. Other files and hidden
    ones are ignored.

    Args:
        data: The folder.
        val_data: A separate folder of class folders for validation.
        validation_fraction: Held out of train where there is no validation.
        seed: Decides which.
        lenient: Whether to accept, to examine them, classes without images or not in train, and
            where nothing can be held out no validation.

    Returns:
        The source; class names are the names of the folders.

    Raises:
        ValueError: If there are no images, a class is not in train, or a split would be empty.
    """
    folders = _split_folders(data)
    listings = {split: list_class_folders(path) for split, path in folders.items()}
    if not listings["train"]:
        raise ValueError(
            f"{data}: no images found; expected CLASS/*.jpg, {{train,val,test}}/CLASS/*.jpg or "
            f"ILSVRC2012_img_train and ILSVRC2012_img_val in it"
        )
    if val_data is not None:
        folders["validation"] = Path(val_data)
        listings["validation"] = list_class_folders(val_data)
    classes = listings["train"]
    if lenient:
        classes = {name for folder in folders.values() for name in _class_folders(folder)}
    class_names = sorted(classes, key=natural_order)
    splits = {split: labelled(listing, class_names, split) for split, listing in listings.items()}
    for split, examples in splits.items():
        if not examples:
            raise ValueError(f"{val_data or data}: the {split} split has no CLASS/*.jpg images")
    if "validation" not in splits:
        with contextlib.suppress(*[ValueError] * lenient):
            splits |= hold_out(splits["train"], validation_fraction, seed)
    return Source(
        name=name_of(data),
        class_names=tuple(class_names),
        fingerprint=fingerprint_of_files("folder", class_names, splits),
        list_splits=lambda scratch: splits,
        seed=seed,
        validation_fraction=validation_fraction,
    )


def list_class_folders(root: str | Path) -> Listing:
    """Lists the images of every class folder, named relative to the parent of the classes.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; expected one that holds CLASS/*.jpg")
    listing = {name: list_images(root / name, name) for name in _class_folders(root)}
    return {name: members for name, members in listing.items() if members}


def _class_folders(root: Path) -> list[str]:
    folders = sorted(name for name in os.listdir(root) if (root / name).is_dir())
    return [name for name in folders if name[0] != "."]


def list_images(folder: str | Path, name: str = "") -> list[Member]:
    """Lists the images in a folder and below it, sorted, each named below `name`."""
    return list(_walk(str(folder), name and f"{name}/", set()))


def name_of(data: str) -> str:
    """Returns the last component of a path, safe as part of a file name."""
    return re.sub(r"[^\w.-]+", "_", Path(data).resolve().name) or "images"


def _split_folders(data: str) -> dict[str, Path]:
    """Returns the folder of every split, or `data` as train where it has no train folder."""
    found = {}
    for path in sorted(Path(data).iterdir()):
        split = SPLITS.get(path.name.lower())
        if split and path.is_dir():
            if split in found:
                both = f"{found[split].name} and {path.name}"
                raise ValueError(f"{data}: expected one {split} folder, found {both}")
            found[split] = path
    if "train" not in found or _is_class(found["train"]):
        return {"train": Path(data)}
    return found


def _is_class(train: Path) -> bool:
    """Whether a folder called train is a class of the flat layout."""
    entries = [entry for entry in train.iterdir() if entry.name[0] != "."]
    if any(entry.is_dir() for entry in entries):
        return False
    others = [path for path in train.parent.iterdir() if path.is_dir() and path.name[0] != "."]
    others = [path for path in others if path.name.lower() not in SPLITS]
    return _holds_images(train) and any(map(_holds_images, others))


def _holds_images(folder: Path) -> bool:
    return any(True for _ in _walk(str(folder), "", set()))


def _walk(folder: str, prefix: str, seen: set[tuple[int, int]]) -> Iterator[Member]:
    """Yields images in order; enters every folder once, so that links in a circle end."""
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        path, is_image = Path(entry.path), entry.name.lower().endswith(EXTENSIONS)
        if path.is_dir():
            yield from _walk(entry.path, f"{prefix}{entry.name}/", seen)
        elif is_image and path.is_file():
            yield Member(prefix + entry.name, entry.path, 0, entry.stat().st_size)
        elif is_image and path.is_symlink() and not path.exists():  # it will be rejected
            yield Member(prefix + entry.name, entry.path, 0, 0)
