"""ILSVRC2012 as it is distributed: folders, or the original archives, read without extracting.

An archive's headers are read once; its images are byte ranges of it. No file is created from a name
in an archive. Source: O. Russakovsky et al., "ImageNet Large Scale Visual
Recognition Challenge", IJCV 2015, arXiv:1409.0575, and its development kit.
"""

import csv
import functools
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from data.images.examples import UNLABELLED, Example, Listing, Member, Source, hold_out, labelled
from data.sources import archives, identity, tree
from data.sources.folders import list_class_folders, name_of

TRAIN, VALIDATION, TEST = (f"ILSVRC2012_img_{split}" for split in ("train", "val", "test"))
DEVKIT = "ILSVRC2012_devkit_t12"
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"

_WNID = re.compile(r"n\d{8}")
_LABELS = Path(__file__).parent.parent / "labels" / "imagenet.csv"


def readable_names(names: Sequence[str]) -> tuple[str, ...]:
    """Replaces WordNet ids by words, "n01440764" by "tench"; other class names stay."""
    rows = _rows()
    if all(name in rows for name in names):
        return tuple(rows[name]["name"] for name in names)
    return tuple(names)


def class_names() -> tuple[str, ...]:
    """Returns the readable names of the 1,000 classes, in the order of their WordNet ids."""
    return readable_names(sorted(_rows()))


def is_ilsvrc2012(data: str) -> bool:
    """Whether a folder holds the training images under their original name."""
    train = os.path.join(data, TRAIN)
    return os.path.isdir(train) or os.path.isfile(f"{train}.tar")


def ilsvrc2012(data: str, *, val_data: str | None, validation_fraction: float, seed: int) -> Source:
    """Opens ILSVRC2012: `ILSVRC2012_img_{train,val,test}`, each as a folder or as a .tar file.

    The train folder holds a folder or a .tar file per class; if both exist, the .tar file is used.
    The validation images are flat; line i of the development kit's ground truth (folder or .tar.gz)
    is the ILSVRC2012_ID of image i in the order of names. Without validation images a part of train
    is held out. Folders and archives give the same examples in the same order.

    Args:
        data: Folder of all these.
        val_data: A separate folder of WordNet id folders for validation.
        validation_fraction: Part of train to hold out if there are no validation images.
        seed: Seed of the held-out images.

    Returns:
        The source; its classes are the WordNet ids of train, in order.

    Raises:
        ValueError: If an archive is damaged, a name is not a WordNet id, a folder or archive has no
            images, the ground truth is missing or does not fit, or a class is not in train.
    """
    root = Path(data)
    train = _train_listing(root)
    class_names = sorted(train)
    splits = {"train": labelled(train, class_names, "train")}
    if val_data is not None:
        splits["validation"] = labelled(list_class_folders(val_data), class_names, "validation")
    elif validation := _validation_listing(root):
        splits["validation"] = labelled(validation, class_names, "validation")
        splits["validation"].sort(key=lambda example: example.name)
    else:
        splits |= hold_out(splits["train"], validation_fraction, seed)
    if test := _flat_images(root / TEST):
        splits["test"] = test
    known = "ILSVRC2012", class_names, splits
    return Source(
        name=name_of(data),
        class_names=tuple(class_names),
        fingerprint=identity.fingerprint(*known),
        earlier_fingerprint=lambda: identity.earlier_fingerprint(*known),
        listed=splits,
        list_splits=lambda scratch: splits,
        seed=seed,
        validation_fraction=validation_fraction,
        eight_bit=True,
        train_images=len(splits["train"]),
    )


def flat_validation(path: str) -> Listing:
    """Lists flat validation images by WordNet id, as `ilsvrc2012` labels them.

    Args:
        path: `ILSVRC2012_img_val`, or the .tar file of that name, with the development kit beside
            it.

    Returns:
        The images by class; empty if the path has another name, or holds class folders.

    Raises:
        ValueError: If there are no images, an archive is damaged, or the ground truth is missing or
            does not fit.
    """
    root, name = os.path.split(os.path.abspath(path))
    is_theirs = name in (VALIDATION, f"{VALIDATION}.tar") and os.path.exists(path)
    if not is_theirs or _has_class_folders(Path(root)):
        return {}
    return _validation_listing(Path(root))


def images_in_archive(path: str | Path) -> list[Example]:
    """Lists the images of an uncompressed tar file, such as ILSVRC2012_img_test.tar.

    Returns:
        Unlabelled examples, sorted by their names without folders.

    Raises:
        ValueError: If it is not a whole uncompressed tar file.
    """
    with open(path, "rb") as file:
        images = [
            Example(name, UNLABELLED, str(path), offset, size)
            for name, offset, size in _members(file, path)
            if name.lower().endswith(tree.EXTENSIONS)
        ]
    return sorted(images, key=lambda image: image.name)


@functools.cache
def _rows() -> dict[str, dict[str, str]]:
    """Reads the table of classes, by WordNet id."""
    with open(_LABELS, encoding="utf-8", newline="") as file:
        return {row["wnid"]: row for row in csv.DictReader(file)}


def _members(
    file: BinaryIO, path: str | Path, offset: int = 0, size: int | None = None
) -> Iterator[tuple[str, int, int]]:
    """Yields name without folders, offset and size of every plain file of an archive.

    Skips links, devices, folders, hidden and sparse files.
    """
    stream = file if size is None else _Part(file, offset, size)
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archives.members_of(archive):
                name = member.name.rsplit("/", 1)[-1]
                if not name.startswith("."):
                    yield name, offset + member.offset_data, member.size
    except tarfile.TarError as error:
        raise ValueError(f"{path}: not a whole uncompressed tar archive: {error}") from None


class _Part:
    """A part of a file as a readable file."""

    def __init__(self, file: BinaryIO, start: int, size: int):
        self._file, self._start, self._size, self._position = file, start, size, 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int):
        self._position = position

    def read(self, size: int) -> bytes:
        self._file.seek(self._start + self._position)
        data = self._file.read(max(0, min(size, self._size - self._position)))
        self._position += len(data)
        return data


def _train_listing(root: Path) -> Listing:
    if (root / TRAIN).is_dir():
        listing = list_class_folders(root / TRAIN) | _class_archives(root / TRAIN)
    else:
        listing = _classes_in_archive(root / f"{TRAIN}.tar")
    for wnid, members in listing.items():
        if not _WNID.fullmatch(wnid):
            raise ValueError(
                f"{root / TRAIN}: expected classes named like n01440764, found {wnid!r} with "
                f"{members[0].name}"
            )
    if not listing:
        raise ValueError(f"{root / TRAIN}: no images found; expected a folder or .tar per class")
    return listing


def _class_archives(folder: Path) -> Listing:
    """Lists a folder of one archive per class, as in the unpacked archive of train."""
    listing = {}
    for path in sorted(folder.glob("[!.]*.tar")):
        with open(path, "rb") as file:
            if images := _images_of_class(path.stem, file, path, path):
                listing[path.stem] = images
    return listing


def _classes_in_archive(path: Path) -> Listing:
    """Lists an archive of one archive per class."""
    listing = {}
    with open(path, "rb") as file:
        for archive, start, length in list(_members(file, path)):
            wnid, suffix = archive[:-4], archive[-4:]
            if suffix != ".tar":
                raise ValueError(f"{path}: expected one .tar per class in it, found {archive!r}")
            where = f"{path}: {archive}"
            if images := _images_of_class(wnid, file, path, where, start, length):
                listing[wnid] = images
    return listing


def _images_of_class(
    wnid: str, file: BinaryIO, path: Path, where: str | Path, *part: int
) -> list[Member]:
    """Lists the archive of one class: the whole file, or `part`, its offset and size."""
    return sorted(
        Member(f"{wnid}/{name}", str(path), offset, size)
        for name, offset, size in _members(file, where, *part)
        if name.lower().endswith(tree.EXTENSIONS)
    )


def _flat_images(path: Path) -> list[Example]:
    """Lists a folder, or the .tar file of its name; empty if there is neither."""
    archive = path.with_name(f"{path.name}.tar")
    if not path.is_dir():
        return images_in_archive(archive) if archive.is_file() else []
    images = [
        Example(member.name.rsplit("/", 1)[-1], UNLABELLED, *member[1:])
        for member in tree.scan(path).members()
    ]
    return sorted(images, key=lambda image: image.name)


def _validation_listing(root: Path) -> Listing:
    """Lists the validation images by class; empty if there is no folder or archive of them."""
    if _has_class_folders(root):
        if listing := list_class_folders(root / VALIDATION):
            return listing
    images = _flat_images(root / VALIDATION)
    if not images:
        for path in (root / VALIDATION, root / f"{VALIDATION}.tar"):
            if path.exists():
                raise ValueError(f"{path}: no images found; expected the validation images")
        return {}
    wnids = _ground_truth(root)
    if len(wnids) != len(images):
        raise ValueError(
            f"{root}: the ground truth has {len(wnids)} lines, expected one for each of the "
            f"{len(images)} images of {VALIDATION}"
        )
    listing: Listing = {}
    for wnid, image in zip(wnids, images, strict=True):
        member = Member(image.name, image.path, image.offset, image.size)
        listing.setdefault(wnid, []).append(member)
    return listing


def _has_class_folders(root: Path) -> bool:
    return any(_WNID.fullmatch(path.name) for path in root.glob(f"{VALIDATION}/*/"))


def _ground_truth(root: Path) -> list[str]:
    """Reads the WordNet id of every validation image, in the order of their names."""
    wnids = {row["ilsvrc2012_id"]: wnid for wnid, row in _rows().items()}
    ids = _ground_truth_text(root).split()
    if unknown := [line for line in ids if line not in wnids]:
        raise ValueError(
            f"{root}: {GROUND_TRUTH} must hold ILSVRC2012_IDs from 1 to 1000: {unknown[0]!r}"
        )
    return [wnids[line] for line in ids]


def _ground_truth_text(root: Path) -> str:
    for path in sorted((root / DEVKIT).rglob(GROUND_TRUTH)):
        return path.read_text(encoding="utf-8-sig")
    archive = root / f"{DEVKIT}.tar.gz"
    if archive.is_file():
        try:
            with tarfile.open(archive, "r:gz") as kit:
                for member in kit:
                    if member.isreg() and member.name.rsplit("/", 1)[-1] == GROUND_TRUTH:
                        return kit.extractfile(member).read().decode("utf-8-sig")
        except (tarfile.TarError, OSError, EOFError, UnicodeDecodeError) as error:
            raise ValueError(f"{archive}: cannot be read: {error}") from None
    raise ValueError(
        f"{root}: {VALIDATION} has no labels; expected {GROUND_TRUTH} in {DEVKIT} or "
        f"{DEVKIT}.tar.gz beside it"
    )
