"""Images of noise in two class folders, to convert."""

from pathlib import Path

import numpy as np
from PIL import Image


def write(folder: Path, *, count: int, side: int) -> None:
    """Writes PNG files into `folder/class 0` and `folder/class 1`, by turns."""
    for number in range(count):
        path = folder / f"class {number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(noise).save(path)
