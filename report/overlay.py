"""Pictures of where a network looked."""

import re
from pathlib import Path

import cv2
import numpy as np

_SIDE = 224  # pixels, at least
_STRENGTH = 0.65  # of the colour at the strongest place; 0 where nothing speaks for the class


def overlay(view: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Blends a heat map onto an image: what does not count keeps its colours.

    Args:
        view: uint8 [S, S, 3], what the network saw.
        heat: float32 [h, w] in 0..1.

    Returns:
        uint8 [T, T, 3], not smaller than the image.
    """
    picture = enlarged(view)
    warmth = cv2.resize(heat, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    colours = cv2.applyColorMap(np.uint8(np.rint(255 * warmth)), cv2.COLORMAP_TURBO)[..., ::-1]
    share = _STRENGTH * warmth[..., np.newaxis]
    return np.uint8(np.rint((1 - share) * picture + share * colours))


def enlarged(view: np.ndarray) -> np.ndarray:
    """An image as large as people like it: small ones get larger, by whole pixels."""
    times = -(-_SIDE // len(view)) if len(view) < _SIDE else 1
    return view.repeat(times, axis=0).repeat(times, axis=1)


def png(picture: np.ndarray) -> bytes:
    """Encodes uint8 [H, W, 3]."""
    return cv2.imencode(".png", picture[..., ::-1])[1].tobytes()


def path_for(folder: Path, number: int, image: str, frame: int | None = None) -> Path:
    """Where to write the picture of an image, whatever its name is.

    Args:
        folder: Where the pictures go.
        number: Of the image; no two have the same.
        image: Its path.
        frame: Its number, of a video.
    """
    stem = re.sub(r"[^\w-]+", "_", Path(image).stem, flags=re.ASCII)[:80]
    of_video = "" if frame is None else f"-frame{frame}"
    return folder / f"{number:05d}-{stem}{of_video}.png"
