"""FFCV from its own file: batches [B, S, S, 3].

FFCV re-encodes every JPEG and has no crop without resizing. This module adds, from FFCV's own
parts, a field that keeps the bytes and a decoder that only crops.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.decoders import RandomResizedCropRGBImageDecoder, SimpleRGBImageDecoder
from ffcv.fields.rgb_image import IMAGE_MODES, ResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import RandomHorizontalFlip, RandomTranslate, ToTensor
from ffcv.writer import DatasetWriter
from PIL import Image

from benchmarks.peers import AREA, RATIO
from benchmarks.setting import Setting


class EncodedField(RGBImageField):
    """Image field that keeps the bytes of a JPEG file, given by its path."""

    def encode(self, destination: np.ndarray, path: Path, malloc: Callable) -> None:
        """Writes a file."""
        encoded = np.frombuffer(path.read_bytes(), np.uint8)
        destination["mode"] = IMAGE_MODES["jpg"]
        with Image.open(path) as header:
            destination["width"], destination["height"] = header.size
        destination["data_ptr"], storage = malloc(encoded.nbytes)
        storage[:] = encoded


class RandomCropDecoder(ResizedCropRGBImageDecoder):
    """Decoder that crops squares without resizing."""

    def __init__(self, size: int) -> None:
        super().__init__((size, size))
        self.scale, self.ratio = (size, size), (1.0, 1.0)

    @property
    def get_crop_generator(self) -> Callable:
        """Returns a function that draws a crop window, which FFCV compiles."""

        def window(height, width, size, _):
            side = int(size[0])
            top = int(np.random.uniform(0, height - side + 1))
            left = int(np.random.uniform(0, width - side + 1))
            return top, left, side, side

        return window


def ffcv(setting: Setting) -> Iterator[torch.Tensor]:
    """Reads a file in the page cache in random order, in long epochs."""
    decoded = not setting.about.decodes
    path, images = _written(setting, decoded)
    loader = Loader(
        str(path),
        batch_size=setting.batch_size,
        num_workers=setting.threads,
        os_cache=True,
        order=OrderOption.RANDOM,
        indices=np.tile(np.arange(images), -(-500_000 // images)),
        pipelines={"image": _steps(setting), "label": None},
        custom_fields={} if decoded else {"image": EncodedField},
    )
    while True:
        for (batch,) in loader:
            yield batch


def _written(setting: Setting, decoded: bool) -> tuple[Path, int]:
    """Writes FFCV's file; returns its path and the number of images."""
    if decoded:
        examples = list(zip(setting.pixels(), setting.labels().tolist(), strict=True))
        field = RGBImageField(write_mode="raw")
    else:
        examples, field = setting.files(), EncodedField()
    path = setting.path("images.beton")
    writer = DatasetWriter(str(path), {"image": field, "label": IntField()}, num_workers=1)
    writer.from_indexed_dataset(examples)
    return path, len(examples)


def _steps(setting: Setting) -> list:
    """Returns the pipeline of images."""
    size = setting.size
    if setting.about.resizes:
        return [
            RandomResizedCropRGBImageDecoder((size, size), AREA, RATIO),
            RandomHorizontalFlip(),
            ToTensor(),
        ]
    if setting.about.small:
        shift = RandomTranslate(setting.padding)
        return [SimpleRGBImageDecoder(), RandomHorizontalFlip(), shift, ToTensor()]
    return [RandomCropDecoder(size), RandomHorizontalFlip(), ToTensor()]
