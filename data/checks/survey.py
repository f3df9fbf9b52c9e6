"""Compares the images of a data set with one another: copies, classes, splits."""

from collections.abc import Iterator, Sequence

import numpy as np

from data.checks import duplicates
from data.checks.checkup import Checkup, Unsound
from data.checks.findings import Finding, Place, Split
from data.images.examples import UNLABELLED

FEW_IMAGES = 10  # images of a class in train
IMBALANCE = 10  # ratio of the largest to the smallest class of train
SERIES = 30  # near images in a group that is more than copies of one image


class Survey:
    """Collects the findings of single images, about 1 kB each, then compares the images."""

    def __init__(
        self,
        class_names: Sequence[str],
        splits: Sequence[str],
        places: Sequence[Place],
        labels: Sequence[int],
        *,
        folders: bool,
    ):
        """Starts a survey.

        Args:
            class_names: Names of the classes, by label.
            splits: All splits, "train" first.
            places: Place of each image.
            labels: Label of each image, or `UNLABELLED`.
            folders: Whether classes are folders; else a class may be meant to have no images.
        """
        self.class_names, self._folders = class_names, folders
        self.findings: list[Finding] = []
        self._splits, self._places, self._labels = splits, places, labels
        self._digests: list[bytes | None] = []
        self._comparable: list[int] = []
        self._hashes = np.zeros(len(places), np.uint64)
        self._thumbnails = np.zeros([len(places), *duplicates.THUMBNAIL], np.uint8)

    def add(self, result: Checkup | Unsound):
        """Adds the result for the next image."""
        position = len(self._digests)
        place = self._places[position]
        if isinstance(result, Unsound):
            self.findings.append(Finding(result.kind, (place,), result.reason))
            self._digests.append(None)
            return
        self.findings += [Finding(kind, (place,), detail) for kind, detail in result.remarks]
        self._digests.append(result.digest)
        if result.hash is not None:
            self._comparable.append(position)
            self._hashes[position] = result.hash
            pixels = np.frombuffer(result.thumbnail, np.uint8)
            self._thumbnails[position] = pixels.reshape(duplicates.THUMBNAIL)

    @property
    def unreadable(self) -> int:
        """Number of images that could not be opened."""
        return sum(len(each.places) for each in self.findings if each.kind == "unreadable")

    def splits(self) -> dict[str, Split]:
        """Counts all images that have been added."""
        splits = {name: Split(0, 0, [0] * len(self.class_names)) for name in self._splits}
        for place, label, digest in zip(self._places, self._labels, self._digests, strict=True):
            split = splits[place.split]
            split.images += 1
            split.unusable += not digest
            if digest and label != UNLABELLED:
                split.classes[label] += 1
        return splits

    def copies(self) -> Iterator[Finding]:
        """Yields the findings about copies among all images that have been added."""
        exact = duplicates.same(self._digests)
        for group in exact:
            yield from self._judged(group, "contradiction", "leak", "duplicate")
        again = {position for group in exact for position in group[1:]}
        once = np.array([i for i in self._comparable if i not in again], np.int64)
        for group in duplicates.near(self._hashes[once], self._thumbnails[once]):
            kinds = ("near_contradiction", "near_leak", "near_duplicate")
            if len(group) > SERIES:
                kinds = ("series",) * 3
            yield from self._judged(once[group].tolist(), *kinds)

    def _judged(
        self, group: list[int], classes: str, splits: str, within: str
    ) -> Iterator[Finding]:
        """Yields the findings about a group of copies: in several classes, splits, or neither."""
        places = tuple(self._places[i] for i in group)
        labels = {self._labels[i] for i in group} - {UNLABELLED}
        kinds = [classes] * (len(labels) > 1)
        kinds += [splits] * (len({place.split for place in places}) > 1)
        names = ", ".join(sorted(self.class_names[label] for label in labels))
        for kind in dict.fromkeys(kinds or [within]):
            yield Finding(kind, places, f"classes {names}" if len(labels) > 1 else "")

    def classes(self) -> Iterator[Finding]:
        """Yields the findings about the classes of all images that have been added."""
        counts = {name: split.classes for name, split in self.splits().items()}
        train = counts.pop("train", [0] * len(self.class_names))
        if sum(map(bool, train)) < 2:
            yield Finding("too_few_classes", split="train")
        pairs = zip(self._places, self._labels, strict=True)
        labelled = {place.split for place, label in pairs if label != UNLABELLED}
        measured = {split: sizes for split, sizes in counts.items() if split in labelled}
        for label, name in enumerate(self.class_names):
            elsewhere = [split for split, sizes in measured.items() if sizes[label]]
            if not train[label]:
                empty = "empty_class" if self._folders else "unused_name"
                kind = "missing_in_train" if elsewhere else empty
                detail = f"only in {', '.join(elsewhere)}" if elsewhere else ""
                yield Finding(kind, class_name=name, detail=detail)
                continue
            if train[label] < FEW_IMAGES:
                yield Finding("few_images", class_name=name, detail=f"{train[label]} in train")
            for split in (split for split in measured if split not in elsewhere):
                yield Finding("missing_in_split", class_name=name, split=split)
        yield from self._imbalance(train)

    def _imbalance(self, train: list[int]) -> Iterator[Finding]:
        sizes = {name: n for name, n in zip(self.class_names, train, strict=True) if n}
        if sizes and max(sizes.values()) > IMBALANCE * min(sizes.values()):
            smallest, largest = min(sizes, key=sizes.get), max(sizes, key=sizes.get)
            detail = f"{largest} {sizes[largest]:,}, {smallest} {sizes[smallest]:,}"
            yield Finding("imbalance", detail=detail, split="train")
