"""Augmentation policies: random crop windows, warps and colours of training images.

Every operation is a pure function of its arguments: its random numbers, uniform in [0, 1), are the
argument `draws`. The input pipeline crops the policy's window out of the stored image, mirrors it
and warps it, as uint8. Colour is changed on the device, batch by batch, as float32 in 0..255.

Sources: `alexnet` is Krizhevsky, Sutskever, Hinton, NIPS 2012, section 4.1; `cifar` is He et al.,
arXiv:1512.03385, section 4.2; `inception` is Szegedy et al., arXiv:1409.4842, section 6, with the
colour jitter of fb.resnet.torch; `airbench` is K. Jordan, arXiv:2404.00498, sections 3.1 and 3.6.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from data.pipeline import views
from runtime import randomness

GEOMETRY_DRAWS = 4  # random numbers per image for its window and warp
COLOUR_DRAWS = 3  # random numbers per image for its colour

_CIFAR_PADDING = 4 / 32  # of the side, on each side
_AIRBENCH_PADDING = 2 / 32
_INCEPTION_AREA = 0.08  # minimum, as a fraction of the image's area
_INCEPTION_ASPECT = 4 / 3  # maximum aspect ratio; the minimum is its inverse
_DIGIT_ANGLE = math.radians(12)  # maximum
_DIGIT_SHIFT = 0.1  # maximum, as a fraction of the side

# Principal components of ImageNet's RGB values as columns (rows: R, G, B), and the variances along
# them for values in 0..1, as published with fb.resnet.torch.
_PCA_AXES = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
_PCA_VARIANCES = (0.2175, 0.0188, 0.0045)
_PCA_STD = 0.1  # standard deviation of the multiples of each component
_JITTER = 0.4  # maximum change of the factors from 1
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class Policy:
    """How training images are varied.

    Attributes:
        window: `(height, width, size, draws) -> int32 [..., 4]`: top, left, height, width of the
            crop window, which is black outside of the image. Heights and widths of the stored
            images are int32 [...], `size` is the side of the network's input, draws are float32
            [..., GEOMETRY_DRAWS or more].
        warp: None, or `(images, draws) -> images` on uint8 [B, S, S, 3] and float32
            [B, GEOMETRY_DRAWS or more], after mirroring.
        vary: None, or `(image, draws) -> image` on NumPy arrays uint8 [S, S, 3] and float32 [D],
            after the warp.
        mirror: Whether a random half of the images is mirrored left to right.
        alternates: Whether the other half is mirrored in the next epoch, so that an image is
            mirrored in every second one.
        reflects: Whether the image is reflected at its border where the window reaches beyond it,
            and not black there.
        colour: None, or `(images, draws) -> images` on float32 [B, S, S, 3] in 0..255 (results may
            leave the range) and float32 [B, COLOUR_DRAWS].
    """

    window: Callable
    warp: Callable | None = None
    vary: Callable | None = None
    mirror: bool = True
    alternates: bool = False
    reflects: bool = False
    colour: Callable | None = None

    @property
    def is_fixed(self) -> bool:
        """Whether every image looks the same in all epochs."""
        varies = self.mirror or self.warp or self.vary or self.colour
        return self.window is centre_window and not varies


def centre_window(height: tf.Tensor, width: tf.Tensor, size: int, draws: tf.Tensor) -> tf.Tensor:
    """The central square, as in the single test view."""
    del draws
    return views.windows(height, width, size, crops=1)[..., 0, :]


def random_window(height: tf.Tensor, width: tf.Tensor, size: int, draws: tf.Tensor) -> tf.Tensor:
    """A square of the same size as the test view, anywhere in the image."""
    side = views.crop_side(tf.minimum(height, width), size)
    top = _uniform_int(height - side + 1, draws[..., 0])
    left = _uniform_int(width - side + 1, draws[..., 1])
    return tf.stack([top, left, side, side], axis=-1)


def scaled_window(low: float, high: float, full: int) -> Callable:
    """Returns a window function for VGG's scale jittering: squares of random size and position.

    K. Simonyan and A. Zisserman, arXiv:1409.1556, section 3.1: the image is resized so that its
    shorter side has `low` to `high` pixels, and a square of `full` pixels is cropped from it. Here
    the window is the same part of the stored image, for network inputs of any size.
    """

    def window(height, width, size, draws):
        del size
        scaled = low + draws[..., 2] * (high - low)
        shorter = tf.minimum(height, width)
        side = tf.cast(tf.round(tf.cast(shorter, tf.float32) * full / scaled), tf.int32)
        side = tf.clip_by_value(side, 1, shorter)
        top, left = (
            _uniform_int(length - side + 1, draws[..., axis])
            for axis, length in enumerate((height, width))
        )
        return tf.stack([top, left, side, side], axis=-1)

    return window


def padded_window(fraction: float) -> Callable:
    """Returns a window function for the central square, shifted also beyond the image's border.

    The shifts are uniform, vertically and horizontally up to a fraction of the square's side.
    """

    def window(height, width, size, draws):
        top, left, side, _ = tf.unstack(centre_window(height, width, size, draws), axis=-1)
        padding = tf.cast(tf.round(fraction * tf.cast(side, tf.float32)), tf.int32)
        top += _uniform_int(2 * padding + 1, draws[..., 0]) - padding
        left += _uniform_int(2 * padding + 1, draws[..., 1]) - padding
        return tf.stack([top, left, side, side], axis=-1)

    return window


def resized_window(height: tf.Tensor, width: tf.Tensor, size: int, draws: tf.Tensor) -> tf.Tensor:
    """A rectangle with 8 to 100 % of the image's area and an aspect ratio of 3/4 to 4/3.

    Departure: the usual implementation draws area and ratio until the rectangle fits. Here the
    ratio is drawn first (log-uniform), then the area from 8 % up to the largest that fits.
    """
    del size
    image_height, image_width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    ratio = tf.exp((2 * draws[..., 0] - 1) * math.log(_INCEPTION_ASPECT))
    area = image_height * image_width
    largest = tf.minimum(area, tf.minimum(image_width**2 / ratio, image_height**2 * ratio))
    smallest = tf.minimum(_INCEPTION_AREA * area, largest)
    area = smallest + draws[..., 1] * (largest - smallest)
    crop_height = tf.clip_by_value(_rounded(tf.sqrt(area / ratio)), 1, height)
    crop_width = tf.clip_by_value(_rounded(tf.sqrt(area * ratio)), 1, width)
    top = _uniform_int(height - crop_height + 1, draws[..., 2])
    left = _uniform_int(width - crop_width + 1, draws[..., 3])
    return tf.stack([top, left, crop_height, crop_width], axis=-1)


def small_warp(images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Rotates square images by up to 12 degrees and shifts them by up to a tenth of their side.

    Bilinear interpolation; pixels outside of the image are black.
    """
    side = tf.cast(tf.shape(images)[1], tf.float32)
    angle, right, down, _ = tf.unstack(2 * draws[:, :GEOMETRY_DRAWS] - 1, axis=1)
    cos, sin = tf.cos(_DIGIT_ANGLE * angle), tf.sin(_DIGIT_ANGLE * angle)
    centre = (side - 1) / 2
    x = centre - cos * centre + sin * centre + _DIGIT_SHIFT * side * right
    y = centre - sin * centre - cos * centre + _DIGIT_SHIFT * side * down
    zero = tf.zeros_like(cos)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([cos, -sin, x, sin, cos, y, zero, zero], axis=1),
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def pca_noise(images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Adds random multiples of the principal components of ImageNet's colours to every image.

    Krizhevsky et al., section 4.1: the same multiple of each component is added to all pixels of an
    image: the variance along the component, times a normal deviate of standard deviation 0.1.

    Args:
        images: float32 [B, S, S, 3], RGB in 0..255.
        draws: float32 [B, COLOUR_DRAWS], uniform in [0, 1).

    Returns:
        float32 [B, S, S, 3]; values may leave 0..255.
    """
    # Draws are multiples of 2^-23; adding half of that avoids ndtri(0), which is infinite.
    alpha = _PCA_STD * tf.math.ndtri(draws + 2.0**-24)
    shift = 255 * tf.linalg.matvec(tf.constant(_PCA_AXES), alpha * tf.constant(_PCA_VARIANCES))
    return images + shift[:, tf.newaxis, tf.newaxis, :]


def colour_jitter(images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Changes brightness, then contrast, then saturation, each by a random factor in 0.6..1.4.

    As in fb.resnet.torch, but always in this order and without clipping. Contrast scales the
    differences from the image's mean grey value, saturation the differences from a pixel's own.

    Args:
        images: float32 [B, S, S, 3], RGB in 0..255.
        draws: float32 [B, COLOUR_DRAWS], uniform in [0, 1).

    Returns:
        float32 [B, S, S, 3]; values may leave 0..255.
    """
    factors = 1 + _JITTER * (2 * draws - 1)
    brightness, contrast, saturation = tf.unstack(factors[:, :, None, None, None], axis=1)
    images *= brightness
    images = _blended(images, tf.reduce_mean(_grey(images), axis=(1, 2), keepdims=True), contrast)
    return _blended(images, _grey(images), saturation)


POLICIES = {
    "none": Policy(centre_window, mirror=False),
    "alexnet": Policy(random_window, colour=pca_noise),
    "cifar": Policy(padded_window(_CIFAR_PADDING)),
    "cifar_reflected": Policy(padded_window(_CIFAR_PADDING), reflects=True),
    "airbench": Policy(padded_window(_AIRBENCH_PADDING), alternates=True, reflects=True),
    "inception": Policy(resized_window, colour=colour_jitter),
    "digits": Policy(centre_window, warp=small_warp, mirror=False),
}


def colour_draws(seed: int, step: tf.Tensor | int, batch_size: int) -> tf.Tensor:
    """Draws the random numbers for the colours of a global batch.

    Args:
        seed: Seed of the run.
        step: Optimizer updates done, int64 [].
        batch_size: Number of images in the global batch; each replica uses its rows.

    Returns:
        float32 [batch_size, COLOUR_DRAWS], uniform in [0, 1), the same on every device.
    """
    key = tf.stack([tf.cast(seed, tf.int64), tf.cast(step, tf.int64)])
    key = tf.random.experimental.stateless_fold_in(key, randomness.COLOUR, alg="philox")
    return tf.random.stateless_uniform([batch_size, COLOUR_DRAWS], key, alg="philox")


def _uniform_int(limit, draws):
    """Converts draws in [0, 1) to integers in 0..limit - 1."""
    return tf.cast(tf.cast(limit, tf.float32) * draws, tf.int32)


def _rounded(values):
    return tf.cast(tf.round(values), tf.int32)


def _grey(images):
    return tf.reduce_sum(images * tf.constant(_LUMA), axis=-1, keepdims=True)


def _blended(images, others, factor):
    """Scales the difference of images from others by a factor."""
    return others + factor * (images - others)
