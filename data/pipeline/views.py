"""Test views of an image: the centre (and its mirror image), moved views, five and ten crops.

Sources: ten crops (four corners and the centre, each with its mirror image) are Krizhevsky,
Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012,
section 4.1. Departure: the paper cuts the central 256 x 256 square out first; here the corners
are those of the whole stored image. Six views are Keller Jordan, arXiv:2404.00498, section 3.4: the
centre, and the same moved by one pixel of 32 to the upper left and to the lower right, each with
its mirror image. Departures: he moves into reflected borders and averages logits; here a window
that leaves the image is black there, and probabilities are averaged, as for all views.
"""

from typing import NamedTuple

import tensorflow as tf

_MOVE = 1 / 32  # of the view's side; at least one pixel


class View(NamedTuple):
    """One of the views of an image.

    Attributes:
        top: Top edge, as a fraction of the image's height minus the view's.
        left: Left edge, as a fraction of the image's width minus the view's.
        mirrored: Whether the view is mirrored left to right.
        moved: Direction in which it is moved, to the right and down; -1: to the left and up.
        weight: Weight in the average of the predictions, relative to the other views.
    """

    top: float
    left: float
    mirrored: bool = False
    moved: int = 0
    weight: float = 1.0


_CENTRE = View(0.5, 0.5)
_CORNERS = (View(0.0, 0.0), View(0.0, 1.0), View(1.0, 0.0), View(1.0, 1.0))
_FIVE = (*_CORNERS, _CENTRE)
_SIX = (_CENTRE._replace(weight=2.0), _CENTRE._replace(moved=-1), _CENTRE._replace(moved=1))


def _both(views: tuple[View, ...]) -> tuple[View, ...]:
    """Returns views and their mirror images."""
    return (*views, *(view._replace(mirrored=True) for view in views))


# The views by their number.
VIEWS = {
    1: (_CENTRE,),
    2: _both((_CENTRE,)),
    5: _FIVE,
    6: _both(_SIX),
    10: _both(_FIVE),
}
HELP = (
    "Views of each image whose predictions are averaged; 2: the centre crop and its mirror image; "
    "5: the corners and the centre; 6: as 2, and both moved by 1/32 of their side to the upper "
    "left and the lower right; 10: as 5, and their mirror images."
)


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
        int32 [..., V, 4]: top, left, height, width of every view. Moved views may leave the image,
        but never altogether; all others are inside.
    """
    top, left, _, moved, _ = (tf.constant(column) for column in zip(*VIEWS[crops], strict=True))
    side = crop_side(tf.minimum(height, width), size)
    step = tf.maximum(1, tf.cast(tf.round(_MOVE * tf.cast(side, tf.float32)), tf.int32))
    move = moved * tf.minimum(step, side - 1)[..., tf.newaxis]

    def placed(length, fraction):
        room = tf.cast(length - side, tf.float32)[..., tf.newaxis]
        return tf.cast(room * fraction, tf.int32) + move

    tops = placed(height, top)
    sides = tf.broadcast_to(side[..., tf.newaxis], tf.shape(tops))
    return tf.stack([tops, placed(width, left), sides, sides], axis=-1)


def mirrored(crops: int) -> tf.Tensor:
    """Which of the views are mirrored: bool [V]."""
    return tf.constant([view.mirrored for view in VIEWS[crops]])


def weights(crops: int) -> list[float]:
    """Weight of each of the views in the average of their predictions; their sum is 1."""
    total = sum(view.weight for view in VIEWS[crops])
    return [view.weight / total for view in VIEWS[crops]]


def centre(crops: int) -> int:
    """Index of the central view, not mirrored, among the views."""
    return next(index for index, view in enumerate(VIEWS[crops]) if view[:4] == _CENTRE[:4])
