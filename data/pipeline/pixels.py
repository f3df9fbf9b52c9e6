"""Operations on pixels: decode, cut, resize, mirror."""

from collections.abc import Sequence

import cv2
import numpy as np
import tensorflow as tf

from data.images import decode
from data.images.decode import Stored
from data.pipeline import buffers
from data.shards import records

# The method of all other decoders; TensorFlow's default is coarser.
DCT = "INTEGER_ACCURATE"
_SMALL = 1 << 15  # bytes of an image that is copied faster than a function is called


def decoded(encoded: tf.Tensor) -> tf.Tensor:
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


def of_raw(encoded: bytes, height: int, width: int) -> np.ndarray:
    """The pixels of a RAW record, uint8 [height, width, 3]; no copy.

    Raises:
        ValueError: If the record has another size.
    """
    return np.frombuffer(encoded, np.uint8).reshape([height, width, 3])


def of_record(record: dict[str, tf.Tensor]) -> np.ndarray:
    """The pixels of a record as they were stored.

    Args:
        record: One record, from `records.parse`.

    Returns:
        uint8 [H, W, 3].
    """
    encoded = record["encoded"]
    if record["format"].numpy() == records.RAW:
        return of_raw(encoded.numpy(), int(record["height"]), int(record["width"]))
    return decoded(encoded).numpy()


def of_stored(image: Stored) -> np.ndarray:
    """The pixels of an image as a conversion would write it, uint8 [H, W, 3]."""
    if image.format != "RAW":
        return decode.decode_plain(image.encoded)
    return of_raw(image.encoded, image.height, image.width)


def cut(
    images: Sequence[np.ndarray], windows: np.ndarray, mirrored: np.ndarray, size: int
) -> np.ndarray:
    """Cuts windows out of images, black outside of the image; resizes and mirrors them.

    Args:
        images: b images uint8 [H, W, 3] of any size.
        windows: int32 [b, V, 4]: top, left, height, width, not entirely outside of the image.
            Windows of another size than S are resized.
        mirrored: Whether to mirror each window, bool [b, V].
        size: Side of the result in pixels, S.

    Returns:
        uint8 [b, V, S, S, 3].
    """
    result = buffers.empty([*mirrored.shape, size, size, 3])
    shapes = np.array([image.shape[:2] for image in images])[:, np.newaxis]
    first, last = windows[..., :2], windows[..., :2] + windows[..., 2:]
    begin, end = np.maximum(first, 0), np.minimum(last, shapes)
    bounds = np.concatenate([begin, end, begin - first, last - end], axis=-1).tolist()
    for image, parts, of_image in zip(images, result, bounds, strict=True):
        for part, (top, left, bottom, right, *border) in zip(parts, of_image, strict=True):
            inside = image[top:bottom, left:right]
            if any(border):
                above, before, below, after = border
                sides = (above, below, before, after)
                inside = cv2.copyMakeBorder(inside, *sides, cv2.BORDER_CONSTANT)
            if inside.shape == part.shape:
                part[...] = inside
            else:
                resize(inside, part)
    return mirror(result, mirrored)


def resize(image: np.ndarray, result: np.ndarray) -> np.ndarray:
    """Resizes an image into `result`, which is returned.

    Bilinear; if both sides are reduced to half or less, squares of 2 x 2, 3 x 3, ... pixels are
    averaged first, because bilinear interpolation alone would skip pixels. OpenCV takes a ninth of
    TensorFlow's time; its average over any other area takes ten times as long as both steps.

    Args:
        image: uint8 [h, w, 3].
        result: uint8 [S, S, 3], to be filled.
    """
    size = len(result)
    times = min(image.shape[:2]) // size
    if times > 1:
        height, width = (side // times for side in image.shape[:2])
        whole = image[: times * height, : times * width]
        image = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (size, size), dst=result, interpolation=cv2.INTER_LINEAR)


def mirror(images: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Mirrors images left to right, in place.

    Args:
        images: uint8 [..., S, S, 3].
        which: Whether to mirror each image, bool [...].

    Returns:
        `images`.
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
