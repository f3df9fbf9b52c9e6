"""Augmentation policies and test views on JAX, of images that the network sees whole.

The same as in `augment.py` and `views.py` of data/pipeline, which need TensorFlow.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Policy(NamedTuple):
    """How training images are varied.

    Attributes:
        padding: Largest shift, in 32nds of the side, in each direction.
        mirror: Whether a random half of the images is mirrored left to right.
        alternates: Whether the other half is mirrored in the next epoch.
        reflects: Whether shifted images are reflected at their border, and not black beyond it.
    """

    padding: int
    mirror: bool = True
    alternates: bool = False
    reflects: bool = False


POLICIES = {
    "none": Policy(0, mirror=False),
    "cifar": Policy(4),
    "cifar_reflected": Policy(4, reflects=True),
    "airbench": Policy(2, alternates=True, reflects=True),
}


class View(NamedTuple):
    """A test view of an image, see `data.pipeline.views.View`.

    Attributes:
        moved: Direction in which it is moved, to the right and down; -1: to the left and up.
        mirrored: Whether it is mirrored left to right.
    """

    moved: int = 0
    mirrored: bool = False


# Weight of each view in the average of the predictions, by the number of views.
VIEWS = {
    1: {View(): 1.0},
    2: {View(mirrored=mirrored): 1 / 2 for mirrored in (False, True)},
    6: {
        View(moved, mirrored): (1 if moved else 2) / 8
        for mirrored in (False, True)
        for moved in (0, -1, 1)
    },
}


def vary(policy: Policy, images: jax.Array, turned: jax.Array, key: jax.Array) -> jax.Array:
    """Varies a batch of training images.

    Args:
        policy: Augmentation policy.
        images: uint8 [B, S, S, 3].
        turned: Whose turn it is to be mirrored, bool [B], if the policy alternates.
        key: Random key of the step.

    Returns:
        uint8 [B, S, S, 3].
    """
    moves, mirrors = jax.random.split(key)
    padding = round(policy.padding * images.shape[1] / 32)
    if padding:
        corners = jax.random.randint(moves, [len(images), 2], 0, 2 * padding + 1)
        beside = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
        padded = jnp.pad(images, beside, "reflect" if policy.reflects else "constant")

        def cut(image, corner):
            return jax.lax.dynamic_slice(image, (*corner, 0), images.shape[1:])

        images = jax.vmap(cut)(padded, corners)
    if not policy.mirror:
        return images
    mirrored = turned if policy.alternates else jax.random.bernoulli(mirrors, shape=[len(images)])
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def seen(view: View, images: jax.Array) -> jax.Array:
    """Returns a test view of images [B, S, S, 3]; what moves in from outside is black."""
    side = images.shape[1]
    step = max(1, round(side / 32))
    padded = jnp.pad(images, [(0, 0), (step, step), (step, step), (0, 0)])
    begin = step + view.moved * step
    window = padded[:, begin : begin + side, begin : begin + side]
    return window[:, :, ::-1] if view.mirrored else window
