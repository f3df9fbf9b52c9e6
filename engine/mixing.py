"""mixup and CutMix: mixes pairs of training images and their labels.

mixup: H. Zhang et al., arXiv:1710.09412. CutMix: S. Yun et al., arXiv:1905.04899, section 3.1.
Departures: each image is mixed with its neighbour in the batch, whose order is random already, so
that replicas need no communication; each pair has its own ratio, drawn for the global batch.
"""

from typing import NamedTuple

import tensorflow as tf

from runtime import randomness


class Mixing(NamedTuple):
    """Settings of mixup and CutMix; with both, each applies to half of the pairs on average.

    Attributes:
        mixup: alpha of the Beta distribution of the blending ratio; 0 for no mixup.
        cutmix: alpha of the Beta distribution of the area kept; 0 for no CutMix.
    """

    mixup: float = 0.0
    cutmix: float = 0.0


def plan(mixing: Mixing, seed: int, step: tf.Tensor, batch_size: int, side: int) -> tf.Tensor:
    """Draws how each image of a global batch is mixed.

    Args:
        mixing: Settings of mixup and CutMix.
        seed: Seed of the run.
        step: Optimizer updates done, integer [].
        batch_size: Images in the global batch, even.
        side: Side of the images in pixels.

    Returns:
        float32 [batch_size, 5]: top, left, bottom, right of the rectangle in which the neighbour
        is blended in, in pixels, and the neighbour's weight there, in [0, 1].
    """
    pairs = batch_size // 2
    key = tf.stack([tf.cast(seed, tf.int64), tf.cast(step, tf.int64)])
    key = tf.random.experimental.stateless_fold_in(key, randomness.MIXING, alg="philox")
    keys = tf.unstack(tf.random.experimental.stateless_split(key, 3, alg="philox"))
    u, y, x = tf.unstack(tf.random.stateless_uniform([3, pairs], keys[0], alg="philox"))
    share = 1.0 if mixing.cutmix else 0.0
    cut = u < share / (share + (1.0 if mixing.mixup else 0.0))
    alpha = tf.where(cut, mixing.cutmix, mixing.mixup)
    kept = _beta(alpha, keys[1:])
    half = tf.sqrt(1 - kept) / 2
    edges = tf.stack([y - half, x - half, y + half, x + half], axis=-1)
    rectangle = tf.round(side * tf.clip_by_value(edges, 0.0, 1.0))
    whole = tf.constant([[0.0, 0.0, side, side]])
    rectangle = tf.where(cut[:, tf.newaxis], rectangle, whole)
    strength = tf.where(cut, 1.0, 1 - kept)
    return tf.repeat(tf.concat([rectangle, strength[:, tf.newaxis]], axis=-1), 2, axis=0)


def mixed(images: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixes every image with its neighbour.

    Args:
        images: float32 [B, S, S, C], B even.
        rows: float32 [B, 5], the images' rows of `plan`.

    Returns:
        Images of the same shape, and the weight of each image's own label, float32 [B].
    """
    top, left, bottom, right, strength = tf.unstack(rows[:, :, tf.newaxis], axis=1)
    pixel = tf.range(images.shape[1], dtype=tf.float32)[tf.newaxis]
    inside_rows = tf.cast((pixel >= top) & (pixel < bottom), tf.float32) * strength
    inside_columns = tf.cast((pixel >= left) & (pixel < right), tf.float32)
    mask = inside_rows[:, :, tf.newaxis] * inside_columns[:, tf.newaxis]
    mask4 = mask[..., tf.newaxis]
    return images + mask4 * (neighbours(images) - images), 1 - tf.reduce_mean(mask, axis=(1, 2))


def neighbours(rows: tf.Tensor) -> tf.Tensor:
    """Swaps row 0 with row 1, row 2 with row 3, ...: [B, ...], B even."""
    pairs = tf.reshape(rows, [-1, 2, *rows.shape[1:]])
    return tf.reshape(pairs[:, ::-1], tf.shape(rows))


def _beta(alpha: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    """Draws from Beta(alpha, alpha); returns float32 of the shape of `alpha`."""
    first, second = (
        tf.random.stateless_gamma(alpha.shape, key, tf.maximum(alpha, 1e-3)) for key in keys
    )
    return first / tf.maximum(first + second, 1e-30)
