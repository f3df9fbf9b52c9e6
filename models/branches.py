"""Inception modules from tables: branches of convolutions and pools, side by side.

A branch is a tuple of steps, a module a dict of branches by name. The steps:

    (64, 3)              64 filters of 3 x 3, as many pixels as before
    (64, (1, 7))         the same, 1 pixel high and 7 wide
    (64, 3, 2)           with a stride of 2
    (64, 3, 2, VALID)    without padding: the papers' "V"
    ("max", 3)           the largest of 3 x 3 pixels; also "average", stride and VALID
    {...}                a module: its branches are concatenated

Without VALID a stride of 2 leaves ceil(n / 2) of n pixels. Convolutions have `kernel // 2` zeros on
each side, pools windows that are cut off at the border: where n is even, both sample as in Caffe.
Average pools divide by the pixels of the image inside their window, as TensorFlow's do.
"""

import keras

from models import ops

VALID = "valid"


def module(x, branches: dict, *, conv, name: str):
    """Concatenates what the branches make of x.

    Args:
        x: [B, H, W, C].
        branches: Steps by the name of the branch.
        conv: Function `(x, filters, kernel_size, stride=1, padding="same", *, name)`, e.g.
            `conv_norm_relu`.
        name: Prefix of the layers' names.

    Returns:
        [B, H', W', sum of the branches' channels].
    """
    maps = [chain(x, steps, conv=conv, name=f"{name}_{key}") for key, steps in branches.items()]
    return keras.layers.Concatenate(name=f"{name}_concat")(maps)


def chain(x, steps: tuple, *, conv, name: str):
    """Takes steps one after another; the layers of step i are called `name_i_...`.

    Args:
        x: [B, H, W, C].
        steps: As above.
        conv: As for `module`.
        name: Prefix of the layers' names.

    Returns:
        [B, H', W', C'].
    """
    for number, step in enumerate(steps, start=1):
        x = _step(x, step, conv, f"{name}_{number}")
    return x


def conv_norm_relu(x, filters, kernel_size, stride=1, padding="same", *, scale=True, name: str):
    """Convolves, normalises and rectifies: the unit of every Inception from the second on.

    Moving averages keep 0.9 at each step; the 0.9997 of the published models needs their long runs.

    Args:
        x: [B, H, W, C].
        filters: Channels of the result.
        kernel_size: Height and width; one number for both.
        stride: Step in pixels.
        padding: "same" for `kernel_size // 2` zeros on each side, VALID for none.
        scale: Whether the normalisation has a gamma.
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
    return ops.norm_relu(x, epsilon=1e-3, scale=scale, name=name)


def pool(x, kind: str, size: int, stride: int = 1, padding: str = "same", *, name: str):
    """Pools over square windows.

    Args:
        x: [B, H, W, C].
        kind: "max" or "average".
        size: Height and width of the window.
        stride: Step in pixels.
        padding: "same" for windows that are cut off at the border, VALID for whole ones only.
        name: Name of the layer.

    Returns:
        [B, H', W', C].

    Raises:
        ValueError: If no whole window fits where only whole ones count.
    """
    if padding == VALID:
        return ops.pool(x, size, stride, kind=kind, name=name)
    pools = {"max": keras.layers.MaxPooling2D, "average": keras.layers.AveragePooling2D}
    return pools[kind](size, stride, padding="same", name=name)(x)


def border(kernel_size: int | tuple[int, int], padding: str) -> tuple[int, int]:
    """Returns the rows and columns of zeros on each side that `padding` stands for."""
    if padding == VALID:
        return (0, 0)
    height, width = kernel_size if isinstance(kernel_size, tuple) else (kernel_size, kernel_size)
    return (height // 2, width // 2)


def _step(x, step, conv, name):
    if isinstance(step, dict):
        return module(x, step, conv=conv, name=name)
    what, *geometry = step
    if isinstance(what, int):
        return conv(x, what, *geometry, name=name)
    return pool(x, what, *geometry, name=f"{name}_{what}")
