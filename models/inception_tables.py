"""Builds Inception modules from tables of parallel branches of convolutions and pools.

A branch is a tuple of steps, a module a dict of branches by name. The steps:

    (64, 3)              64 filters of 3 x 3, which keep the size
    (64, (1, 7))         the same, 1 pixel high and 7 wide
    (64, 3, 2)           with a stride of 2
    (64, 3, 2, VALID)    without padding: the papers' "V"
    ("max", 3)           max pool of 3 x 3 pixels; "average" likewise; also with stride and VALID
    {...}                a module, whose branches are concatenated

Without VALID, a stride of 2 maps n pixels to ceil(n / 2): convolutions have `kernel // 2` zeros on
each side, and windows of pools are cut off at the border. Where n is even, both sample as in Caffe.
Average pools divide by the number of pixels inside the image, as in TensorFlow, or by that of the
whole window, as in Torch.
"""

import keras

from models import ops, pools

VALID = "valid"


def module(x, branches: dict, *, conv, count_border: bool = False, name: str):
    """Applies parallel branches to x and concatenates their results.

    Args:
        x: [B, H, W, C].
        branches: Steps of each branch, by its name.
        conv: Function `(x, filters, kernel_size, stride=1, padding="same", *, name)`, e.g.
            `conv_norm_relu`.
        count_border: Whether average pools with a stride of 1 see a border of zeros.
        name: Prefix of the layers' names.

    Returns:
        [B, H', W', sum of the branches' channels].
    """
    options = {"conv": conv, "count_border": count_border}
    maps = [chain(x, steps, **options, name=f"{name}_{key}") for key, steps in branches.items()]
    return keras.layers.Concatenate(name=f"{name}_concat")(maps)


def chain(x, steps: tuple, *, conv, count_border: bool = False, name: str):
    """Applies steps one after another; the names of step i's layers begin with "NAME_i".

    Args:
        x: [B, H, W, C].
        steps: Rows as in the module's docstring.
        conv: Function as in `module`.
        count_border: As in `module`.
        name: Prefix of the layers' names.

    Returns:
        [B, H', W', C'].
    """
    for number, step in enumerate(steps, start=1):
        x = _step(x, step, conv, count_border, f"{name}_{number}")
    return x


def conv_norm_relu(
    x,
    filters,
    kernel_size,
    stride=1,
    padding="same",
    *,
    scale=True,
    epsilon: float = 1e-3,
    name: str,
):
    """Convolution, batch normalisation and ReLU, the unit of every Inception from v2 on.

    Moving averages keep 0.9 at each step; the 0.9997 of the published models needs long training.

    Args:
        x: [B, H, W, C].
        filters: Channels of the result.
        kernel_size: Height and width; one number for both.
        stride: Step in pixels.
        padding: "same" for `kernel_size // 2` zeros on each side, VALID for none.
        scale: Whether the normalisation has a gamma.
        epsilon: Number added to the normalisation's variances.
        name: Prefix of the layers' names.

    Returns:
        [B, H', W', filters].
    """
    x = ops.conv(
        x,
        filters,
        kernel_size,
        stride=stride,
        padding=border(kernel_size, padding),
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )
    return ops.norm_relu(x, epsilon=epsilon, scale=scale, name=name)


def pool(x, kind: str, size: int, stride: int = 1, padding: str = "same", *, name: str):
    """Pools over square windows.

    Args:
        x: [B, H, W, C].
        kind: "max" or "average".
        size: Height and width of the window.
        stride: Step in pixels.
        padding: "same" cuts windows off at the border, VALID takes whole windows only.
        name: Name of the layer.

    Returns:
        [B, H', W', C].

    Raises:
        ValueError: If padding is VALID and x is smaller than the window.
    """
    if padding == VALID:
        return pools.pool(x, size, stride, kind=kind, name=name)
    return pools.POOLS[kind](size, stride, padding="same", name=name)(x)


def border(kernel_size: int | tuple[int, int], padding: str) -> tuple[int, int]:
    """Returns the rows and columns of zeros on each side for a padding, "same" or VALID."""
    if padding == VALID:
        return (0, 0)
    height, width = kernel_size if isinstance(kernel_size, tuple) else (kernel_size, kernel_size)
    return (height // 2, width // 2)


def _step(x, step, conv, count_border, name):
    if isinstance(step, dict):
        return module(x, step, conv=conv, count_border=count_border, name=name)
    first, *geometry = step
    if isinstance(first, int):
        return conv(x, first, *geometry, name=name)
    if count_border and (first, *geometry) == ("average", 3):
        return pools.pool(x, 3, 1, kind=first, padding=1, name=f"{name}_{first}")
    return pool(x, first, *geometry, name=f"{name}_{first}")
