"""Operations that families share: convolutions, pools, activations and the ends of networks."""

import keras
import numpy as np

from models import layers, registry


def conv(
    x,
    filters: int,
    kernel_size: int | tuple[int, int],
    *,
    stride: int = 1,
    padding: int | tuple[int, int] = 0,
    groups: int = 1,
    use_bias: bool = True,
    kernel_initializer="glorot_uniform",
    bias_initializer="zeros",
    name: str,
):
    """Convolves with the symmetric padding of Caffe and Torch.

    Keras' "same" samples other positions when a stride meets an even size.

    Args:
        x: [B, H, W, C].
        filters: Channels of the result.
        kernel_size: Height and width of the kernel; one number for both.
        stride: Step in pixels.
        padding: Rows and columns of zeros on each side; one number for both.
        groups: Independent groups of channels, contiguous.
        use_bias: Whether a bias is added.
        kernel_initializer: As for Keras. An initializer object belongs to one layer only: used
            twice it gives equal weights to equal shapes.
        bias_initializer: The same.
        name: Name of the layer.

    Returns:
        [B, H', W', filters] with H' = floor((H + 2 padding - kernel_size) / stride) + 1.

    Raises:
        ValueError: If x is smaller than the kernel.
    """
    kernel, border = np.broadcast_to(kernel_size, 2), np.broadcast_to(padding, 2)
    _require(x, (kernel - 2 * border).max(), 0, name)
    same = stride == 1 and (2 * border == kernel - 1).all()
    if border.any() and not same:
        x = keras.layers.ZeroPadding2D(padding, name=f"{name}_pad")(x)
    layer = layers.GroupedConv2D if groups > 1 else keras.layers.Conv2D
    return layer(
        filters,
        kernel_size,
        strides=stride,
        padding="same" if same else "valid",
        groups=groups,
        use_bias=use_bias,
        kernel_initializer=kernel_initializer,
        bias_initializer=bias_initializer,
        name=name,
    )(x)


def separable(x, filters: int, kernel_size: int, *, stride: int = 1, name: str):
    """Convolves each channel by itself, then every pixel, with TensorFlow's "same" padding.

    Weights start so that both keep the variance; Keras' default for the first is far too small.

    Args:
        x: [B, H, W, C].
        filters: Channels of the result.
        kernel_size: Height and width of the kernel of each channel.
        stride: Step in pixels.
        name: Name of the layer.

    Returns:
        [B, ceil(H / stride), ceil(W / stride), filters].
    """
    return keras.layers.SeparableConv2D(
        filters,
        kernel_size,
        strides=stride,
        padding="same",
        use_bias=False,
        depthwise_initializer=keras.initializers.RandomNormal(stddev=1 / kernel_size),
        pointwise_initializer="he_normal",
        name=name,
    )(x)


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
    kinds = {"max": keras.layers.MaxPooling2D, "average": keras.layers.AveragePooling2D}
    registry.require_one_of("pooling", kind, kinds)
    _require(x, size, padding, name)
    if padding:
        x = keras.layers.ZeroPadding2D(padding, name=f"{name}_pad")(x)
    rest = (x.shape[1] - size) % stride
    return kinds[kind](size, stride, padding="same" if ceil and rest else "valid", name=name)(x)


def halve(x, kind: str, *, name: str):
    """Halves the maps by one of the poolings that the papers compare.

    Args:
        x: [B, H, W, C].
        kind: One of `registry.POOLINGS`. Overlapping windows are 3 x 3 and cut off at the border
            as in Caffe, the others are 2 x 2; both have a stride of 2.
        name: Name of the layer.

    Returns:
        [B, floor(H / 2), floor(W / 2), C].

    Raises:
        ValueError: If x is smaller than the window, or `kind` is unknown.
    """
    registry.require_one_of("pooling", kind, registry.POOLINGS)
    function, _, overlapping = kind.partition("_")
    return pool(x, 3 if overlapping else 2, 2, kind=function, ceil=bool(overlapping), name=name)


def relu(x, name: str):
    """Rectifies x."""
    return keras.layers.Activation("relu", name=name)(x)


def activation(x, kind: str, *, name: str):
    """Applies one of the activations that the papers compare.

    Args:
        x: [..., C].
        kind: One of `registry.ACTIVATIONS`: abs_tanh is |tanh x| (Jarrett et al. 2009), crelu
            keeps the rectified negative too (Shang et al. 2016, arXiv:1603.05201), swish is
            x sigmoid(x).
        name: Name of the layer.

    Returns:
        The same shape; for crelu [..., 2 C].

    Raises:
        ValueError: If `kind` is unknown.
    """
    registry.require_one_of("activation", kind, registry.ACTIVATIONS)
    if kind == "crelu":
        return layers.ConcatenatedReLU(name=name)(x)
    return keras.layers.Activation(registry.ACTIVATIONS[kind], name=name)(x)


def logits(x, num_classes: int, *, kernel_initializer="glorot_uniform", name: str):
    """Ends a network or an auxiliary head: [B, F] to float32 [B, K] under every policy."""
    return keras.layers.Dense(
        num_classes, kernel_initializer=kernel_initializer, dtype="float32", name=name
    )(x)


def class_average(x, num_classes: int, *, padding: int = 0, kernel_initializer, name: str):
    """Ends a network as Network in Network does: rectified maps of the classes, averaged.

    Args:
        x: [B, H, W, C].
        num_classes: Number of classes K.
        padding: Of the 1 x 1 convolution.
        kernel_initializer: As for Keras.
        name: Name of the 1 x 1 convolution.

    Returns:
        float32 [B, K] under every policy.
    """
    x = conv(x, num_classes, 1, padding=padding, kernel_initializer=kernel_initializer, name=name)
    x = relu(x, name=f"{name}_relu")
    return keras.layers.GlobalAveragePooling2D(dtype="float32", name="average")(x)


def pooled_logits(x, num_classes: int):
    """Ends a network: averages every map [B, H, W, C], then float32 logits [B, K].

    The weights start uniform in 1 / sqrt(C), as in Torch's published training code.
    """
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    uniform = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
    return logits(x, num_classes, kernel_initializer=uniform, name="fc")


def _require(x, window, padding, name):
    """Refuses an image that has shrunk below the next window."""
    height, width = x.shape[1:3]
    if min(height, width) + 2 * padding < window:
        raise ValueError(
            f"image_size is too small, expected at least {window - 2 * padding} pixels to be left "
            f"at {name}, received {height} x {width}"
        )
