"""Formats lines about what was read: classes with their images, and files passed over."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

_ALL_CLASSES = 10  # up to this number, all classes are named
_FIRST_CLASSES = 3
_NAMES = 12  # in a line
_EXTENSION = re.compile(r"\.(?=\d*[a-z])[a-z\d]{1,10}$")


@dataclass
class PassedOver:
    """Files and folders among the images that are not used.

    Attributes:
        files: Number of files, by extension.
        folders: Names of folders, in the order in which they were found.
        closed: Names of the folders that cannot be opened.
    """

    files: Counter[str] = field(default_factory=Counter)
    folders: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def add_files(self, names: Iterable[str]) -> None:
        """Adds files."""
        matches = (_EXTENSION.search(name.lower()) for name in names)
        self.files.update(match[0] if match else "without extension" for match in matches)

    def add_folders(self, names: Iterable[str]) -> None:
        """Adds folders, each name once."""
        self.folders += [name for name in dict.fromkeys(names) if name not in self.folders]

    def parts(self, unreadable: int = 0) -> list[str]:
        """Returns the parts of the line: `24 .cr2`, `3 unreadable files`, `folders @eaDir, old`.

        Args:
            unreadable: Number of images that cannot be opened.
        """
        by_count = sorted(self.files.items(), key=lambda row: (-row[1], row[0]))
        parts = [f"{count:,} {kind}" for kind, count in by_count[:_NAMES]]
        if rest := sum(count for _, count in by_count[_NAMES:]):
            parts.append(f"{rest:,} of other extensions")
        if unreadable:
            parts.append(f"{unreadable:,} unreadable file{'s' * (unreadable > 1)}")
        if self.folders:
            parts.append(f"folders {shortened(self.folders)}")
        return parts


def summary_lines(
    class_names: Sequence[str],
    images: Sequence[int] | None,
    *,
    joined: str = "",
    passed_over: Sequence[str] = (),
) -> list[str]:
    """Formats the lines about the classes and about the files passed over.

    Args:
        class_names: Names of the classes, by label.
        images: Number of training images of each class, by label; None if unknown.
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


def gap_lines(
    class_names: Sequence[str],
    counts: Mapping[str, Sequence[int]],
    *,
    left_out: int = 0,
    table: str | os.PathLike = "",
) -> list[str]:
    """Formats the lines about files left out and about classes missing in a split.

    Args:
        class_names: Names of the classes, by label.
        counts: Number of images of each class, by label, for each split; a test split without
            labels has 0 everywhere.
        left_out: Number of files that cannot be decoded.
        table: The table that lists these files.

    Returns:
        Lines for the user.
    """
    lines = []
    if left_out:
        files = f"{left_out:,} file{'s' * (left_out > 1)}"
        lines.append(f"left out: {files} that cannot be decoded, listed in {table}")
    for split, images in counts.items():
        missing = [name for name, count in zip(class_names, images, strict=True) if not count]
        if missing and any(images):
            lines.append(f"warning: the {split} split has no images of {shortened(missing)}")
    return lines


def shortened(names: Sequence[str], limit: int = _NAMES) -> str:
    """Joins names with commas; of more than `limit`, only the first and the number of others."""
    more = [f"{len(names) - limit:,} more"] if len(names) > limit else []
    return ", ".join([*names[:limit], *more])


def _classes(names: Sequence[str], images: Sequence[int] | None) -> str:
    if images is None:
        return f"{shortened(names)}; {len(names):,} classes"
    each = [f"{name} ({count:,})" for name, count in zip(names, images, strict=True)]
    if len(each) <= _ALL_CLASSES:
        return ", ".join(each)
    fewest = each[min(range(len(each)), key=images.__getitem__)]
    return f"{', '.join(each[:_FIRST_CLASSES])}, ..., fewest: {fewest}; {len(each):,} classes"
