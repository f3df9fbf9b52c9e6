"""Images in class folders: `root/{train,val,test}/CLASS/**` or flat `root/CLASS/**`."""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from data.images.examples import Listing, Source, hold_out, labelled
from data.images.names import composed, natural_order, readable
from data.images.reading import PassedOver
from data.sources import archives, identity, layout, tree
from data.sources.tree import Folder

_KIND = "folder"  # in fingerprints
_LONGEST_NAME = 200  # bytes; file systems take 255, and more is added to the name


def image_folder(
    data: str,
    *,
    val_data: str | None,
    validation_fraction: float,
    seed: int,
    lenient: bool = False,
) -> Source:
    """Opens a folder of images, or an archive of one.

    Classes are the folders of the train split (of `data` itself in the flat layout) that hold an
    image, in natural order; deeper folders belong to their class. Images are files with one of
    `tree.EXTENSIONS`, in any case; their format is decided by their content.

    Args:
        data: The folder, or an archive.
        val_data: A separate folder of class folders for validation.
        validation_fraction: Part of train to hold out if there is no validation split.
        seed: Seed of the held-out images.
        lenient: Whether to accept data that is to be examined only: classes without images or not
            in train, and no validation split if nothing can be held out.

    Returns:
        The source; class names are the names of the folders.

    Raises:
        ValueError: If there are no images, a class cannot be read or has none, a class is not in
            train, a split would be empty, or the folders are not classes.
    """
    root, passed_over = _open(data), PassedOver()
    folders = layout.split_folders(root, data, passed_over)
    origins = dict.fromkeys(folders, (data, root))
    if val_data is not None:
        folders["validation"] = _open(val_data)
        origins["validation"] = val_data, folders["validation"]
    listings = _listings(folders, origins, passed_over, lenient)
    with_classes = listings.values() if lenient else [listings["train"]]
    class_names = sorted({name for each in with_classes for name in each}, key=natural_order)
    splits = {}
    for split, listing in listings.items():
        with _prefix_errors(origins[split][0]):
            splits[split] = labelled(listing, class_names, split)
    if "validation" not in splits:
        with contextlib.suppress(*[ValueError] * lenient):
            splits |= hold_out(splits["train"], validation_fraction, seed)
    return Source(
        name=name_of(data),
        class_names=tuple(class_names),
        fingerprint=identity.fingerprint(_KIND, class_names, splits),
        earlier_fingerprint=lambda: identity.earlier_fingerprint(
            _KIND, _on_disk(class_names, listings), splits
        ),
        listed=splits,
        list_splits=lambda scratch: archives.unpacked(splits, scratch),
        seed=seed,
        validation_fraction=validation_fraction,
        passed_over=passed_over,
        joined=layout.joined(folders["train"]),
        train_images=len(splits["train"]),
    )


def _listings(
    folders: dict[str, Folder],
    origins: dict[str, tuple[str, Folder]],
    passed_over: PassedOver,
    lenient: bool,
) -> dict[str, Listing]:
    """Lists the images of each split by class; a test split without classes is passed over.

    Args:
        folders: Folder of each split.
        origins: For messages: the path that each split was found in, and its tree.
        passed_over: List to add unused files and folders to.
        lenient: Whether to accept classes without images.
    """
    listings = {}
    for split, folder in folders.items():
        if split == "test" and layout.is_unlabelled(folder, folders["train"]):
            images = f" ({layout.count(folder):,} images of no class of train)"
            passed_over.add_folders([folder.name + images * folder.has_images()])
            continue
        path, root = origins[split]
        listings[split] = layout.annotated(folder, passed_over) or layout.class_folders(
            folder, path, passed_over, lenient=lenient
        )
        if not any(listings[split].values()):
            raise ValueError(
                f"{path}: no images in class folders for the {split} split; "
                f"{layout.inventory(root)}"
            )
    return listings


def list_class_folders(root: str | Path, passed_over: PassedOver | None = None) -> Listing:
    """Lists the images of every class folder, named relative to `root`.

    Args:
        root: Folder of the class folders.
        passed_over: List to add unused files and folders to.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a class folder cannot be read, or holds files of which none is an image.
    """
    return layout.class_folders(_scan(root), os.fspath(root), passed_over or PassedOver())


def name_of(data: str) -> str:
    """Returns the last component of a path, made safe as part of a file name."""
    name = archives.without_suffix(Path(data).resolve().name)
    return cut(re.sub(r"[^\w.-]+", "_", readable(name)) or "images")


def cut(name: str) -> str:
    """Shortens a name that is too long for a file system."""
    return name.encode()[:_LONGEST_NAME].decode(errors="ignore")


def _open(data: str | Path) -> Folder:
    is_archive = archives.is_archive(os.fspath(data))
    return archives.scan(os.fspath(data)) if is_archive else _scan(data)


def _scan(data: str | Path) -> Folder:
    if not os.path.isdir(data):
        problem = "a file" if os.path.exists(data) else "no such folder"
        raise FileNotFoundError(f"{data}: {problem}; expected a folder that holds CLASS/*.jpg")
    return tree.scan(data)


@contextlib.contextmanager
def _prefix_errors(path: str) -> Iterator[None]:
    """Puts a path before the text of an error."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _on_disk(class_names: Sequence[str], listings: dict[str, Listing]) -> list[str]:
    """Returns the names of the class folders, in order, as they are written on the disk.

    Earlier fingerprints contain these, not their normal form.
    """
    folders = {}
    for listing in reversed(listings.values()):  # the name in train is used
        for name, members in listing.items():
            written = members[0].name.split("/")[0] if members else name
            folders[name] = written if composed(written) == name else name
    return sorted(map(folders.__getitem__, class_names), key=natural_order)
