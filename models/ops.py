"""Operations that families share: convolutions, activations and classifiers.

Each applies a few Keras layers to a tensor [B, H, W, C]; the names of the layers are the paths of
their weights in checkpoints.
"""

import keras
import numpy as np

from models import initializers, layers, registry


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
    """Convolves with symmetric padding, as Caffe and Torch do.

    Keras' "same" padding samples other positions where a stride meets an even size.

    Args:
        x: [B, H, W, C].
        filters: Channels of the result.
        kernel_size: Height and width of the kernel; one number for both.
        stride: Step in pixels.
        padding: Rows and columns of zeros on each side; one number for both.
        groups: Independent groups of channels, contiguous.
        use_bias: Whether a bias is added.
        kernel_initializer: Keras initializer; an object must not be used for two layers.
        bias_initializer: Keras initializer.
        name: Name of the layer.

    Returns:
        [B, H', W', filters] with H' = floor((H + 2 padding - kernel_size) / stride) + 1.

    Raises:
        ValueError: If x is smaller than the kernel.
    """
    kernel, border = np.broadcast_to(kernel_size, 2), np.broadcast_to(padding, 2)
    require(x, (kernel - 2 * border).max(), 0, name)
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


def padded_conv(
    x,
    filters: int,
    kernel_size: int,
    *,
    stride: int = 1,
    groups: int = 1,
    use_bias: bool = False,
    fan: str = "fan_out",
    name: str,
):
    """Convolves without bias, with the padding that keeps the size at stride 1.

    Weights start as in He et al. (2015).

    Args:
        x: [B, H, W, C].
        filters: Channels of the result.
        kernel_size: Height and width of the kernel, odd.
        stride: Step in pixels.
        groups: Independent groups of channels.
        use_bias: Whether a bias is added after all.
        fan: Connections that scale the initial weights, "fan_in" or "fan_out".
        name: Name of the layer.

    Returns:
        [B, ceil(H / stride), ceil(W / stride), filters].
    """
    return conv(
        x,
        filters,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        groups=groups,
        use_bias=use_bias,
        kernel_initializer=initializers.he_normal(fan),
        name=name,
    )


def separable(x, filters: int, kernel_size: int, *, stride: int = 1, name: str):
    """Convolves each channel by itself, then each pixel, with TensorFlow's "same" padding.

    Both kernels start so that they keep the variance; Keras' default for the first is far too
    small.

    Args:
        x: [B, H, W, C].
        filters: Channels of the result.
        kernel_size: Height and width of each channel's kernel.
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


def norm_relu(x, *, epsilon: float = 1e-5, scale: bool = True, name: str, number=""):
    """Batch normalisation and ReLU.

    Args:
        x: [B, H, W, C].
        epsilon: Number added to the variance.
        scale: Whether the normalisation has a gamma.
        name: Prefix of the layers' names, "NAME_norm1" and "NAME_relu1".
        number: Suffix of the layers' names.

    Returns:
        The shape of x.
    """
    x = layers.BatchNorm(epsilon=epsilon, scale=scale, name=f"{name}_norm{number}")(x)
    return relu(x, name=f"{name}_relu{number}")


def conv_norm_act(
    x,
    number: int | str,
    filters: int,
    kernel_size: int,
    *,
    norm: str = "none",
    activation: str = "relu",
    **options,
):
    """Convolution, batch normalisation where chosen, and activation: "conv1", "norm1", "relu1".

    Args:
        x: [B, H, W, C].
        number: Suffix of the layers' names.
        filters: Channels of the convolution.
        kernel_size: Height and width of the kernel.
        norm: "batch" normalises, and leaves out the bias, which normalisation would cancel; the
            other `registry.NORMS` do nothing here.
        activation: One of `registry.ACTIVATIONS`.
        **options: Further arguments of `conv`.

    Returns:
        [B, H', W', filters] as `conv` does; twice the channels for crelu.
    """
    batch = norm == "batch"
    x = conv(x, filters, kernel_size, use_bias=not batch, name=f"conv{number}", **options)
    if batch:
        x = layers.BatchNorm(name=f"norm{number}")(x)
    return activate(x, activation, name=f"{activation}{number}")


def relu(x, name: str):
    """Rectifies x."""
    return keras.layers.Activation("relu", name=name)(x)


def activate(x, kind: str, *, name: str):
    """Applies one of the activations that the papers compare.

    Args:
        x: [..., C].
        kind: One of `registry.ACTIVATIONS`: abs_tanh is |tanh x| (Jarrett et al. 2009), crelu
            keeps the rectified negative too (Shang et al. 2016, arXiv:1603.05201), swish is
            x sigmoid(x).
        name: Name of the layer.

    Returns:
        The shape of x; for crelu [..., 2 C].

    Raises:
        ValueError: If `kind` is unknown.
    """
    registry.require_one_of("activation", kind, registry.ACTIVATIONS)
    if kind == "crelu":
        return layers.ConcatenatedReLU(name=name)(x)
    layer = layers.SmoothActivation if kind in ("gelu", "swish") else keras.layers.Activation
    return layer(registry.ACTIVATIONS[kind], name=name)(x)


def dense(x, number: int, units: int, *, activation="relu", dropout: float | None, **options):
    """Dense layer, activation and dropout: "fc6", "relu6", "drop6".

    Args:
        x: [B, F].
        number: Suffix of the layers' names.
        units: Number of outputs.
        activation: One of `registry.ACTIVATIONS`.
        dropout: Fraction of the outputs that is dropped; None: no dropout layer.
        **options: Further arguments of `keras.layers.Dense`.

    Returns:
        [B, units]; for crelu [B, 2 units].
    """
    x = keras.layers.Dense(units, **options, name=f"fc{number}")(x)
    x = activate(x, activation, name=f"{activation}{number}")
    return x if dropout is None else keras.layers.Dropout(dropout, name=f"drop{number}")(x)


def logits(x, num_classes: int, *, kernel_initializer="glorot_uniform", name: str):
    """Dense layer that ends a network or an auxiliary head, in float32 under every policy.

    Args:
        x: [B, F].
        num_classes: Number of classes K.
        kernel_initializer: Keras initializer.
        name: Name of the layer.

    Returns:
        float32 [B, K].
    """
    return keras.layers.Dense(
        num_classes, kernel_initializer=kernel_initializer, dtype="float32", name=name
    )(x)


def pooled_logits(x, num_classes: int):
    """Global average pooling [B, H, W, C], then float32 logits [B, K].

    The weights start uniform within 1 / sqrt(C), as in Torch's published training code.
    """
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return logits(x, num_classes, kernel_initializer=initializers.torch_uniform(), name="fc")


def class_average(x, num_classes: int, *, padding: int = 0, kernel_initializer, name: str):
    """Averages one rectified map per class, as Network in Network does.

    Args:
        x: [B, H, W, C].
        num_classes: Number of classes K.
        padding: Zeros on each side of the 1 x 1 convolution, pixels.
        kernel_initializer: Keras initializer.
        name: Name of the 1 x 1 convolution.

    Returns:
        float32 [B, K] under every policy.
    """
    x = conv(x, num_classes, 1, padding=padding, kernel_initializer=kernel_initializer, name=name)
    x = relu(x, name=f"{name}_relu")
    return keras.layers.GlobalAveragePooling2D(dtype="float32", name="average")(x)


def require(x, window, padding, name):
    """Checks that the next window fits into the maps.

    Args:
        x: [B, H, W, C].
        window: Height and width of the window.
        padding: Zeros on each side.
        name: Name of the next layer.

    Raises:
        ValueError: If x is smaller than the window.
    """
    height, width = x.shape[1:3]
    if min(height, width) + 2 * padding < window:
        raise ValueError(
            f"image_size is too small, expected at least {window - 2 * padding} pixels to be left "
            f"at {name}, received {height} x {width}"
        )
