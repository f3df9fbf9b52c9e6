"""ResNet for ImageNet and for CIFAR, its plain counterparts and its wide form.

Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun, "Deep residual learning for image recognition",
CVPR 2016, arXiv:1512.03385. Transcribes table 1 (ImageNet) and section 4.2 (CIFAR, 6n + 2 layers;
"plain": without shortcuts). `wide_resnet50_2` and `wide_resnet101_2` follow Sergey Zagoruyko, Nikos
Komodakis, "Wide residual networks", BMVC 2016, arXiv:1605.07146: 3 x 3 convolutions twice as wide.

Departures: bottlenecks stride in the 3 x 3 convolution ("v1.5", as in Torch) except in the "_v1"
rows, which stride in the first 1 x 1 as the paper does. Images are standardised, where the paper
subtracts the mean of every pixel. Weights start as in He et al. (2015), scaled by the outgoing
connections, and the classifier's uniform within 1 / sqrt(features), both as in Torch's published
training code. The convolutions have no biases; with `use_bias=True, epsilon=1.001e-5` the "_v1"
rows are the networks of Keras Applications, whose images have the mean (123.68, 116.779, 103.939)
subtracted, standard deviation 1, and channels in the order blue, green, red.
"""

from functools import partial

import keras

from models import layers, ops, pools, registry

#            blocks in conv2_x, conv3_x, conv4_x, conv5_x: table 1
DEPTHS_18 = (2, 2, 2, 2)
DEPTHS_34 = (3, 4, 6, 3)
DEPTHS_50 = (3, 4, 6, 3)
DEPTHS_101 = (3, 4, 23, 3)
DEPTHS_152 = (3, 8, 36, 3)


def resnet(
    x,
    num_classes: int,
    *,
    stem,
    block,
    depths,
    filters: int = 64,
    use_bias: bool = False,
    epsilon: float = 1e-5,
    shortcut: str | None = None,
):
    """Stages of residual blocks; each halves the maps and doubles the channels of the one before.

    Args:
        x: Standardised images, float32 [B, S, S, C].
        num_classes: Number of classes K.
        stem: Function `(x, filters, *, conv)` that applies the layers before the stages.
        block: Function `(x, filters, *, stride, name, conv)`, one residual block; `conv` is a
            partial `conv_norm`.
        depths: Blocks in each stage.
        filters: Channels of the stem and of the 3 x 3 convolutions of the first stage.
        use_bias: Whether convolutions have biases, which batch normalisation would cancel.
        epsilon: Number added to batch normalisation's variances.
        shortcut: One of `SHORTCUTS` (default: the network's own).

    Returns:
        {"logits": float32 [B, K]}.

    Raises:
        ValueError: If `shortcut` is unknown.
    """
    if shortcut is not None:
        registry.require_one_of("shortcut", shortcut, SHORTCUTS)
        block = partial(block, shortcut=SHORTCUTS[shortcut])
    conv = partial(conv_norm, use_bias=use_bias, norm=partial(batch_norm, epsilon=epsilon))
    x = stem(x, filters, conv=conv)  # 56 x 56 x 64; cifar 32 x 32 x 16
    for stage, depth in enumerate(depths, start=1):
        # resnet18: 56 x 56 x 64, 28 x 28 x 128, 14 x 14 x 256, 7 x 7 x 512
        # resnet50: 56 x 56 x 256, 28 x 28 x 512, 14 x 14 x 1024, 7 x 7 x 2048
        # cifar:    32 x 32 x 16, 16 x 16 x 32, 8 x 8 x 64
        for index in range(1, depth + 1):
            stride = 2 if stage > 1 and index == 1 else 1
            name = f"stage{stage}_block{index}"
            x = block(x, filters * 2 ** (stage - 1), stride=stride, name=name, conv=conv)
    return {"logits": ops.pooled_logits(x, num_classes)}


def imagenet_stem(x, filters: int, *, conv):
    """7 x 7 convolution and 3 x 3 pool, both with stride 2."""
    x = conv(x, filters, 7, stride=2, name="stem")  # 112 x 112 x 64
    x = ops.relu(x, name="stem_relu")
    return pools.pool(x, 3, 2, padding=1, name="stem_pool")


def cifar_stem(x, filters: int, *, conv):
    """One 3 x 3 convolution."""
    return ops.relu(conv(x, filters, 3, name="stem"), name="stem_relu")


def projection(x, filters: int, *, stride: int, name: str, conv):
    """Option B: a 1 x 1 convolution where the shape changes, otherwise the identity."""
    if stride == 1 and x.shape[-1] == filters:
        return x
    return conv(x, filters, 1, stride=stride, name=f"{name}_shortcut")


def all_projections(x, filters: int, *, stride: int, name: str, conv):
    """Option C: a 1 x 1 convolution everywhere."""
    return conv(x, filters, 1, stride=stride, name=f"{name}_shortcut")


def zero_padding(x, filters: int, *, stride: int, name: str, conv=None):
    """Option A: every second pixel and additional channels of zeros; no parameters."""
    if stride == 1 and x.shape[-1] == filters:
        return x
    return SubsampleAndPad(filters, stride, name=f"{name}_shortcut")(x)


def no_shortcut(x, filters: int, *, stride: int, name: str, conv=None):
    """Returns None: the plain networks (section 3.3) have no shortcuts."""
    return None


SHORTCUTS = {"A": zero_padding, "B": projection, "C": all_projections}  # section 4.1's options


class SubsampleAndPad(keras.layers.Layer):
    """Takes every `stride`-th pixel and appends channels of zeros.

    Args:
        filters: Channels of the result.
        stride: Step in pixels.
        name: Name of the layer.
    """

    def __init__(self, filters: int, stride: int, *, name: str):
        super().__init__(name=name)
        self.filters, self.stride = filters, stride

    def call(self, x):
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), filters]."""
        x = pools.subsample(x, self.stride)
        return keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.filters - x.shape[-1])))


def basic(x, filters: int, *, stride: int, name: str, conv, shortcut=projection, gate=None):
    """Two 3 x 3 convolutions and a shortcut (figure 5, left).

    Args:
        x: [B, H, W, C].
        filters: Channels of the result.
        stride: Step of the first convolution, pixels.
        name: Prefix of the layers' names.
        conv: Partial `conv_norm`.
        shortcut: `projection`, `zero_padding`, `no_shortcut` or a function like them.
        gate: Function applied to the residual before the sum (default: none).

    Returns:
        [B, H / stride, W / stride, filters].
    """
    y = conv(x, filters, 3, stride=stride, name=name, number=1)
    y = ops.relu(y, name=f"{name}_relu1")
    y = conv(y, filters, 3, name=name, number=2)
    y = gate(y) if gate else y
    return _add(y, shortcut(x, filters, stride=stride, name=name, conv=conv), name)


def bottleneck(
    x,
    filters: int,
    *,
    stride: int,
    name: str,
    conv,
    strided: int = 2,
    groups: int = 1,
    group_width: int = 64,
    shortcut=projection,
):
    """1 x 1 to reduce, 3 x 3, 1 x 1 to four times `filters`, and a shortcut (figure 5, right).

    Args:
        x: [B, H, W, C].
        filters: Channels of the plain 3 x 3 convolution; a quarter of the result's.
        stride: Step of the strided convolution, pixels.
        name: Prefix of the layers' names.
        conv: Partial `conv_norm`.
        strided: Number of the strided convolution: 1 in the paper, 2 in "v1.5".
        groups: Groups of the 3 x 3 convolution (ResNeXt's cardinality).
        group_width: Channels of a group in the first stage; 128 with one group is a "wide" ResNet.
        shortcut: `projection` or a function like it.

    Returns:
        [B, H / stride, W / stride, 4 filters].
    """
    width = filters * group_width // 64 * groups
    first, second = (stride, 1) if strided == 1 else (1, stride)
    y = conv(x, width, 1, stride=first, name=name, number=1)
    y = ops.relu(y, name=f"{name}_relu1")
    y = conv(y, width, 3, stride=second, groups=groups, name=name, number=2)
    y = ops.relu(y, name=f"{name}_relu2")
    y = conv(y, 4 * filters, 1, name=name, number=3)
    return _add(y, shortcut(x, 4 * filters, stride=stride, name=name, conv=conv), name)


def conv_norm(
    x,
    filters: int,
    kernel_size: int,
    *,
    norm,
    use_bias: bool = False,
    stride: int = 1,
    groups: int = 1,
    name: str,
    number="",
):
    """Convolves with the padding that keeps the size at stride 1, then normalises.

    Args:
        x: [B, H, W, C].
        filters: Channels of the result.
        kernel_size: Height and width of the kernel, odd.
        norm: Function `(x, *, name)`.
        use_bias: Whether a bias is added.
        stride: Step in pixels.
        groups: Independent groups of channels.
        name: Prefix of the layers' names.
        number: Suffix of the layers' names.

    Returns:
        [B, ceil(H / stride), ceil(W / stride), filters].
    """
    geometry = {"stride": stride, "groups": groups, "use_bias": use_bias}
    x = ops.padded_conv(x, filters, kernel_size, **geometry, name=f"{name}_conv{number}")
    return norm(x, name=f"{name}_norm{number}")


def batch_norm(x, *, name: str, epsilon: float):
    """Batch normalisation, the default `norm` of `conv_norm`."""
    return layers.BatchNorm(epsilon=epsilon, name=name)(x)


def _add(residual, shortcut, name):
    x = residual
    if shortcut is not None:
        x = keras.layers.Add(name=f"{name}_add")([residual, shortcut])
    return ops.relu(x, name=f"{name}_relu")


_row = partial(registry.Variant, paper="He et al. 2016", year=2015)
_wide = {"paper": "Zagoruyko & Komodakis 2016", "year": 2016}

bottleneck_v1 = partial(bottleneck, strided=1)
bottleneck_wide = partial(bottleneck, group_width=128)


def _imagenet(block, depths, error, whose="", **source):
    graph = partial(resnet, stem=imagenet_stem, block=block, depths=depths)
    error = f"{error} top-1/top-5, 1 crop{whose}"
    return _row(graph, image_size=224, policy="inception", error=error, **source)


def _cifar(n, error, shortcut=zero_padding):
    """The network of 6n + 2 layers."""
    block = partial(basic, shortcut=shortcut)
    graph = partial(resnet, stem=cifar_stem, block=block, depths=(n, n, n), filters=16)
    return _row(graph, image_size=32, policy="cifar", error=error)


# Errors of the "v1.5" rows are those of Torch's published code (fb.resnet.torch), of the "_v1" rows
# those of the authors' weights.
_TORCH = " (Torch)"
_CURVE = f"{registry.UNPUBLISHED} (a curve only)"  # figure 6
VARIANTS = {
    "resnet18": _imagenet(basic, DEPTHS_18, "30.43/10.76", _TORCH),
    "resnet34": _imagenet(basic, DEPTHS_34, "26.73/8.74", _TORCH),
    "resnet50": _imagenet(bottleneck, DEPTHS_50, "24.01/7.02", _TORCH),
    "resnet101": _imagenet(bottleneck, DEPTHS_101, "22.44/6.21", _TORCH),
    "resnet152": _imagenet(bottleneck, DEPTHS_152, "22.16/6.16", _TORCH),
    "resnet50_v1": _imagenet(bottleneck_v1, DEPTHS_50, "24.7/7.8"),
    "resnet101_v1": _imagenet(bottleneck_v1, DEPTHS_101, "23.6/7.1"),
    "resnet152_v1": _imagenet(bottleneck_v1, DEPTHS_152, "23.0/6.7"),
    "wide_resnet50_2": _imagenet(bottleneck_wide, DEPTHS_50, "21.9/5.79", **_wide),
    "wide_resnet101_2": _imagenet(
        bottleneck_wide, DEPTHS_101, "21.2/5.7", " (torchvision)", **_wide
    ),
    "cifar_resnet20": _cifar(3, "8.75 CIFAR-10+"),
    "cifar_resnet32": _cifar(5, "7.51 CIFAR-10+"),
    "cifar_resnet44": _cifar(7, "7.17 CIFAR-10+"),
    "cifar_resnet56": _cifar(9, "6.97 CIFAR-10+"),
    "cifar_resnet110": _cifar(18, "6.43 CIFAR-10+, best of 5"),
    "cifar_plain20": _cifar(3, _CURVE, shortcut=no_shortcut),
    "cifar_plain56": _cifar(9, _CURVE, shortcut=no_shortcut),
}
