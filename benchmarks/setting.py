"""What is compared: the scenarios, and where the data of one lies. Imports no framework."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.images.decode import Storage

BATCH_SIZE = 128


@dataclass(frozen=True)
class Scenario:
    """One comparison; its candidates read the same bytes and vary them in the same way.

    Attributes:
        title: What is read and made of it.
        storage: How images are stored.
        policy: Of `data.augment.POLICIES`, for our pipeline.
        small: Whether it is about a set of small images, not about photographs.
        square: Whether photographs are cut to centre squares before anything reads them.
        options: More arguments of our pipeline.
    """

    title: str
    storage: Storage
    policy: str
    small: bool = False
    square: bool = False
    options: dict = field(default_factory=dict)

    @property
    def decodes(self) -> bool:
        """Whether JPEGs are decoded all the time; else decoded images are at hand."""
        return self.storage.encoding == "jpeg" and not self.small

    @property
    def resizes(self) -> bool:
        """Whether what is cut out is resized."""
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
    """The data of one scenario on disk, and what to make of it.

    Attributes:
        scenario: A key of `SCENARIOS`.
        folder: Holds "shards"; with the same bytes "files" (CLASS/INDEX.jpg) or, decoded,
            "pixels.npy" uint8 [N, H, W, 3]; "labels.npy" int32 [N]. Peers add their own.
        originals: Class folders of the images before any conversion.
        size: Side of the images that come out, in pixels.
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
        """The scenario."""
        return SCENARIOS[self.scenario]

    @property
    def padding(self) -> int:
        """How far windows reach beyond the image, in pixels."""
        return self.size // 8 if self.about.small else 0

    def path(self, name: str) -> Path:
        """A place in the folder."""
        return Path(self.folder, name)

    def files(self) -> list[tuple[Path, int]]:
        """The JPEG files with their labels, in stored order, which is a random one."""
        found = sorted(self.path("files").glob("*/*.jpg"), key=lambda path: path.name)
        return [(path, int(path.parent.name)) for path in found]

    def bytes_per_image(self) -> float:
        """Mean size of what a record holds."""
        if files := self.files():
            return sum(path.stat().st_size for path, _ in files) / len(files)
        return float(np.prod(self.pixels().shape[1:]))

    def pixels(self) -> np.ndarray:
        """The decoded images, uint8 [N, H, W, 3], mapped into memory."""
        return np.load(self.path("pixels.npy"), mmap_mode="r")

    def labels(self) -> np.ndarray:
        """Their labels, int32 [N]."""
        return np.load(self.path("labels.npy"))
