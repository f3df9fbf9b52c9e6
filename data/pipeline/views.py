"""Test views of an image: the centre (and its mirror image), five crops, ten crops.

Sources: ten crops (four corners and the centre, each with its mirror image) are Krizhevsky,
Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012,
section 4.1. Departure: the paper cuts the central 256 x 256 square out first; here the corners
are those of the whole stored image.
"""

import tensorflow as tf

# Top and left edge of a view, as fractions of the image's length minus the view's.
_CENTRE = (0.5, 0.5)
_CORNERS = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))
_FIVE = (*_CORNERS, _CENTRE)

# Number of views -> (top, left, mirrored) of each.
VIEWS = {
    1: ((*_CENTRE, False),),
    2: ((*_CENTRE, False), (*_CENTRE, True)),
    5: tuple((*place, False) for place in _FIVE),
    10: tuple((*place, mirrored) for mirrored in (False, True) for place in _FIVE),
}


def crop_side(shorter: tf.Tensor, size: int) -> tf.Tensor:
    """The side of the square that becomes the network's input, in stored pixels.

    Training and test use squares of the same size, so that both see objects at the same scale: 7/8
    of the shorter side (224 of 256), more if that would mean enlarging, at most the whole image.

    Args:
        shorter: Shorter side of the stored images, int32 [...].
        size: Side of the network's input.

    Returns:
        int32 [...].
    """
    return tf.minimum(shorter, tf.maximum(size, (7 * shorter + 4) // 8))


def windows(height: tf.Tensor, width: tf.Tensor, size: int, crops: int) -> tf.Tensor:
    """The views of images as windows into them.

    Args:
        height: Heights of the stored images, int32 [...].
        width: Widths of the stored images, int32 [...].
        size: Side of the network's input.
        crops: Number of views, a key of `VIEWS`.

    Returns:
        int32 [..., V, 4]: top, left, height, width of every view, inside the image.
    """
    top, left, _ = (tf.constant(column) for column in zip(*VIEWS[crops], strict=True))
    side = crop_side(tf.minimum(height, width), size)

    def placed(length, fraction):
        room = tf.cast(length - side, tf.float32)[..., tf.newaxis]
        return tf.cast(room * fraction, tf.int32)

    tops = placed(height, top)
    sides = tf.broadcast_to(side[..., tf.newaxis], tf.shape(tops))
    return tf.stack([tops, placed(width, left), sides, sides], axis=-1)


def mirrored(crops: int) -> tf.Tensor:
    """Which of the views are mirrored: bool [V]."""
    return tf.constant([flip for _, _, flip in VIEWS[crops]])
