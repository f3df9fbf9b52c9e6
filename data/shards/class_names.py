"""Names of the classes in another tool's records: from the records, or from a file of labels."""

import codecs
import re
from collections.abc import Sequence, Set
from pathlib import Path

FILES = ("labels.txt", "label.labels.txt")  # the first that exists beside the shards is used
_NUMBERED = re.compile(r"(\d+)\s*:\s*(.+)")
# Names in line 1 that stand for label 0 if the classes begin at 1.
_BACKGROUND = {"background", "dummy", "unused", "unlabelled", "unlabeled", "void", "ignore", "???"}

Names = dict[int, str]  # by label


def file_in(folder: Path) -> Path | None:
    """Returns the file of labels beside the shards; None if there is none."""
    return next((path for name in FILES if (path := folder / name).is_file()), None)


def assign_names(folder: Path, labels: Set[int], texts: Names) -> tuple[list[str], int]:
    """Names the classes; a class without a name becomes "class_0", ...

    Lines of the file may look like "0:daisy". Else the first line is label 0 or 1, whichever fits
    all labels and texts of the records; it is label 0 if it is a name of a background.

    Args:
        folder: The folder of the shards.
        labels: All labels of the records, from 0; not empty.
        texts: Names that the records give to labels; not necessarily to all.

    Returns:
        The names, and the label of the first: 0, or 1 if no record has label 0.

    Raises:
        ValueError: If the file is ambiguous, lacks a label, or gives a label the name that the
            records give another one.
    """
    path = file_in(folder)
    names = texts | (_file_names(path, labels, texts) if path else {})
    if 0 not in labels and _is_background(names.get(0, "")):
        del names[0]
    if path and (missing := labels - names.keys()):
        raise ValueError(f"{path}: expected a line for label {min(missing)}, found none")
    known = labels | names.keys()
    offset = min(1, min(known))
    return [names.get(i, f"class_{i - offset}") for i in range(offset, max(known) + 1)], offset


def _file_names(path: Path, labels: Set[int], texts: Names) -> Names:
    """Reads the names in the file; none if they are ambiguous but the records name all labels."""
    lines = _lines(path)
    numberings = _numberings(path, lines, labels)
    counts = f"{path}: found {len(lines)} names, and labels from {min(labels)} to {max(labels)}"
    if not numberings:
        raise ValueError(f"{counts} in the records; expected a name for every label")
    wrong = [_contradiction(names, texts) for names in numberings]
    fitting = [names for names, why in zip(numberings, wrong, strict=True) if not why]
    if not fitting:
        raise ValueError(f"{path}: {wrong[0]}")
    if len(fitting) == 1:
        return fitting[0]
    if labels <= texts.keys():
        return {}
    raise ValueError(
        f"{counts} in the records: the first name may be that of label 0 or of label 1; expected "
        f"lines with numbers, as 1:{lines[0]}"
    )


def _lines(path: Path) -> list[str]:
    """Returns the non-empty lines of a file."""
    with open(path, "rb") as file:
        is_utf_16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if is_utf_16 else "utf-8-sig"
    text = path.read_text(encoding, errors="replace" if is_utf_16 else "backslashreplace")
    return [line.strip() for line in text.split("\n") if line.strip()]


def _numberings(path: Path, lines: Sequence[str], labels: Set[int]) -> list[Names]:
    """Returns the possible names of labels: as numbered, or for each first label that fits.

    Raises:
        ValueError: If only some lines have numbers, or two have the same.
    """
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if any(numbered):
        names = {int(line[1]): line[2] for line in numbered if line}
        if len(names) < len(lines):
            raise ValueError(f"{path}: expected lines as 0:{lines[-1]}, each with its own number")
        return [names]
    background = bool(lines) and _is_background(lines[0])
    fits = {}
    for first in (-1, 0, 1) if background else (0, 1):
        names = {label: line for label, line in enumerate(lines, first) if label >= 0}
        if labels <= names.keys():
            fits[first] = names
    if background and 0 not in labels and 0 in fits:
        return [fits[0]]
    return list(fits.values())


def _contradiction(names: Names, texts: Names) -> str:
    """Describes a label to which the records give the name of another label; "" if none does."""
    synonyms = {label: _synonyms(name) for label, name in names.items()}
    for label, text in sorted(texts.items()):
        text_synonyms = _synonyms(text)
        if text_synonyms & synonyms.get(label, set()):
            continue
        for other in names:
            if text_synonyms & synonyms[other]:
                return (
                    f"found {names[other]!r} for label {other} and {names.get(label)!r} for label "
                    f"{label}; the records of label {label} say {text!r}"
                )
    return ""


def _synonyms(name: str) -> set[str]:
    """Returns the synonyms in a name such as "great_white_shark, white shark"."""
    return {synonym.strip() for synonym in name.casefold().replace("_", " ").split(",")} - {""}


def _is_background(name: str) -> bool:
    return name.strip("_<>[]() ").casefold() in _BACKGROUND
