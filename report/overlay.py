"""Overlays heat maps on images."""

import re
from pathlib import Path

import cv2
import numpy as np

_SIDE = 224  # smallest side of a picture in pixels
_STRENGTH = 0.65  # opacity at the heat map's maximum of 1; in proportion elsewhere


def overlay(view: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Blends a heat map onto an image, whose colours remain where the heat is 0.

    Args:
        view: Input of the network, uint8 [S, S, 3].
        heat: Heat map, float32 [h, w] in 0..1.

    Returns:
        Picture, uint8 [T, T, 3], at least as large as the image.
    """
    picture = enlarged(view)
    resized_heat = cv2.resize(heat, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    colours = cv2.applyColorMap(np.uint8(np.rint(255 * resized_heat)), cv2.COLORMAP_TURBO)[
        ..., ::-1
    ]
    opacity = _STRENGTH * resized_heat[..., np.newaxis]
    return np.uint8(np.rint((1 - opacity) * picture + opacity * colours))


def enlarged(view: np.ndarray) -> np.ndarray:
    """Enlarges a small image by an integer factor to at least `_SIDE` pixels."""
    times = -(-_SIDE // len(view)) if len(view) < _SIDE else 1
    return view.repeat(times, axis=0).repeat(times, axis=1)


def png(picture: np.ndarray) -> bytes:
    """Encodes an image, uint8 [H, W, 3], as PNG."""
    return cv2.imencode(".png", picture[..., ::-1])[1].tobytes()


def path_for(folder: Path, number: int, image: str, frame: int | None = None) -> Path:
    """Returns a unique and valid path for the picture of an image.

    Args:
        folder: Folder of the pictures.
        number: Number of the image, different for every image.
        image: Path of the image.
        frame: Frame number in a video; None for images.
    """
    stem = re.sub(r"[^\w-]+", "_", Path(image).stem, flags=re.ASCII)[:80]
    frame_suffix = "" if frame is None else f"-frame{frame}"
    return folder / f"{number:05d}-{stem}{frame_suffix}.png"
