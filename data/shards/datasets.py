"""Folders of shards: their description, and whether all shards are there.

Our own shards come with a `dataset.json`; `foreign` computes the same description for shards of
other tools.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data.images.names import composed
from data.shards import foreign, series
from data.shards.copies import DESCRIPTION, FORMAT_VERSION

UNKNOWN = "unknown"
ENCODINGS = ("jpeg", "png", "raw", "mixed", UNKNOWN)
_FOREIGN = {"jpeg": "jpeg", "mixed": UNKNOWN}  # by the value in `foreign.describe`


@dataclass(frozen=True)
class Shard:
    """One file of records; `sha256` is empty if it is not known."""

    path: str
    examples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Dataset:
    """A folder of shards.

    Attributes:
        folder: Folder of the shards.
        class_names: Names of the classes, by label.
        mean: Mean of R, G, B over the train split's stored pixels, in 0..255.
        std: Standard deviation of R, G, B over these pixels.
        storage: Fields of the `decode.Storage` that prepares other images alike; "bits" only if
            the description has it.
        splits: Shards by split ("train", "validation", "test"), in stored order.
        fingerprint: Digest of the source and the options of the conversion.
        encodings: Encoding of each split's records, one of `ENCODINGS`: JPEG files, PNG files, raw
            pixels, or mixed: each record states its own. "unknown", in foreign shards only, means
            image files of any kind, whose stated heights and widths may be wrong.
        label_offset: First label in the records; 0 in our own shards.
        class_counts: Examples of each class, by label, for the splits for which they are known.
        passed_over: Files and folders of the source that were not used, see `PassedOver.parts`.
        joined: Classes made of several folders, see `Source.joined`.
        rejected: Number of the source's images that could not be used.
        unreadable: Number of these that could not be opened.
        small_grey: Whether all images are known to be grey and of at most 64 x 64 pixels.
        earlier_fingerprints: Fingerprints of earlier versions for the same source and options.
    """

    folder: Path
    class_names: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    storage: dict
    splits: dict[str, tuple[Shard, ...]]
    fingerprint: str
    encodings: dict[str, str]
    label_offset: int = 0
    class_counts: dict[str, tuple[int, ...]] = field(default_factory=dict)
    passed_over: tuple[str, ...] = ()
    joined: str = ""
    rejected: int = 0
    unreadable: int = 0
    small_grey: bool = False
    earlier_fingerprints: tuple[str, ...] = ()

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """All fingerprints by which a run may refer to the data."""
        return (self.fingerprint, *self.earlier_fingerprints)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def has_classes(self, names: Sequence[str]) -> bool:
        """Whether a network was trained on these classes.

        Earlier versions did not name the classes of foreign shards: then their number is compared.
        """
        placeholders = [f"class_{label}" for label in range(self.num_classes)]
        known = list(map(composed, names))
        is_earlier = bool(self.earlier_fingerprints) and known == placeholders
        return is_earlier or known == list(map(composed, self.class_names))

    def shards(self, split: str) -> tuple[Shard, ...]:
        """Returns the shards of a split.

        Raises:
            ValueError: If there is no such split.
        """
        if split not in self.splits:
            raise ValueError(
                f"{self.folder} has no such split, expected one of "
                f"{', '.join(self.splits)}, received {split}"
            )
        return self.splits[split]

    def num_examples(self, split: str) -> int:
        """Returns the number of examples in a split; 0 if there is no such split."""
        return sum(shard.examples for shard in self.splits.get(split, ()))


def load(folder: str | Path, *, verify: bool = False) -> Dataset:
    """Opens a folder of shards.

    Args:
        folder: Folder of a `dataset.json` and its shards, or of foreign shards; or a foreign shard.
        verify: Whether to compare the shards' sha256, which reads every byte. Existence and size
            are always compared.

    Raises:
        FileNotFoundError: If there is no folder, or no data set in it.
        ValueError: If a shard is missing or differs from its description.
    """
    folder = Path(folder)
    dataset = described(folder) if (folder / DESCRIPTION).is_file() else _foreign(folder)
    for shards in dataset.splits.values():
        for shard in shards:
            _check(shard, verify)
    return dataset


def _foreign(path: Path) -> Dataset:
    """Opens shards of another tool and prints their classes and labels."""
    shards = series.find(path)
    description = {"format_version": FORMAT_VERSION, "passed_over": shards.passed_over}
    dataset = _described(shards.folder, {**description, **foreign.describe(shards)})
    lacks = "" if "validation" in dataset.splits else ", no validation split"
    print(
        f"{path}: shards of another tool, {dataset.num_classes} classes, "
        f"labels from {dataset.label_offset}{lacks}"
    )
    return replace(dataset, earlier_fingerprints=(foreign.earlier_fingerprint(shards),))


def described(folder: str | Path) -> Dataset:
    """Reads the `dataset.json` of a folder; does not look at the shards.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged.
    """
    return _described(Path(folder), _read_json(Path(folder) / DESCRIPTION))


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged, expected JSON: {error}") from error


def _described(folder: Path, description: dict) -> Dataset:
    """Builds the data set that a dataset.json describes."""
    try:
        if description["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format_version {description['format_version']}")
        splits = description["splits"]
        return Dataset(
            folder=folder,
            class_names=tuple(description["class_names"]),
            mean=tuple(description["mean"]),
            std=tuple(description["std"]),
            storage=_storage(description),
            splits={
                split: tuple(_shard(folder, **shard) for shard in entry["shards"])
                for split, entry in splits.items()
            },
            fingerprint=description["fingerprint"],
            encodings={split: _encoding(description, entry) for split, entry in splits.items()},
            label_offset=description.get("label_offset", 0),
            class_counts={
                split: tuple(entry["classes"])
                for split, entry in splits.items()
                if entry.get("classes")
            },
            passed_over=tuple(description.get("passed_over", ())),
            joined=description.get("joined", ""),
            rejected=description.get("rejected", 0),
            unreadable=description.get("unreadable", 0),
            small_grey=description.get("small_grey", False),
            earlier_fingerprints=tuple(description.get("earlier_fingerprints", ())),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"the description of {folder} is not usable, expected format_version "
            f"{FORMAT_VERSION} of dataset.json, received {error!r}"
        ) from error


def _storage(description: dict) -> dict:
    """Returns the options of a conversion; older descriptions have no "bits"."""
    storage = {key: description[key] for key in ("short_side", "quality", "encoding")}
    return storage | {key: description[key] for key in ("bits",) if key in description}


def _encoding(description: dict, split: dict) -> str:
    """Returns the encoding of a split; older and foreign descriptions have one for all splits."""
    if "record_encoding" in description:
        return _FOREIGN[description["record_encoding"]]
    encoding = split.get("encoding", description["encoding"])
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding {encoding!r}")
    return encoding


def _shard(folder: Path, *, file: str, examples: int, bytes: int, sha256: str) -> Shard:
    if Path(file).name != file:
        raise ValueError(f"shard {file!r} outside the folder")
    return Shard(str(folder / file), examples, bytes, sha256)


def _check(shard: Shard, verify: bool) -> None:
    """Compares a shard with its description; TensorFlow does not notice a truncated file."""
    path = Path(shard.path)
    if not path.is_file():
        raise ValueError(f"shard {path} is missing, expected {shard.bytes} bytes")
    if path.stat().st_size != shard.bytes:
        raise ValueError(
            f"shard {path} is damaged, expected {shard.bytes} bytes, "
            f"received {path.stat().st_size} bytes"
        )
    if verify and shard.sha256:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != shard.sha256:
            raise ValueError(
                f"shard {path} is damaged, expected sha256 {shard.sha256}, received {digest}"
            )
