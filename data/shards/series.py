"""Recognises shards of other tools, and their splits, by their names."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from data.images.names import natural_order, split_of
from data.images.reading import shortened

# "train-00000-of-00016", "pets_train.record-00000-of-00010", "pets_val_0-of-1.tfrecord",
# "train.tfrecords", "train_01.tfrecord.gz".
_KIND = r"(?:\.(?:tfrecords?|tfrec|records?))"
_NAME = re.compile(
    rf"(?P<stem>[^.].*?)(?P<kind>{_KIND}?(?P<series>[-_](?P<index>\d+)-of-(?P<shards>\d+))?{_KIND}?)"
    r"(?P<packed>\.(?:gz|gzip|zlib|zz))?",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(^|[-_.])\d+$")
_IN_SERIES, _OF_SPLIT, _OTHER, _PACKED = range(4)  # ranks of names, the most specific first
_ENDS = 64 << 10  # bytes
_EXPECTED = "expected dataset.json or shards like train-00000-of-00016"


class Series(NamedTuple):
    """The shards of another tool in a folder.

    Attributes:
        folder: Folder of the shards.
        splits: Shards of each split, in order.
        passed_over: Names of the shards that are not used, because their names are less specific.
    """

    folder: Path
    splits: dict[str, list[Path]]
    passed_over: tuple[str, ...] = ()


class _Name(NamedTuple):
    rank: int
    split: str
    series: str
    index: int
    shards: int | None


def are_shards(path: Path) -> bool:
    """Whether a file, or a file in a folder, has a name like a shard of another tool.

    In a folder that holds folders too, the name must state split, number and count.
    """
    if path.is_file():
        return _read(path.name) is not None
    if not path.is_dir():
        return False
    ranks = [name.rank for _, name in _named(path)]
    return _IN_SERIES in ranks or bool(ranks) and not any(_folders(path))


def find(location: Path) -> Series:
    """Finds the shards, by split.

    A single file is the split in its name, else train. In a folder, the files with the most
    specific names are used: split, number and count, as in "train-00000-of-00016"; else the split;
    else a single series, which is train. Compressed files come last.

    Args:
        location: A shard, or a folder of shards.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If a series "of N" is not complete, or a split has several series.
    """
    if location.is_file():
        name = _read(location.name)
        return Series(location.parent, {name.split if name else "train": [location]})
    if not location.is_dir():
        raise FileNotFoundError(f"no such folder, expected one with shards, received {location}")
    files = _named(location)
    if not files:
        raise FileNotFoundError(f"{location} holds no data set, {_EXPECTED}")
    rank = min(name.rank for _, name in files)
    splits = defaultdict(lambda: defaultdict(list))
    for path, name in files:
        if name.rank == rank:
            splits[name.split][name.series, name.shards].append((path, name.index))
    unused = tuple(path.name for path, name in files if name.rank > rank)
    whole = {split: _whole(location, split, split_series) for split, split_series in splits.items()}
    return Series(location, whole, unused)


def fingerprint(paths: Iterable[Path]) -> str:
    """Identifies files by names, sizes and the first and last 64 KiB, wherever they lie."""
    digest = hashlib.sha256()
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode(errors="surrogateescape"))
        with open(path, "rb") as file:
            for offset in (0, max(0, size - _ENDS)):
                file.seek(offset)
                digest.update(file.read(_ENDS))
    return digest.hexdigest()


def _named(folder: Path) -> list[tuple[Path, _Name]]:
    """Returns the files with names like shards, in natural order."""
    files = sorted(
        filter(Path.is_file, folder.iterdir()), key=lambda path: natural_order(path.name)
    )
    return [(path, name) for path in files if (name := _read(path.name))]


def _folders(folder: Path) -> Iterable[Path]:
    return (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _read(name: str) -> _Name | None:
    """Parses the name of a shard; None for other names."""
    parts = _NAME.fullmatch(name)
    if not parts or not parts["kind"]:
        return None
    stem, in_series = parts["stem"], parts["series"]
    tokens = [split_of(token) for token in re.split(r"[-_.\s]", stem)]
    if parts["kind"] == in_series:  # without an extension: the split comes right before
        tokens = tokens[-1:]
        if not tokens[0]:
            return None
    split = next(filter(None, reversed(tokens)), None)
    index, shards = (int(parts["index"]), int(parts["shards"])) if in_series else (0, None)
    stem = stem if in_series else _NUMBER.sub("", stem)
    rank = _OTHER if split is None else _OF_SPLIT if shards is None else _IN_SERIES
    series = stem + parts["kind"].replace(in_series or "", "")
    return _Name(_PACKED if parts["packed"] else rank, split or "train", series, index, shards)


def _whole(folder: Path, split: str, series: dict[tuple, list[tuple[Path, int]]]) -> list[Path]:
    """Returns the shards of a split, which must be one complete series."""
    if len(series) > 1:
        raise ValueError(
            f"{folder}: expected one series of {split} shards, with the split in their names, as "
            f"train-00000-of-00016; found "
            f"{shortened([files[0][0].name for files in series.values()])}"
        )
    (((_, shards), members),) = series.items()
    if shards is not None and [index for _, index in members] != list(range(shards)):
        raise ValueError(
            f"the {split} shards in {folder} are not one complete series, expected {shards} "
            f"files, received {len(members)}"
        )
    return [path for path, _ in members]
