"""What the classes of another tool's records are called: by the records, or by a file of labels."""

import codecs
import re
from collections.abc import Sequence, Set
from pathlib import Path

FILES = ("labels.txt", "label.labels.txt")  # the first that lies beside the shards counts
_NUMBERED = re.compile(r"(\d+)\s*:\s*(.+)")
# What line 1 is called where it stands for label 0 and the classes begin at 1.
_BACKGROUND = {"background", "dummy", "unused", "unlabelled", "unlabeled", "void", "ignore", "???"}

Names = dict[int, str]  # by label


def file_in(folder: Path) -> Path | None:
    """The file of labels that lies beside the shards, if there is one."""
    return next((path for name in FILES if (path := folder / name).is_file()), None)


def named(folder: Path, labels: Set[int], texts: Names) -> tuple[list[str], int]:
    """Names the classes; those that neither records nor file name are "class_0", ...

    The file may have "0:daisy" in its lines. Else its first line is label 0 or 1: what all labels
    of the records fit, and their texts; or label 0 if it is called like a background.

    Args:
        folder: Where the shards lie.
        labels: Those of the records, from 0; not empty.
        texts: What records say that labels mean; of some labels, or all, or none.

    Returns:
        The names, and the label of the first of them: 0, or 1 if no record has 0.

    Raises:
        ValueError: The file leaves open which name a label has, lacks it, or gives it the name
            that the records give another label.
    """
    path = file_in(folder)
    names = texts | (_of_file(path, labels, texts) if path else {})
    if 0 not in labels and _is_background(names.get(0, "")):
        del names[0]
    if path and (missing := labels - names.keys()):
        raise ValueError(f"{path}: expected a line for label {min(missing)}, found none")
    known = labels | names.keys()
    offset = min(1, min(known))
    return [names.get(i, f"class_{i - offset}") for i in range(offset, max(known) + 1)], offset


def _of_file(path: Path, labels: Set[int], texts: Names) -> Names:
    """What the file says; nothing where that is open but the records name all labels."""
    lines = _lines(path)
    numberings = _numberings(path, lines, labels)
    found = f"{path}: found {len(lines)} names, and labels from {min(labels)} to {max(labels)}"
    if not numberings:
        raise ValueError(f"{found} in the records; expected a name for every label")
    wrong = [_contradiction(names, texts) for names in numberings]
    fitting = [names for names, why in zip(numberings, wrong, strict=True) if not why]
    if not fitting:
        raise ValueError(f"{path}: {wrong[0]}")
    if len(fitting) == 1:
        return fitting[0]
    if labels <= texts.keys():
        return {}
    raise ValueError(
        f"{found} in the records: the first name may be that of label 0 or of label 1; expected "
        f"lines with numbers, as 1:{lines[0]}"
    )


def _lines(path: Path) -> list[str]:
    """The lines that are not empty."""
    with open(path, "rb") as file:
        is_utf_16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if is_utf_16 else "utf-8-sig"
    text = path.read_text(encoding, errors="replace" if is_utf_16 else "backslashreplace")
    return [line.strip() for line in text.split("\n") if line.strip()]


def _numberings(path: Path, lines: Sequence[str], labels: Set[int]) -> list[Names]:
    """The ways in which the lines can be the names of labels.

    Raises:
        ValueError: Only some lines have numbers, or two have the same.
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
    """Says which label has by the records the name of another one, if there is such a label."""
    words = {label: _words(name) for label, name in names.items()}
    for label, text in sorted(texts.items()):
        of_text = _words(text)
        if of_text & words.get(label, set()):
            continue
        for other in names:
            if of_text & words[other]:
                return (
                    f"found {names[other]!r} for label {other} and {names.get(label)!r} for label "
                    f"{label}; the records of label {label} say {text!r}"
                )
    return ""


def _words(name: str) -> set[str]:
    """The synonyms of a name such as "great_white_shark, white shark"."""
    return {word.strip() for word in name.casefold().replace("_", " ").split(",")} - {""}


def _is_background(name: str) -> bool:
    return name.strip("_<>[]() ").casefold() in _BACKGROUND
