"""PyTorch's DataLoader with torchvision: batches [B, 3, S, S]."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils import data
from torchvision import io
from torchvision.datasets.folder import pil_loader
from torchvision.transforms import v2

from benchmarks.peers import AREA, PREFETCH, RATIO
from benchmarks.setting import Setting

FOREVER = 10**9  # images


class Files(data.Dataset):
    """Data set of JPEG files."""

    def __init__(self, setting: Setting, read: Callable, vary: Callable) -> None:
        self._files = [(str(path), label) for path, label in setting.files()]
        self._read, self._vary = read, vary

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Reads and augments an image."""
        path, label = self._files[index]
        return self._vary(self._read(path)), label


class Pixels(data.Dataset):
    """Data set of decoded images in memory."""

    def __init__(self, setting: Setting, vary: Callable) -> None:
        self._pixels = torch.from_numpy(np.array(setting.pixels())).permute(0, 3, 1, 2)
        self._labels, self._vary = setting.labels().tolist(), vary

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Augments an image."""
        return self._vary(self._pixels[index]), self._labels[index]


def tensors(setting: Setting) -> Iterator[torch.Tensor]:
    """Reads files with torchvision's decoder and its transforms of tensors."""

    def read(path: str) -> torch.Tensor:
        return decoded(io.read_file(path))

    yield from _load(setting, Files(setting, read, crop(setting)))


def pil(setting: Setting) -> Iterator[torch.Tensor]:
    """Reads files with Pillow, as torchvision's ImageFolder does, and transforms of its images."""
    vary = v2.Compose([crop(setting), v2.PILToTensor()])
    yield from _load(setting, Files(setting, pil_loader, vary))


def memory(setting: Setting) -> Iterator[torch.Tensor]:
    """Reads one tensor of all decoded images."""
    yield from _load(setting, Pixels(setting, crop(setting)))


def decoded(encoded: torch.Tensor) -> torch.Tensor:
    """Decodes the bytes of a JPEG, uint8 [N], to pixels, uint8 [3, H, W]."""
    return io.decode_jpeg(encoded, mode=io.ImageReadMode.RGB)


def crop(setting: Setting) -> Callable:
    """Returns the transforms of a scenario."""
    if setting.about.resizes:
        cut = v2.RandomResizedCrop(setting.size, AREA, RATIO)
    else:
        cut = v2.RandomCrop(setting.size, padding=setting.padding or None)
    return v2.Compose([cut, v2.RandomHorizontalFlip()])


def _load(setting: Setting, dataset: data.Dataset) -> Iterator[torch.Tensor]:
    loader = data.DataLoader(
        dataset,
        batch_size=setting.batch_size,
        sampler=data.RandomSampler(dataset, num_samples=FOREVER),  # consecutive permutations
        num_workers=setting.threads,
        prefetch_factor=PREFETCH,
        persistent_workers=True,
    )
    for images, _ in loader:
        yield images
