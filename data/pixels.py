"""Operations on pixels: decode, cut, resize, mirror."""

from collections.abc import Sequence

import cv2
import numpy as np
import tensorflow as tf

from data import callbacks

# As every other decoder has it; TensorFlow's default is a coarser one.
DCT = "INTEGER_ACCURATE"
_SMALL = 1 << 15  # bytes of an image; a call takes longer than copying it
_ALIGNMENT = 64  # bytes; TensorFlow copies what is aligned otherwise


def decoded(encoded: tf.Tensor) -> tf.Tensor:
    """The pixels of a whole image of any kind that TensorFlow decodes.

    Args:
        encoded: string [], a JPEG, PNG, GIF or BMP file.

    Returns:
        uint8 [H, W, 3].
    """
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method=DCT),
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )


def slices(windows: tf.Tensor) -> tf.Tensor:
    """Windows int32 [..., 4] (top, left, height, width) as `cut` takes them: int32 [..., 2, 3]."""
    corner, shape = windows[..., :2], windows[..., 2:]
    corner = tf.concat([corner, tf.zeros_like(corner[..., :1])], axis=-1)
    shape = tf.concat([shape, 3 * tf.ones_like(shape[..., :1])], axis=-1)
    return tf.stack([corner, shape], axis=-2)


def cut(image: tf.Tensor, where: tf.Tensor) -> tf.Tensor:
    """A part of an image [H, W, 3]: the window that `slices` made to int32 [2, 3]."""
    return tf.slice(image, *tf.unstack(where))


def clipped(window: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """What of windows lies inside of their images, and how much of them lies outside.

    Args:
        window: int32 [..., 4]: top, left, height, width; not entirely outside.
        height: int32 [...], of the image.
        width: int32 [...].

    Returns:
        int32 [..., 4], the part inside, and int32 [..., 2, 2]: rows before and after it, columns
        before and after it.
    """
    first, last = window[..., :2], window[..., :2] + window[..., 2:]
    corner, end = tf.maximum(first, 0), tf.minimum(last, tf.stack([height, width], axis=-1))
    inside = tf.concat([corner, end - corner], axis=-1)
    return inside, tf.stack([corner - first, last - end], axis=-1)


def bordered(image: tf.Tensor, border: tf.Tensor) -> tf.Tensor:
    """An image [H, W, 3] with zeros around it, as many as `border` int32 [2, 2] says."""
    return tf.pad(image, tf.pad(border, [[0, 1], [0, 0]]))


def resized(image: tf.Tensor, size: int) -> tf.Tensor:
    """An image at the network's size, by `resize` if it has another.

    Args:
        image: uint8 [h, w, 3].
        size: int, S.

    Returns:
        uint8 [S, S, 3].
    """

    def other():
        return callbacks.call(
            lambda pixels: resize(pixels, empty([size, size, 3])), [image], tf.uint8
        )

    differs = tf.reduce_any(tf.shape(image)[:2] != size)
    return tf.ensure_shape(tf.cond(differs, other, lambda: image), [size, size, 3])


def resize(image: np.ndarray, result: np.ndarray) -> np.ndarray:
    """Resizes an image into another, which is returned.

    Bilinear; where both sides are reduced to half or less, after the means of squares of 2 x 2,
    3 x 3, ... pixels, since bilinear alone skips pixels then. OpenCV's, which takes a ninth of the
    time of TensorFlow's; its mean over any other area takes ten times as long as both steps.

    Args:
        image: uint8 [h, w, 3].
        result: uint8 [S, S, 3], is filled.
    """
    size = len(result)
    times = min(image.shape[:2]) // size
    if times > 1:
        height, width = (side // times for side in image.shape[:2])
        whole = image[: times * height, : times * width]
        image = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (size, size), dst=result, interpolation=cv2.INTER_LINEAR)


def mirrored(images: tf.Tensor, which: tf.Tensor) -> tf.Tensor:
    """`mirror` in a graph: the first argument is of no use afterwards."""
    # OpenCV takes 5 us for an image, tf.reverse more than 100.
    return tf.ensure_shape(callbacks.call(mirror, [images, which], tf.uint8), images.shape)


def mirror(images: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Mirrors some images left to right, in place.

    Args:
        images: uint8 [..., S, S, 3].
        which: bool [...].

    Returns:
        The first argument.
    """
    if np.prod(images.shape[-3:]) < _SMALL:  # all in one call, as one tall picture
        chosen = images[which]
        if len(chosen):
            tall = cv2.flip(chosen.reshape([-1, *images.shape[-2:]]), 1)
            images[which] = tall.reshape(chosen.shape)
        return images
    for index in np.argwhere(which):
        image = images[tuple(index)]
        cv2.flip(image, 1, dst=image)
    return images


def empty(shape: Sequence[int]) -> np.ndarray:
    """Memory for uint8 [...] that TensorFlow takes over without a copy."""
    count = int(np.prod(shape))
    data = np.empty(count + _ALIGNMENT, np.uint8)
    start = -data.ctypes.data % _ALIGNMENT
    return data[start : start + count].reshape(shape)
