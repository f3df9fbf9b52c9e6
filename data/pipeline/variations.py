"""Variations of single training images on the CPU, with OpenCV and Pillow, in addition to a policy.

Each variation has a random generator of its own, whose key is its number and the image's draws. So
nothing keeps a state, and no variation depends on which others are on.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

LEVELS = 10  # largest magnitude of RandAugment
_ELASTIC_STD = 0.08  # of the Gaussian that smooths elastic displacements, as a fraction of the side
# Range of the erased part of the image's area: Zhong et al., section 3.2, but timm's upper limit.
_ERASED_AREA = (0.02, 1 / 3)
_ERASED_ASPECT = 0.3  # minimum aspect ratio of the erased part; the maximum is its inverse


@dataclass(frozen=True)
class Variations:
    """Strengths of the variations; 0 turns one off.

    Attributes:
        rotate: Maximum angle in degrees, either way.
        translate: Maximum shift as a fraction of the side, horizontally and vertically.
        shear: Maximum angle in degrees, either way.
        elastic: Typical displacement, as a fraction of the side (P. Simard et al., ICDAR 2003).
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
            draws: Random numbers of this image, float32 [D]: part of the generators' keys.

        Returns:
            uint8 [S, S, 3].
        """
        seed = np.frombuffer(draws.tobytes(), np.uint32)
        for number, (vary, strength) in enumerate(self._variations):
            if strength:
                image = vary(image, strength, np.random.default_rng([number, *seed]))
        return image

    @property
    def _variations(self) -> tuple[tuple[Callable, object], ...]:
        """Pairs of a function and its strength, false if it is off; the order decides the keys."""
        moves = (self.rotate, self.translate, self.shear)
        return (
            (_affine, any(moves) and moves),
            (_elastic, self.elastic),
            (_randaugment, self.randaugment[0] and self.randaugment),
            (_jitter, self.jitter),
            (_channel_shift, self.channel_shift),
            (_erase, self.erase),
        )


def _affine(image: np.ndarray, strength: tuple[float, float, float], random) -> np.ndarray:
    """Rotates, shears and shifts; pixels outside of the image are black."""
    rotate, translate, shear = strength
    angle, slant = np.radians(random.uniform(-1, 1, 2) * (rotate, shear))
    shift = random.uniform(-1, 1, 2) * translate * image.shape[0]
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = turn @ [[1, math.tan(slant)], [0, 1]]
    centre = np.full(2, (image.shape[0] - 1) / 2)
    offset = centre + shift - matrix @ centre
    return _warped(image, np.column_stack([matrix, offset]))


def _warped(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return cv2.warpAffine(image, matrix, image.shape[1::-1], flags=cv2.INTER_LINEAR)


def _elastic(image: np.ndarray, strength: float, random) -> np.ndarray:
    """Displaces pixels by a smooth random field."""
    side = image.shape[0]
    field = random.uniform(-1, 1, (side, side, 2)).astype(np.float32)
    field = cv2.GaussianBlur(field, (0, 0), _ELASTIC_STD * side)
    field *= strength * side / max(field.std(), 1e-12)
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).astype(np.float32)
    return cv2.remap(image, grid + field, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _randaugment(image: np.ndarray, strength: tuple[int, float], random) -> np.ndarray:
    """Applies random operations, drawn with replacement."""
    count, magnitude = strength
    picture = Image.fromarray(image)
    for number in random.integers(len(OPERATIONS), size=count):
        sign = 1 if random.random() < 0.5 else -1
        picture = list(OPERATIONS.values())[number](picture, magnitude / LEVELS, sign)
    return np.asarray(picture)


def _enhanced(enhance: Callable) -> Callable:
    return lambda picture, level, sign: enhance(picture).enhance(1 + 0.9 * level * sign)


def _transformed(matrix: Callable) -> Callable:
    """Returns an affine operation; `matrix` is `(level, side) -> six numbers` in Pillow's order."""

    def operation(picture: Image.Image, level: float, sign: int) -> Image.Image:
        return picture.transform(
            picture.size,
            Image.Transform.AFFINE,
            matrix(level * sign, picture.size[0]),
            Image.Resampling.BILINEAR,
        )

    return operation


# (picture, level in 0..1, sign 1 or -1) -> picture; the ranges of the paper's code.
OPERATIONS = {
    "identity": lambda picture, level, sign: picture,
    "autocontrast": lambda picture, level, sign: ImageOps.autocontrast(picture),
    "equalize": lambda picture, level, sign: ImageOps.equalize(picture),
    "rotate": lambda picture, level, sign: picture.rotate(
        30 * level * sign, Image.Resampling.BILINEAR
    ),
    "solarize": lambda picture, level, sign: ImageOps.solarize(picture, 256 - round(256 * level)),
    "posterize": lambda picture, level, sign: ImageOps.posterize(picture, 8 - round(4 * level)),
    "colour": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
    "shear_x": _transformed(lambda level, side: (1, 0.3 * level, 0, 0, 1, 0)),
    "shear_y": _transformed(lambda level, side: (1, 0, 0, 0.3 * level, 1, 0)),
    "translate_x": _transformed(lambda level, side: (1, 0, 0.45 * level * side, 0, 1, 0)),
    "translate_y": _transformed(lambda level, side: (1, 0, 0, 0, 1, 0.45 * level * side)),
}


def _jitter(image: np.ndarray, strength: float, random) -> np.ndarray:
    picture = Image.fromarray(image)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhance(picture).enhance(random.uniform(1 - strength, 1 + strength))
    return np.asarray(picture)


def _channel_shift(image: np.ndarray, strength: float, random) -> np.ndarray:
    shift = np.round(random.uniform(-strength, strength, 3))
    return cv2.add(image, (*shift, 0))


def _erase(image: np.ndarray, probability: float, random) -> np.ndarray:
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
