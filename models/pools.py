"""Pools that families share, with the borders of the frameworks that the papers used."""

from collections.abc import Sequence

import keras

from models import layers, ops, registry

POOLS = {"max": layers.MaxPool, "average": keras.layers.AveragePooling2D}


def pool(x, size: int, stride: int, *, kind="max", padding: int = 0, ceil=False, name: str):
    """Pools over square windows.

    Args:
        x: [B, H, W, C].
        size: Height and width of the window.
        stride: Step in pixels.
        kind: "max" or "average".
        padding: Zeros on each side as in Torch: right for a maximum after a ReLU, and for an
            average that counts them.
        ceil: Rounds the size of the result up as Caffe does, by a last window that is cut off at
            the border. Exact for a stride of 2.
        name: Name of the layer.

    Returns:
        [B, H', W', C].

    Raises:
        ValueError: If x is smaller than the window, or `kind` is unknown.
    """
    registry.require_one_of("pooling", kind, POOLS)
    ops.require(x, size, padding, name)
    if padding:
        x = keras.layers.ZeroPadding2D(padding, name=f"{name}_pad")(x)
    rest = (x.shape[1] - size) % stride
    return POOLS[kind](size, stride, padding="same" if ceil and rest else "valid", name=name)(x)


def centred_max(x, *, name: str):
    """The maximum of 3 x 3 pixels around every second pixel, as Torch pools with padding 1.

    Unlike zeros, the border never wins: right for maps that are not rectified.

    Args:
        x: [B, H, W, C].
        name: Name of the layer.

    Returns:
        [B, ceil(H / 2), ceil(W / 2), C].
    """
    x = layers.MaxPool(3, 1, padding="same", name=f"{name}_every")(x)
    return layers.MaxPool(1, 2, name=name)(x)


def halve(x, kind: str, *, name: str):
    """Halves the maps with one of the poolings that the papers compare.

    Args:
        x: [B, H, W, C].
        kind: One of `registry.POOLINGS`. Overlapping windows are 3 x 3 and cut off at the border
            as in Caffe; padded ones are 3 x 3 and see a border of zeros as in Torch; the others are
            2 x 2. All have a stride of 2.
        name: Name of the layer.

    Returns:
        [B, floor(H / 2), floor(W / 2), C]; for padded windows the ceilings.

    Raises:
        ValueError: If x is smaller than the window, or `kind` is unknown.
    """
    registry.require_one_of("pooling", kind, registry.POOLINGS)
    function, _, window = kind.partition("_")
    border = {"ceil": window == "overlapping", "padding": int(window == "padded")}
    return pool(x, 3 if window else 2, 2, kind=function, **border, name=name)


def lrn_halve(x, number: int, *, lrn: dict | None, pooling: str, pool_first: bool):
    """Local response normalisation and `halve`: "norm1", "pool1".

    Args:
        x: [B, H, W, C].
        number: Suffix of the layers' names.
        lrn: Arguments of `layers.LocalResponseNorm`; None leaves it out.
        pooling: One of `registry.POOLINGS`.
        pool_first: Whether to pool before the normalisation.

    Returns:
        The shape of `halve`.
    """
    if lrn and not pool_first:
        x = layers.LocalResponseNorm(**lrn, name=f"norm{number}")(x)
    x = halve(x, pooling, name=f"pool{number}")
    if lrn and pool_first:
        x = layers.LocalResponseNorm(**lrn, name=f"norm{number}")(x)
    return x


def per_pool(pooling: str | Sequence[str], count: int) -> Sequence[str]:
    """Returns one of `registry.POOLINGS` for each pool: the same for all, or those given.

    Raises:
        ValueError: If another number is given.
    """
    kinds = [pooling] * count if isinstance(pooling, str) else pooling
    if len(kinds) != count:
        raise ValueError(f"expected one pooling or {count}, received {', '.join(kinds)}")
    return kinds


def subsample(x, stride: int):
    """Takes every `stride`-th pixel of [B, H, W, C] in both directions, from the first one on.

    On CPUs, TensorFlow takes five times as long to slice with a stride as to pool windows of one
    pixel, forward and backward (2.2 against 11.6 ms for 128 x 32 x 32 x 16 in bfloat16).
    """
    if keras.backend.backend() != "tensorflow" or layers.compiled_by_xla():
        return x[:, ::stride, ::stride]
    return keras.ops.max_pool(x, 1, strides=stride, padding="valid")
