"""Resizes images as other libraries do for networks that they have trained: with Pillow's filters.

Their weights fit such pixels, not those of our records: a smaller image is enlarged, a larger one
reduced by an antialiased filter in place of the mean over areas, and nothing is compressed.

No TensorFlow here: worker processes import this file.
"""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from data.images.decoders import BITS, BadImage

MAX_SIDE = 65_500  # pixels of a resized image: as long as a record may be

FILTERS = {  # all of them antialiased
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True)
class Resized:
    """How images are resized before they are cropped; `decode.prepare` takes it as a `Storage`.

    Attributes:
        image_size: Side of the crops in pixels.
        short_side: Shorter side of the resized images in pixels, at most 8/7 of `image_size`:
            `views.crop_side` then is `image_size`, so that crops are not resized again.
        interpolation: One of `FILTERS`.
        bits: Bits in use in images with 16 bits per channel, one of `BITS`.
    """

    image_size: int
    short_side: int
    interpolation: str = "bilinear"
    bits: int = BITS[-1]

    def __post_init__(self):
        """Checks the values."""
        low, high = max(1, self.image_size), _longest(self.image_size)
        if not low <= self.short_side <= high:
            raise ValueError(
                f"expected short_side from {low} to {high} pixels for crops of {self.image_size}, "
                f"received {self.short_side}"
            )
        if self.interpolation not in FILTERS:
            raise ValueError(
                f"expected interpolation {' or '.join(FILTERS)}, received {self.interpolation!r}"
            )
        if self.bits not in BITS:
            raise ValueError(
                f"expected bits out of {', '.join(map(str, BITS))}, received {self.bits!r}"
            )

    def __str__(self):
        """Describes it for users."""
        return (
            f"shorter side {self.short_side} ({self.interpolation}), "
            f"crop {self.image_size} x {self.image_size}"
        )

    def at(self, image_size: int) -> "Resized":
        """Returns the same for crops of another size, which are the same part of an image."""
        if image_size == self.image_size:
            return self
        short_side = round(self.short_side * image_size / self.image_size)
        short_side = min(short_side, _longest(image_size))
        return replace(self, image_size=image_size, short_side=short_side)


def resize(image: np.ndarray, how: Resized) -> np.ndarray:
    """Resizes a whole image; the longer side is rounded down, as by torchvision.

    Every sample is rounded once, as torchvision does with tensors. Pillow's own 8-bit resizing
    rounds after each axis.

    Args:
        image: uint8 [H, W, 3]; the order of the channels does not matter.
        how: Shorter side and filter.

    Returns:
        uint8 [h, w, 3].

    Raises:
        BadImage: If the result would be longer than `MAX_SIDE`.
    """
    height, width = image.shape[:2]
    shorter = min(height, width)
    size = [side * how.short_side // shorter for side in (width, height)]
    if max(size) > MAX_SIDE:
        raise BadImage(
            f"more than {MAX_SIDE:,} pixels on a side after resizing: {width} x {height} becomes "
            f"{size[0]} x {size[1]}"
        )
    channels = [
        Image.fromarray(channel).resize(size, FILTERS[how.interpolation])
        for channel in np.moveaxis(image, -1, 0).astype(np.float32)
    ]
    return np.clip(np.rint(np.stack(channels, axis=-1)), 0, 255).astype(np.uint8)


def _longest(image_size: int) -> int:
    """Returns the longest shorter side of which 7/8, rounded, are not more than `image_size`."""
    return (8 * image_size + 3) // 7
