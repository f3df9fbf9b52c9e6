"""The scenarios of the input benchmarks and the data of each. Imports no framework."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.images.decode import Storage

BATCH_SIZE = 128


@dataclass(frozen=True)
class Scenario:
    """A comparison, whose candidates read the same bytes and augment them in the same way.

    Attributes:
        title: Input and output of the candidates, in words.
        storage: Storage format of the images.
        policy: Augmentation of our pipeline, a key of `augment.POLICIES`.
        small: Whether the images are small ones, such as CIFAR-10's, and not photographs.
        square: Whether photographs are cropped to their centre squares in advance.
        options: Additional arguments of our pipeline.
    """

    title: str
    storage: Storage
    policy: str
    small: bool = False
    square: bool = False
    options: dict = field(default_factory=dict)

    @property
    def decodes(self) -> bool:
        """Whether candidates decode JPEGs; otherwise they read decoded images."""
        return self.storage.encoding == "jpeg" and not self.small

    @property
    def resizes(self) -> bool:
        """Whether crops are resized."""
        return self.policy == "inception"


SCENARIOS = {
    "original": Scenario(
        "JPEGs of their original size, random-resized-crop and flip",
        Storage(short_side=0, encoding="jpeg"),
        "inception",
    ),
    "256": Scenario(
        "JPEGs with a shorter side of 256, random crop and flip",
        Storage(short_side=256, encoding="jpeg"),
        "alexnet",
    ),
    "squares": Scenario(
        "JPEG squares of 256 pixels at quality 90, random crop and flip",
        Storage(short_side=256, quality=90, encoding="jpeg"),
        "alexnet",
        square=True,
    ),
    "raw": Scenario(
        "decoded squares of 256 pixels, random crop and flip",
        Storage(short_side=256, encoding="raw"),
        "alexnet",
    ),
    "small": Scenario(
        "small images, padded by 4 pixels of 32, random crop and flip",
        Storage(short_side=0, encoding="jpeg"),
        "cifar",
        small=True,
        options={"cache": "memory"},
    ),
}


@dataclass(frozen=True)
class Setting:
    """The data of a scenario on disk, and the batches to make of it.

    Attributes:
        scenario: Scenario, a key of `SCENARIOS`.
        folder: Folder with "shards", the same bytes as "files" (CLASS/INDEX.jpg) or decoded as
            "pixels.npy" uint8 [N, H, W, 3], and "labels.npy" int32 [N]. Peers add their own files.
        originals: Class folders of the images before any conversion.
        size: Side of the images in batches, in pixels.
        batch_size: Images per batch.
        threads: Threads, or worker processes, of every candidate.
    """

    scenario: str
    folder: str
    originals: str
    size: int
    batch_size: int
    threads: int

    @property
    def about(self) -> Scenario:
        """Description of the scenario."""
        return SCENARIOS[self.scenario]

    @property
    def padding(self) -> int:
        """Largest distance that crop windows exceed the image by, in pixels."""
        return self.size // 8 if self.about.small else 0

    def path(self, name: str) -> Path:
        """Returns a path in the folder."""
        return Path(self.folder, name)

    def files(self) -> list[tuple[Path, int]]:
        """Returns the JPEG files with their labels in stored order, which is shuffled."""
        found = sorted(self.path("files").glob("*/*.jpg"), key=lambda path: path.name)
        return [(path, int(path.parent.name)) for path in found]

    def bytes_per_image(self) -> float:
        """Mean size of an image in its record, in bytes."""
        if files := self.files():
            return sum(path.stat().st_size for path, _ in files) / len(files)
        return float(np.prod(self.pixels().shape[1:]))

    def pixels(self) -> np.ndarray:
        """Returns the decoded images, uint8 [N, H, W, 3], memory-mapped."""
        return np.load(self.path("pixels.npy"), mmap_mode="r")

    def labels(self) -> np.ndarray:
        """Returns the labels of the images, int32 [N]."""
        return np.load(self.path("labels.npy"))
