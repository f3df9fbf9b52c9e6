"""Recognises splits and classes in a tree of folders.

Other folders are passed over, and named, or refused if they would be trained on by mistake: a class
that cannot be read, splits and masks that look like classes.
"""

import dataclasses
import os
import re

from data.images.examples import Listing
from data.images.names import SPLIT_NAMES, composed, split_of
from data.images.reading import PassedOver, shortened
from data.sources import archives, tree
from data.sources.tree import Folder

# Names of folders that tell the kind of the files, or the split, but not what images show.
_IMAGES = r"(jpeg|png)?images?|imgs?"
_MASKS = (
    r"masks?|labels?|annotations?|segmentations?(class|object)?|ground[-_\s]?truths?|gt|edges|depth"
)
_KINDS_OF_FILES = re.compile(
    rf"(({_IMAGES}|{_MASKS}|sets?|data|split|{'|'.join(SPLIT_NAMES)})[-_\s\d]*)+[a-z]?",
    re.IGNORECASE,
)
_TABLES = (".csv", ".tsv", ".json", ".parquet", ".xlsx")
_ANNOTATIONS, _ANNOTATED = "val_annotations.txt", "images"  # of Tiny ImageNet's validation split
_MAX_FOLDERS, _MAX_TABLES = 6, 3  # in a message
_EXPECTED = "expected CLASS/*.jpg, or CLASS/*.jpg below train, validation and test"


def split_folders(root: Folder, data: str, passed_over: PassedOver) -> dict[str, Folder]:
    """Finds the folder of every split.

    A folder with the name of a split is one if it holds class folders, or if another folder has the
    name of a split too; else it is a class. Without a train folder, all other folders are classes
    of train; with one, they are passed over.

    Args:
        root: Tree of `data`.
        data: Path, for messages.
        passed_over: List to add unused files and folders to.

    Returns:
        The folders whose folders are classes, "train" among them.

    Raises:
        ValueError: If a split exists twice or cannot be read, or folders are not classes.
    """
    candidates = [folder for folder in root.folders if split_of(folder.name)]
    splits: dict[str, Folder] = {}
    for folder in candidates:
        if folder.problem:
            raise ValueError(f"{data}: the folder {folder.name} {folder.problem}")
        if len(candidates) == 1 and not _inner(folder):
            break
        if (split := split_of(folder.name)) in splits:
            both = f"{splits[split].name} and {folder.name}"
            raise ValueError(f"{data}: expected one {split} folder, found {both}")
        splits[split] = folder
    names = {folder.name for folder in splits.values()}
    if "train" in splits:
        _check_kinds(splits["train"], data, root)
        tree.pass_over_level(root, passed_over, images=True)
        passed_over.add_folders([each.name for each in root.folders if each.name not in names])
    else:
        rest = [entry for entry in root.entries if entry.name not in names]
        splits["train"] = dataclasses.replace(root, entries=rest)
        _check_classes(splits["train"], data, root)
    return splits


def class_folders(
    folder: Folder, data: str, passed_over: PassedOver, *, lenient: bool = False
) -> Listing:
    """Lists the images of every class, named relative to `folder`.

    Folders without images that hold only texts and tables, or nothing, are no classes.

    Args:
        folder: Folder of the class folders.
        data: Path, for messages.
        passed_over: List to add unused files and folders to.
        lenient: Whether to list folders without images, but with other files, as empty classes.

    Raises:
        ValueError: If a class folder cannot be read, or holds files of which none is an image.
    """
    listing: Listing = {}
    for inner in folder.folders:
        if inner.problem:
            raise ValueError(f"{data}: the class folder {inner.name} {inner.problem}")
        members = list(inner.members(f"{inner.name}/"))
        strange = [name for name in inner.other_files() if not name.lower().endswith(tree.TEXTS)]
        if not members and not strange:
            passed_over.add_folders([inner.name])
            continue
        if not members and not lenient:
            raise ValueError(
                f"{data}: expected images in the class folder {inner.name}, found only other "
                f"files, as {strange[0]}"
            )
        listing.setdefault(composed(inner.name), []).extend(members)
        tree.pass_over_below(inner, passed_over)
    tree.pass_over_level(folder, passed_over, images=True)
    return listing


def annotated(folder: Folder, passed_over: PassedOver) -> Listing | None:
    """Lists a split as Tiny ImageNet has it: images in one folder, their classes in a table.

    Args:
        folder: Folder of the split.
        passed_over: List to add unused files and folders to.

    Returns:
        The images by class; None if the split has another layout.

    Raises:
        ValueError: If an image is not in the table.
    """
    table = folder.others.get(_ANNOTATIONS)
    (images,) = [each for each in folder.folders if each.name == _ANNOTATED] or [None]
    if not table or not images:
        return None
    lines = archives.read(table).decode("utf-8-sig", "replace").splitlines()
    classes = dict(line.split("\t")[:2] for line in lines if "\t" in line)
    listing: Listing = {}
    for member in images.images:
        if member.name not in classes:
            raise ValueError(f"{_ANNOTATIONS}: expected a line for {member.name}, found none")
        renamed = member._replace(name=f"{_ANNOTATED}/{member.name}")
        listing.setdefault(composed(classes[member.name]), []).append(renamed)
    rest = {name: file for name, file in folder.others.items() if name != _ANNOTATIONS}
    tree.pass_over_level(dataclasses.replace(folder, others=rest), passed_over, images=True)
    passed_over.add_folders([each.name for each in folder.folders if each is not images])
    return listing


def is_unlabelled(test: Folder, train: Folder) -> bool:
    """Whether no folder of a test split is a class of train: its images have no labels."""
    classes = {composed(inner.name) for inner in _inner(train)}
    return not classes & {composed(inner.name) for inner in _inner(test)}


def joined(train: Folder) -> str:
    """Lists the classes made of several folders, with these folders; empty if there are none."""
    inner = {folder.name: [each.name for each in _inner(folder)] for folder in _inner(train)}
    (first, *others) = {tuple(names) for names in inner.values()}
    if not others and len(first) == 1:
        return f"CLASS/{first[0]}"
    return shortened([f"{name} ({shortened(names)})" for name, names in inner.items() if names])


def inventory(root: Folder) -> str:
    """Describes the expected layout, and the images and other files that were found."""
    parts = [f"{len(root.images):,} images beside the folders"] if root.images else []
    parts += [f"{count(folder):,} images in {folder.name}" for folder in _inner(root)]
    if len(parts) > _MAX_FOLDERS:
        parts[_MAX_FOLDERS:] = [f"{len(parts) - _MAX_FOLDERS:,} more folders of images"]
    names = [name for folder in (root, *root.folders) for name in folder.others]
    tables = [name for name in names if name.lower().endswith(_TABLES)][:_MAX_TABLES]
    others = PassedOver()
    others.add_files(names)
    others.add_folders(root.excluded)
    return f"{_EXPECTED}; found {', '.join(parts + tables or others.parts() or ['nothing'])}"


def count(folder: Folder) -> int:
    """Counts the images in a folder and below it."""
    return sum(1 for _ in folder.members())


def _check_classes(train: Folder, data: str, root: Folder) -> None:
    """Refuses top-level folders that are not classes."""
    classes = _inner(train)
    if len(classes) == 1 and _inner(classes[0]):
        path = os.path.join(data, classes[0].name)
        raise ValueError(f"{data}: {inventory(root)} only; are the classes in {path}?")
    _check_kinds(train, data, root)
    names = [[inner.name for inner in _inner(folder)] for folder in classes]
    splits = [sorted(filter(split_of, each)) for each in names]
    kinds = [set(map(split_of, each)) for each in splits]
    if any(len(each) > 1 for each in kinds) or all(splits) and len(set().union(*kinds)) > 1:
        below = max(splits, key=len)
        raise ValueError(
            f"{data}: found {' and '.join(below)} below the classes, as in "
            f"{classes[splits.index(below)].name}; expected the classes below them"
        )
    sets = [set(map(composed, each)) for each in names]
    common = sorted(set.intersection(*sets)) if len(classes) > 1 else []
    if len(common) > 1:
        raise ValueError(
            f"{data}: {shortened([folder.name for folder in classes])} all hold the folders "
            f"{shortened(common)}, so they look like splits of unknown names; {_EXPECTED}, or "
            "two of them as --data and --val_data"
        )


def _check_kinds(train: Folder, data: str, root: Folder) -> None:
    """Refuses classes whose names tell the kind of the files, such as images and masks."""
    names = [folder.name for folder in _inner(train)]
    are_all = bool(names) and all(map(_KINDS_OF_FILES.fullmatch, names))
    both = all(
        any(re.fullmatch(f"({kind})s?", name, re.IGNORECASE) for name in names)
        for kind in ("images|imgs|jpegimages", "masks|annotations|segmentations|groundtruths")
    )
    if are_all or both:
        raise ValueError(f"{data}: {inventory(root)}; {shortened(names)} are not class names")


def _inner(folder: Folder) -> list[Folder]:
    """Returns the folders in a folder that hold images."""
    return [inner for inner in folder.folders if inner.has_images()]
