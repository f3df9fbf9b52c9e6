"""Decodes and crops image files with TensorFlow operations only, for exported graphs.

An image is reduced as in a conversion, but not compressed again, and cropped as by `pixels.crop`;
or it is resized as by `data.images.resized`. They use OpenCV and Pillow to decode and resize, this
module TensorFlow, so pixels differ by a few levels.
TensorFlow ignores the EXIF orientation and reads JPEG, PNG, GIF and BMP only.
"""

import tensorflow as tf

from data.images import png
from data.images.decode import BITS, Storage
from data.images.resized import Resized
from data.pipeline import pixels, views


def centre_views(encoded: tf.Tensor, storage: Storage | Resized, size: int) -> tf.Tensor:
    """Returns the central views of image files.

    Args:
        encoded: Bytes of the files, string [B].
        storage: Storage format of the images that the network was trained on, or how it resizes
            images.
        size: Side of the views in pixels, S.

    Returns:
        Views, uint8 [B, S, S, 3].
    """
    return tf.map_fn(
        lambda one: _centre_view(one, storage, size),
        encoded,
        fn_output_signature=tf.TensorSpec([size, size, 3], tf.uint8),
    )


def _centre_view(encoded, storage, size):
    image = _stored(_decoded(encoded, storage.bits), storage)
    image = _window(image, views.windows(*_sides(image), size, crops=1)[0])
    factor = tf.maximum(1, tf.minimum(*_sides(image)) // size)
    reduced_sides = tf.stack(_sides(image)) // factor
    whole = image[: factor * reduced_sides[0], : factor * reduced_sides[1]]
    image = tf.cond(factor > 1, lambda: _resized(whole, reduced_sides, "area"), lambda: image)
    return tf.ensure_shape(_resized(image, [size, size], "bilinear"), [size, size, 3])


def _decoded(encoded, bits):
    """Decodes like `decode.decode`; the header shows whether a PNG has 16 bits per channel."""
    if bits == max(BITS):
        return pixels.decode_image(encoded)
    is_deep = tf.strings.substr(encoded, 0, 4) == b"\x89PNG"
    is_deep &= tf.strings.substr(encoded, png.BIT_DEPTH_AT, 1) == b"\x10"
    return tf.cond(is_deep, lambda: _scaled(encoded, bits), lambda: pixels.decode_image(encoded))


def _scaled(encoded, bits):
    samples = tf.cast(tf.io.decode_png(encoded, channels=3, dtype=tf.uint16), tf.int32)
    upper = tf.bitwise.right_shift(tf.minimum(samples, 2**bits - 1), bits - 8)
    return tf.cast(upper, tf.uint8)


def _stored(image, storage):
    """Reduces and crops an image as a conversion does before it writes a record, or resizes it."""
    short_side = storage.short_side
    if isinstance(storage, Resized):
        sides = tf.stack(_sides(image))
        sides = sides * short_side // tf.reduce_min(sides)
        return _resized(image, sides, storage.interpolation, antialias=True)
    if short_side:
        is_larger = tf.minimum(*_sides(image)) > short_side
        image = tf.cond(is_larger, lambda: _reduced(image, short_side), lambda: image)
    if storage.encoding == "raw":
        height, width = _sides(image)
        side = tf.minimum(height, width)
        image = _window(image, tf.stack([(height - side) // 2, (width - side) // 2, side, side]))
    return image


def _reduced(image, short_side):
    sides = tf.cast(tf.stack(_sides(image)), tf.float64)
    sides = tf.cast(tf.round(sides * short_side / tf.reduce_min(sides)), tf.int32)
    return _resized(image, tf.maximum(sides, short_side), "area")


def _resized(image, sides, method, antialias=False):
    resized = tf.image.resize(image, sides, method, antialias=antialias)
    return tf.saturate_cast(tf.round(resized), tf.uint8)


def _window(image, window):
    top, left, height, width = tf.unstack(window)
    return image[top : top + height, left : left + width]


def _sides(image):
    shape = tf.shape(image)
    return shape[0], shape[1]
