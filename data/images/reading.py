"""What was read is said: the classes with their images, and what was not taken."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

_ALL_CLASSES = 10  # up to so many are named
_FIRST_CLASSES = 3
_NAMES = 12  # in a line
_EXTENSION = re.compile(r"\.(?=\d*[a-z])[a-z\d]{1,10}$")


@dataclass
class PassedOver:
    """What lies among images and was not taken.

    Attributes:
        files: How many files there are, by extension.
        folders: Names of folders, in the order in which they were found.
        closed: Those of them that cannot be opened.
    """

    files: Counter[str] = field(default_factory=Counter)
    folders: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def add_files(self, names: Iterable[str]) -> None:
        """Adds files."""
        found = (_EXTENSION.search(name.lower()) for name in names)
        self.files.update(each[0] if each else "without extension" for each in found)

    def add_folders(self, names: Iterable[str]) -> None:
        """Adds folders, each name once."""
        self.folders += [name for name in dict.fromkeys(names) if name not in self.folders]

    def parts(self, unreadable: int = 0) -> list[str]:
        """Returns the parts of the line: `24 .cr2`, `3 unreadable files`, `folders @eaDir, old`.

        Args:
            unreadable: Number of images that cannot be opened.
        """
        most_first = sorted(self.files.items(), key=lambda row: (-row[1], row[0]))
        parts = [f"{count:,} {kind}" for kind, count in most_first[:_NAMES]]
        if rest := sum(count for _, count in most_first[_NAMES:]):
            parts.append(f"{rest:,} of other extensions")
        if unreadable:
            parts.append(f"{unreadable:,} unreadable file{'s' * (unreadable > 1)}")
        if self.folders:
            parts.append(f"folders {shortened(self.folders)}")
        return parts


def taken(
    class_names: Sequence[str],
    images: Sequence[int] | None,
    *,
    joined: str = "",
    passed_over: Sequence[str] = (),
) -> list[str]:
    """Says which classes were read and what was passed over.

    Args:
        class_names: By label.
        images: Number of training images of every class, by label; None where it is unknown.
        joined: `Source.joined`.
        passed_over: `PassedOver.parts`.

    Returns:
        Lines for the user.
    """
    lines = [f"classes: {_classes(class_names, images)}"]
    if joined:
        lines.append(f"joined, each into one class: {joined}")
    if passed_over:
        lines.append(f"passed over: {', '.join(passed_over)}")
    return lines


def lacking(
    class_names: Sequence[str],
    counts: Mapping[str, Sequence[int]],
    *,
    left_out: int = 0,
    listed: str | os.PathLike = "",
) -> list[str]:
    """Says which files a conversion left out and which splits lack classes.

    Args:
        class_names: By label.
        counts: Number of images of every class, by label, of every split; a test split whose
            numbers are all 0 has no labels.
        left_out: Number of files that are no sound images.
        listed: The table that names them.

    Returns:
        Lines for the user.
    """
    lines = []
    if left_out:
        files = f"{left_out:,} file{'s' * (left_out > 1)}"
        lines.append(f"left out: {files} that cannot be decoded, listed in {listed}")
    for split, images in counts.items():
        missing = [name for name, count in zip(class_names, images, strict=True) if not count]
        if missing and any(images):
            lines.append(f"warning: the {split} split has no images of {shortened(missing)}")
    return lines


def shortened(names: Sequence[str], most: int = _NAMES) -> str:
    """Lists names, only the first where there are many."""
    more = [f"{len(names) - most:,} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more])


def _classes(names: Sequence[str], images: Sequence[int] | None) -> str:
    if images is None:
        return f"{shortened(names)}; {len(names):,} classes"
    each = [f"{name} ({count:,})" for name, count in zip(names, images, strict=True)]
    if len(each) <= _ALL_CLASSES:
        return ", ".join(each)
    fewest = each[min(range(len(each)), key=images.__getitem__)]
    return f"{', '.join(each[:_FIRST_CLASSES])}, ..., fewest: {fewest}; {len(each):,} classes"
