"""ResNet, for ImageNet and for CIFAR.

Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun, "Deep residual learning for image recognition",
CVPR 2016, arXiv:1512.03385. Transcribes table 1 (ImageNet) and section 4.2 (CIFAR, 6n + 2 layers).

Departures: bottlenecks stride in the 3 x 3 convolution ("v1.5", as in Torch), not in the first
1 x 1. Images are standardised, where the paper subtracts the mean of every pixel. Weights start
as in He et al. (2015), normal over the outgoing connections, and the classifier's uniform in
1 / sqrt(features), both as in Torch's published training code.
"""

from functools import partial

import keras
from keras import ops

from models import layers

#            blocks in conv2_x, conv3_x, conv4_x, conv5_x: table 1
DEPTHS_18 = (2, 2, 2, 2)
DEPTHS_34 = (3, 4, 6, 3)
DEPTHS_50 = (3, 4, 6, 3)
DEPTHS_101 = (3, 4, 23, 3)
DEPTHS_152 = (3, 8, 36, 3)


def resnet(x, num_classes: int, *, stem, block, depths, filters: int = 64):
    """Stages of residual blocks; each halves the maps and doubles the channels of the one before.

    Args:
        x: Standardised images, float32 [B, S, S, C].
        num_classes: Number of classes K.
        stem: Function `(x, filters)`: what comes before the stages.
        block: Function `(x, filters, *, stride, name)`: one residual block.
        depths: Blocks in each stage.
        filters: Channels of the stem and of the 3 x 3 convolutions of the first stage.

    Returns:
        {"logits": float32 [B, K]}.
    """
    x = stem(x, filters)  # 56 x 56 x 64; cifar 32 x 32 x 16
    for stage, depth in enumerate(depths, start=1):
        # resnet18: 56 x 56 x 64, 28 x 28 x 128, 14 x 14 x 256, 7 x 7 x 512
        # resnet50: 56 x 56 x 256, 28 x 28 x 512, 14 x 14 x 1024, 7 x 7 x 2048
        # cifar:    32 x 32 x 16, 16 x 16 x 32, 8 x 8 x 64
        for index in range(1, depth + 1):
            stride = 2 if stage > 1 and index == 1 else 1
            name = f"stage{stage}_block{index}"
            x = block(x, filters * 2 ** (stage - 1), stride=stride, name=name)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    uniform = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
    return {"logits": layers.logits(x, num_classes, kernel_initializer=uniform, name="fc")}


def imagenet_stem(x, filters: int):
    """7 x 7 convolution and 3 x 3 pool, both with stride 2."""
    x = _conv_norm(x, filters, 7, stride=2, name="stem")  # 112 x 112 x 64
    x = layers.relu(x, name="stem_relu")
    return layers.pool(x, 3, 2, padding=1, name="stem_pool")


def cifar_stem(x, filters: int):
    """One 3 x 3 convolution."""
    return layers.relu(_conv_norm(x, filters, 3, name="stem"), name="stem_relu")


def projection(x, filters: int, *, stride: int, name: str):
    """Option B: a 1 x 1 convolution where the shape changes, else the identity."""
    if stride == 1 and x.shape[-1] == filters:
        return x
    return _conv_norm(x, filters, 1, stride=stride, name=f"{name}_shortcut")


def zero_padding(x, filters: int, *, stride: int, name: str):
    """Option A: every second pixel and additional channels of zeros; no parameters."""
    if stride == 1 and x.shape[-1] == filters:
        return x
    return SubsampleAndPad(filters, stride, name=f"{name}_shortcut")(x)


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
        x = x[:, :: self.stride, :: self.stride]
        return ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.filters - x.shape[-1])))


def basic(x, filters: int, *, stride: int, name: str, shortcut=projection):
    """Two 3 x 3 convolutions and a shortcut (figure 5, left)."""
    y = _conv_norm(x, filters, 3, stride=stride, name=name, number=1)
    y = layers.relu(y, name=f"{name}_relu1")
    y = _conv_norm(y, filters, 3, name=name, number=2)
    return _add(y, shortcut(x, filters, stride=stride, name=name), name)


def bottleneck(
    x,
    filters: int,
    *,
    stride: int,
    name: str,
    groups: int = 1,
    group_width: int = 64,
    shortcut=projection,
):
    """1 x 1 to reduce, 3 x 3, 1 x 1 to four times `filters`, and a shortcut (figure 5, right).

    Args:
        x: [B, H, W, C].
        filters: Channels of the plain 3 x 3 convolution; a quarter of the result's.
        stride: Step of the 3 x 3 convolution, pixels.
        name: Prefix of the layers' names.
        groups: Groups of the 3 x 3 convolution (ResNeXt's cardinality).
        group_width: Channels of a group in the first stage; 128 with one group is a "wide" ResNet.
        shortcut: `projection` or `zero_padding`.

    Returns:
        [B, H / stride, W / stride, 4 filters].
    """
    width = filters * group_width // 64 * groups
    y = _conv_norm(x, width, 1, name=name, number=1)
    y = layers.relu(y, name=f"{name}_relu1")
    y = _conv_norm(y, width, 3, stride=stride, groups=groups, name=name, number=2)
    y = layers.relu(y, name=f"{name}_relu2")
    y = _conv_norm(y, 4 * filters, 1, name=name, number=3)
    return _add(y, shortcut(x, 4 * filters, stride=stride, name=name), name)


def _add(residual, shortcut, name):
    x = keras.layers.Add(name=f"{name}_add")([residual, shortcut])
    return layers.relu(x, name=f"{name}_relu")


def _conv_norm(x, filters, kernel_size, *, stride=1, groups=1, name, number=""):
    x = layers.conv(
        x,
        filters,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        groups=groups,
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
        name=f"{name}_conv{number}",
    )
    return layers.BatchNorm(momentum=0.9, epsilon=1e-5, name=f"{name}_norm{number}")(x)


def _imagenet(block, depths):
    graph = partial(resnet, stem=imagenet_stem, block=block, depths=depths)
    return layers.Variant(graph, image_size=224, policy="inception")


def _cifar(n):
    """The network of 6n + 2 layers."""
    block = partial(basic, shortcut=zero_padding)
    graph = partial(resnet, stem=cifar_stem, block=block, depths=(n, n, n), filters=16)
    return layers.Variant(graph, image_size=32, policy="cifar")


VARIANTS = {
    "resnet18": _imagenet(basic, DEPTHS_18),
    "resnet34": _imagenet(basic, DEPTHS_34),
    "resnet50": _imagenet(bottleneck, DEPTHS_50),
    "resnet101": _imagenet(bottleneck, DEPTHS_101),
    "resnet152": _imagenet(bottleneck, DEPTHS_152),
    "cifar_resnet20": _cifar(3),
    "cifar_resnet32": _cifar(5),
    "cifar_resnet44": _cifar(7),
    "cifar_resnet56": _cifar(9),
    "cifar_resnet110": _cifar(18),
}
