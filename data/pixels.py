"""From one stored image to the pixels of a window of it, at the network's size.

Only what a window needs is decoded, and nothing is resized that already has its size.
"""

import functools
from collections.abc import Callable

import cv2
import numpy as np
import tensorflow as tf

# As every other decoder has it; TensorFlow's default is a coarser one.
_DCT = "INTEGER_ACCURATE"
# A part of a JPEG has other colours at its border than the whole (chroma is interpolated).
_JPEG_MARGIN = 2


def _open_jpeg(record):
    """Opens a JPEG of known size; reading a window of it decodes little more than that."""
    height, width = _stored_size(record)

    def read(window):
        corner = tf.maximum(window[:2] - _JPEG_MARGIN, 0)
        end = tf.minimum(window[:2] + window[2:] + _JPEG_MARGIN, tf.stack([height, width]))
        wide = tf.concat([corner, end - corner], axis=0)
        image = tf.io.decode_and_crop_jpeg(record["encoded"], wide, channels=3, dct_method=_DCT)
        return cut(image, tf.concat([window[:2] - corner, window[2:]], axis=0))

    return height, width, read


def _open_raw(record):
    """Opens stored pixels."""
    height, width = _stored_size(record)
    pixels = tf.reshape(tf.io.decode_raw(record["encoded"], tf.uint8), [height, width, 3])
    return height, width, functools.partial(cut, pixels)


def _open_mixed(record):
    """Opens any image that TensorFlow decodes, of unknown size, by decoding all of it."""
    encoded = record["encoded"]
    pixels = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method=_DCT),
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    height, width, _ = tf.unstack(tf.shape(pixels), num=3)
    return height, width, functools.partial(cut, pixels)


# How to open a record of each encoding: `record -> (height, width, read)`, int32 [] both, where
# `read(window int32 [4]) -> uint8 [h, w, 3]` gives a window (top, left, h, w) inside the image.
OPEN = {"jpeg": _open_jpeg, "raw": _open_raw, "mixed": _open_mixed}


def cut(image: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """A window (top, left, height, width) out of an image [H, W, 3]."""
    return tf.slice(image, tf.pad(window[:2], [[0, 1]]), tf.concat([window[2:], [3]], axis=0))


def read_padded(
    read: Callable, height: tf.Tensor, width: tf.Tensor, window: tf.Tensor
) -> tf.Tensor:
    """Reads a window which may reach outside the image; it is zero there.

    Args:
        read: As `OPEN` gives it, like height and width.
        height: int32 [].
        width: int32 [].
        window: int32 [4], not entirely outside.

    Returns:
        uint8 [h, w, 3].
    """
    first, last = window[:2], window[:2] + window[2:]
    corner = tf.maximum(first, 0)
    end = tf.minimum(last, tf.stack([height, width]))
    image = read(tf.concat([corner, end - corner], axis=0))
    return tf.pad(image, tf.pad(tf.stack([corner - first, last - end], axis=1), [[0, 1], [0, 0]]))


def resized(image: tf.Tensor, size: int) -> tf.Tensor:
    """An image at the network's size.

    Bilinear; with a filter as wide as the reduction where that is 2 or more, since bilinear alone
    skips pixels then.

    Args:
        image: uint8 [h, w, 3].
        size: int, S.

    Returns:
        uint8 [S, S, 3].
    """
    height, width, _ = tf.unstack(tf.shape(image), num=3)

    def bilinear(antialias):
        values = tf.image.resize(image, [size, size], antialias=antialias)
        return tf.cast(values + 0.5, tf.uint8)  # means of 0..255 need no clipping

    ways = [lambda: image, lambda: bilinear(False), lambda: bilinear(True)]
    differs = (height != size) | (width != size)
    reduced = tf.maximum(height, width) >= 2 * size
    way = tf.cast(differs, tf.int32) + tf.cast(differs & reduced, tf.int32)
    return tf.ensure_shape(tf.switch_case(way, ways), [size, size, 3])


def mirrored(images: tf.Tensor, mirror: tf.Tensor) -> tf.Tensor:
    """Mirrors some images left to right.

    Args:
        images: uint8 [..., S, S, 3].
        mirror: bool [...], which.

    Returns:
        uint8 [..., S, S, 3].
    """
    # OpenCV takes 5 us for an image, tf.reverse more than 100.
    flipped = tf.numpy_function(_flip, [images, mirror], tf.uint8, stateful=False)
    return tf.ensure_shape(flipped, images.shape)


def _flip(images, mirror):
    flipped = np.empty_like(images)
    for index in np.ndindex(mirror.shape):
        if mirror[index]:
            cv2.flip(images[index], 1, dst=flipped[index])
        else:
            flipped[index] = images[index]
    return flipped


def _stored_size(record):
    return tf.cast(record["height"], tf.int32), tf.cast(record["width"], tf.int32)
