"""Variations of single training images, in addition to a policy.

OpenCV and Pillow change images on the CPU. Each variation draws from a generator of its own, keyed
by the image's draws: nothing keeps a state, and no variation depends on which others are on.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

LEVELS = 10  # largest magnitude of RandAugment
_SMOOTH = 0.08  # of the side: standard deviation of the Gaussian over elastic displacements
_ERASED_AREA = (0.02, 1 / 3)  # of the image; Zhong et al., section 3.2, with timm's upper limit
_ERASED_ASPECT = 0.3  # and its inverse


@dataclass(frozen=True)
class Variations:
    """Strengths of the variations; 0 turns one off.

    Attributes:
        rotate: Maximum angle in degrees, either way.
        translate: Maximum shift as a part of the side, in both directions.
        shear: Maximum angle in degrees, either way.
        elastic: Typical displacement, as a part of the side (P. Simard et al., ICDAR 2003).
        randaugment: Number of `OPERATIONS` and their magnitude, 0..`LEVELS` (E. Cubuk et al.,
            arXiv:1909.13719).
        jitter: Brightness, contrast and saturation change by a factor in 1 - jitter..1 + jitter.
        channel_shift: Maximum number of levels of 0..255 added to each channel.
        erase: Probability that a rectangle is painted over (Z. Zhong et al., arXiv:1708.04896), in
            one random colour.
    """

    rotate: float = 0.0
    translate: float = 0.0
    shear: float = 0.0
    elastic: float = 0.0
    randaugment: tuple[int, float] = (0, 0.0)
    jitter: float = 0.0
    channel_shift: float = 0.0
    erase: float = 0.0

    def __bool__(self) -> bool:
        """Whether anything is varied."""
        return self != Variations()

    def __call__(self, image: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Varies an image.

        Args:
            image: uint8 [S, S, 3], RGB.
            draws: Random numbers of this image, float32 [D]: the key of its generators.

        Returns:
            uint8 [S, S, 3].
        """
        seed = np.frombuffer(draws.tobytes(), np.uint32)
        for number, (vary, strength) in enumerate(self._steps):
            if strength:
                image = vary(image, strength, np.random.default_rng([number, *seed]))
        return image

    @property
    def _steps(self) -> tuple[tuple[Callable, object], ...]:
        moves = (self.rotate, self.translate, self.shear)
        return (
            (_moved, any(moves) and moves),
            (_bent, self.elastic),
            (_augmented, self.randaugment[0] and self.randaugment),
            (_jittered, self.jitter),
            (_shifted, self.channel_shift),
            (_erased, self.erase),
        )


def _moved(image: np.ndarray, most: tuple[float, float, float], random) -> np.ndarray:
    """Rotates, shears and shifts; black outside of the image."""
    rotate, translate, shear = most
    angle, slant = np.radians(random.uniform(-1, 1, 2) * (rotate, shear))
    shift = random.uniform(-1, 1, 2) * translate * image.shape[0]
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = turn @ [[1, math.tan(slant)], [0, 1]]
    centre = np.full(2, (image.shape[0] - 1) / 2)
    offset = centre + shift - matrix @ centre
    return _warped(image, np.column_stack([matrix, offset]))


def _warped(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return cv2.warpAffine(image, matrix, image.shape[1::-1], flags=cv2.INTER_LINEAR)


def _bent(image: np.ndarray, strength: float, random) -> np.ndarray:
    """Moves every pixel by a smooth random field."""
    side = image.shape[0]
    field = random.uniform(-1, 1, (side, side, 2)).astype(np.float32)
    field = cv2.GaussianBlur(field, (0, 0), _SMOOTH * side)
    field *= strength * side / max(field.std(), 1e-12)
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).astype(np.float32)
    return cv2.remap(image, grid + field, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _augmented(image: np.ndarray, strength: tuple[int, float], random) -> np.ndarray:
    """Applies random operations, drawn with replacement."""
    count, magnitude = strength
    picture = Image.fromarray(image)
    for number in random.integers(len(OPERATIONS), size=count):
        sign = 1 if random.random() < 0.5 else -1
        picture = list(OPERATIONS.values())[number](picture, magnitude / LEVELS, sign)
    return np.asarray(picture)


def _enhanced(enhance: Callable) -> Callable:
    return lambda picture, part, sign: enhance(picture).enhance(1 + 0.9 * part * sign)


def _transformed(matrix: Callable) -> Callable:
    """An affine operation; `matrix` is `(part, side) -> six numbers`, as Pillow takes them."""

    def operation(picture: Image.Image, part: float, sign: int) -> Image.Image:
        return picture.transform(
            picture.size,
            Image.Transform.AFFINE,
            matrix(part * sign, picture.size[0]),
            Image.Resampling.BILINEAR,
        )

    return operation


# (picture, magnitude in 0..1, 1 or -1) -> picture; the ranges of the paper's code.
OPERATIONS = {
    "identity": lambda picture, part, sign: picture,
    "autocontrast": lambda picture, part, sign: ImageOps.autocontrast(picture),
    "equalize": lambda picture, part, sign: ImageOps.equalize(picture),
    "rotate": lambda picture, part, sign: picture.rotate(
        30 * part * sign, Image.Resampling.BILINEAR
    ),
    "solarize": lambda picture, part, sign: ImageOps.solarize(picture, 256 - round(256 * part)),
    "posterize": lambda picture, part, sign: ImageOps.posterize(picture, 8 - round(4 * part)),
    "colour": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
    "shear_x": _transformed(lambda part, side: (1, 0.3 * part, 0, 0, 1, 0)),
    "shear_y": _transformed(lambda part, side: (1, 0, 0, 0.3 * part, 1, 0)),
    "translate_x": _transformed(lambda part, side: (1, 0, 0.45 * part * side, 0, 1, 0)),
    "translate_y": _transformed(lambda part, side: (1, 0, 0, 0, 1, 0.45 * part * side)),
}


def _jittered(image: np.ndarray, strength: float, random) -> np.ndarray:
    picture = Image.fromarray(image)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhance(picture).enhance(random.uniform(1 - strength, 1 + strength))
    return np.asarray(picture)


def _shifted(image: np.ndarray, strength: float, random) -> np.ndarray:
    shift = np.round(random.uniform(-strength, strength, 3))
    return cv2.add(image, (*shift, 0))


def _erased(image: np.ndarray, probability: float, random) -> np.ndarray:
    """Paints over a rectangle; its area and aspect ratio are redrawn until it fits."""
    if random.random() >= probability:
        return image
    side = image.shape[0]
    while True:
        area = random.uniform(*_ERASED_AREA) * side * side
        aspect = math.exp(random.uniform(-1, 1) * math.log(1 / _ERASED_ASPECT))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if max(height, width) < side:
            break
    top, left = random.integers(side - height + 1), random.integers(side - width + 1)
    image = image.copy()
    image[top : top + height, left : left + width] = random.integers(0, 256, 3)
    return image
