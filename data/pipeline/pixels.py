"""Operations on pixels: decode, crop, resize, mirror."""

from collections.abc import Sequence

import cv2
import numpy as np
import tensorflow as tf

from data.images import decode
from data.images.decode import Stored
from data.pipeline import buffers
from data.shards import records

DCT = "INTEGER_ACCURATE"  # as all other decoders; TensorFlow's default is less accurate
_SMALL_BYTES = 1 << 15  # an image of fewer is copied in less time than a call of OpenCV takes


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a whole image file with TensorFlow.

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


def from_raw(encoded: bytes, height: int, width: int) -> np.ndarray:
    """Returns the pixels of a RAW record, uint8 [height, width, 3], without a copy.

    Raises:
        ValueError: If the record has another size.
    """
    return np.frombuffer(encoded, np.uint8).reshape([height, width, 3])


def from_record(record: dict[str, tf.Tensor]) -> np.ndarray:
    """Decodes a record of any format.

    Args:
        record: One record, from `records.parse`.

    Returns:
        uint8 [H, W, 3].
    """
    encoded = record["encoded"]
    if record["format"].numpy() == records.RAW:
        return from_raw(encoded.numpy(), int(record["height"]), int(record["width"]))
    return decode_image(encoded).numpy()


def from_stored(image: Stored) -> np.ndarray:
    """Decodes an image in the form in which a conversion would store it, uint8 [H, W, 3]."""
    if image.format != "RAW":
        return decode.decode_plain(image.encoded)
    return from_raw(image.encoded, image.height, image.width)


def crop(
    images: Sequence[np.ndarray],
    windows: np.ndarray,
    mirrored: np.ndarray,
    size: int,
    *,
    reflects: bool = False,
) -> np.ndarray:
    """Crops windows out of images, resizes and mirrors them.

    Args:
        images: b images uint8 [H, W, 3] of any size.
        windows: int32 [b, V, 4]: top, left, height, width in pixels. A window may reach beyond its
            image, but must not lie entirely outside of it.
        mirrored: Whether to mirror each window, bool [b, V].
        size: Side of the result in pixels, S; windows of any other size are resized.
        reflects: Whether the image is reflected at its border, without repeating the border's
            pixels, where a window reaches beyond it (default: black).

    Returns:
        uint8 [b, V, S, S, 3].
    """
    beyond = cv2.BORDER_REFLECT_101 if reflects else cv2.BORDER_CONSTANT
    result = buffers.empty([*mirrored.shape, size, size, 3])
    shapes = np.array([image.shape[:2] for image in images])[:, np.newaxis]
    begin, end = windows[..., :2], windows[..., :2] + windows[..., 2:]
    first, last = np.maximum(begin, 0), np.minimum(end, shapes)  # inside the image
    bounds = np.concatenate([first, last, first - begin, end - last], axis=-1).tolist()
    for image, crops, bounds_of_image in zip(images, result, bounds, strict=True):
        for target, (top, left, bottom, right, *border) in zip(crops, bounds_of_image, strict=True):
            window = image[top:bottom, left:right]
            if any(border):
                above, before, below, after = border
                sides = (above, below, before, after)
                window = cv2.copyMakeBorder(window, *sides, beyond)
            if window.shape == target.shape:
                target[...] = window
            else:
                resize(window, target)
    return mirror(result, mirrored)


def resize(image: np.ndarray, result: np.ndarray) -> np.ndarray:
    """Resizes an image into `result`, and returns that.

    Bilinear. If both sides shrink to half or less, squares of 2 x 2, 3 x 3, ... pixels are averaged
    first, because bilinear interpolation alone would skip pixels. OpenCV takes a ninth of
    TensorFlow's time. Its INTER_AREA with a factor that is no integer would replace both steps, but
    takes ten times as long.

    Args:
        image: uint8 [h, w, 3].
        result: uint8 [S, S, 3], to be filled.
    """
    size = len(result)
    factor = min(image.shape[:2]) // size
    if factor > 1:
        height, width = (side // factor for side in image.shape[:2])
        divisible = image[: factor * height, : factor * width]
        image = cv2.resize(divisible, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (size, size), dst=result, interpolation=cv2.INTER_LINEAR)


def mirror(images: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Mirrors images left to right, in place.

    Args:
        images: uint8 [..., S, S, 3].
        which: Whether to mirror each image, bool [...].

    Returns:
        `images`.
    """
    if np.prod(images.shape[-3:]) < _SMALL_BYTES:  # all in one call, as one tall image
        chosen = images[which]
        if len(chosen):
            tall = cv2.flip(chosen.reshape([-1, *images.shape[-2:]]), 1)
            images[which] = tall.reshape(chosen.shape)
        return images
    for index in np.argwhere(which):
        image = images[tuple(index)]
        cv2.flip(image, 1, dst=image)
    return images
