"""Pre-activation ResNet ("v2"): batch normalisation and ReLU come before each convolution.

Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun, "Identity mappings in deep residual networks",
ECCV 2016, arXiv:1603.05027. Transcribes figure 4 (e), the appendix, and the depths of the authors'
code. Where the shape changes, shortcut and residual share one pre-activation.

Departures: the ImageNet networks stride in the 3 x 3 convolution and normalise and rectify in the
stem, which serves as the first unit's pre-activation, both as in Torch's published code; the CIFAR
networks stride in the first convolution as in the authors' code. Images are standardised, where
the paper subtracts the mean of every pixel. Weights start as in models/resnet.py.
"""

from functools import partial

import keras

from models import ops, pools, registry, resnet

#            units in conv2_x, conv3_x, conv4_x, conv5_x
DEPTHS_50 = (3, 4, 6, 3)
DEPTHS_101 = (3, 4, 23, 3)
DEPTHS_152 = (3, 8, 36, 3)
DEPTHS_200 = (3, 24, 36, 3)


def preresnet(
    x,
    num_classes: int,
    *,
    stem,
    unit,
    depths,
    filters: int,
    activated: bool = False,
    pool_first: bool = False,
    shortcut: str | None = None,
    strided: int | None = None,
    fan: str = "fan_out",
):
    """Stages of pre-activated units; each halves the maps and doubles the channels.

    Args:
        x: Standardised images, float32 [B, S, S, C].
        num_classes: Number of classes K.
        stem: Function `(x, *, conv)` that applies the layers before the stages.
        unit: Function `(x, filters, *, stride, name, conv, activated)`, one residual unit.
        depths: Units in each stage.
        filters: Channels of the 3 x 3 convolutions of the first stage.
        activated: Whether the stem ends in an activation, which then serves the first unit.
        pool_first: Whether the ImageNet stem pools before it normalises, as in timm.
        shortcut: "B" for 1 x 1 convolutions where the shape changes (default: the network's own).
        strided: Number of the strided convolution of bottlenecks (default: the network's own).
        fan: Connections that scale the initial weights, "fan_in" or "fan_out".

    Returns:
        {"logits": float32 [B, K]}.
    """
    conv = partial(ops.padded_conv, fan=fan)
    if pool_first:
        stem = pooled_stem
    if shortcut is not None:
        registry.require_one_of("shortcut", shortcut, ("B",))
        unit = partial(unit, shortcut=None)
    if strided is not None:
        unit = partial(unit, strided=strided)
    x = stem(x, conv=conv)  # 56 x 56 x 64; cifar 32 x 32 x 16
    for stage, depth in enumerate(depths, start=1):
        # preresnet50:         56 x 56 x 256, 28 x 28 x 512, 14 x 14 x 1024, 7 x 7 x 2048
        # cifar_preresnet110:  32 x 32 x 16, 16 x 16 x 32, 8 x 8 x 64
        # cifar_preresnet164:  32 x 32 x 64, 16 x 16 x 128, 8 x 8 x 256
        for index in range(1, depth + 1):
            x = unit(
                x,
                filters * 2 ** (stage - 1),
                stride=2 if stage > 1 and index == 1 else 1,
                name=f"stage{stage}_unit{index}",
                conv=conv,
                activated=activated and stage == index == 1,
            )
    x = ops.norm_relu(x, name="final")
    return {"logits": ops.pooled_logits(x, num_classes)}


def imagenet_stem(x, *, conv):
    """7 x 7 convolution, activation and 3 x 3 pool."""
    x = ops.norm_relu(conv(x, 64, 7, stride=2, name="stem_conv"), name="stem")  # 112 x 112 x 64
    return pools.pool(x, 3, 2, padding=1, name="stem_pool")


def pooled_stem(x, *, conv):
    """`imagenet_stem` with the pool before the normalisation."""
    x = conv(x, 64, 7, stride=2, name="stem_conv")  # 112 x 112 x 64
    return ops.norm_relu(pools.centred_max(x, name="stem_pool"), name="stem")


def cifar_stem(x, *, conv):
    """A 3 x 3 convolution alone."""
    return conv(x, 16, 3, name="stem_conv")


def basic(
    x,
    filters: int,
    *,
    stride: int,
    name: str,
    conv,
    activated: bool = False,
    dropout: float = 0.0,
    shortcut=None,
):
    """Two 3 x 3 convolutions.

    Args:
        x: [B, H, W, C].
        filters: Channels of the result.
        stride: Step of the first convolution, pixels.
        name: Prefix of the layers' names.
        conv: Function `(x, filters, kernel_size, *, stride, name)`.
        activated: Whether x is already activated.
        dropout: Fraction dropped between the convolutions.
        shortcut: Function `(x, filters, *, stride, name)` where the shape changes (default: a
            1 x 1 convolution).

    Returns:
        [B, H / stride, W / stride, filters].
    """
    y, short = _split(x, filters, stride, name, activated, shortcut or partial(_project, conv=conv))
    y = conv(y, filters, 3, stride=stride, name=f"{name}_conv1")
    y = ops.norm_relu(y, name=name, number=2)
    if dropout:
        y = keras.layers.Dropout(dropout, name=f"{name}_dropout")(y)
    y = conv(y, filters, 3, name=f"{name}_conv2")
    return keras.layers.Add(name=f"{name}_add")([y, short])


def bottleneck(
    x,
    filters: int,
    *,
    stride: int,
    name: str,
    conv,
    activated: bool = False,
    strided: int = 2,
):
    """1 x 1 to reduce, 3 x 3, 1 x 1 to four times `filters`.

    Args:
        x: [B, H, W, C].
        filters: Channels of the 3 x 3 convolution; a quarter of the result's.
        stride: Step of the strided convolution, pixels.
        name: Prefix of the layers' names.
        conv: Function `(x, filters, kernel_size, *, stride, name)`.
        activated: Whether x is already activated.
        strided: Number of the strided convolution, 1 or 2.

    Returns:
        [B, H / stride, W / stride, 4 filters].
    """
    first, second = (stride, 1) if strided == 1 else (1, stride)
    y, short = _split(x, 4 * filters, stride, name, activated, partial(_project, conv=conv))
    y = conv(y, filters, 1, stride=first, name=f"{name}_conv1")
    y = conv(ops.norm_relu(y, name=name, number=2), filters, 3, stride=second, name=f"{name}_conv2")
    y = conv(ops.norm_relu(y, name=name, number=3), 4 * filters, 1, name=f"{name}_conv3")
    return keras.layers.Add(name=f"{name}_add")([y, short])


def _split(x, filters, stride, name, activated, shortcut):
    """Returns the activated input of the residual, and the shortcut."""
    y = x if activated else ops.norm_relu(x, name=name, number=1)
    if stride == 1 and x.shape[-1] == filters:
        return y, x
    return y, shortcut(y, filters, stride=stride, name=name)


def _project(x, filters, *, stride, name, conv):
    return conv(x, filters, 1, stride=stride, name=f"{name}_shortcut_conv")


_row = partial(registry.Variant, paper="He et al. 2016b", year=2016)


def _imagenet(depths, error):
    stages = {"unit": bottleneck, "depths": depths, "filters": 64, "activated": True}
    graph = partial(preresnet, stem=imagenet_stem, **stages)
    return _row(graph, image_size=224, policy="inception", error=error)


def _cifar(unit, n, error):
    graph = partial(preresnet, stem=cifar_stem, unit=unit, depths=(n, n, n), filters=16)
    return _row(graph, image_size=32, policy="cifar", error=f"{error} CIFAR-10+")


_basic = partial(basic, shortcut=resnet.zero_padding)
_bottleneck = partial(bottleneck, strided=1)

VARIANTS = {
    "preresnet50": _imagenet(DEPTHS_50, "22.5/6.6 top-1/top-5, 1 crop (pytorchcv)"),
    "preresnet101": _imagenet(DEPTHS_101, "21.0/5.6 top-1/top-5, 1 crop (pytorchcv)"),
    "preresnet152": _imagenet(DEPTHS_152, "21.1/5.5 top-1/top-5, 1 crop of 320"),
    "preresnet200": _imagenet(DEPTHS_200, "21.66/5.79 top-1/top-5, 1 crop (Torch)"),
    "cifar_preresnet110": _cifar(_basic, 18, "6.37"),
    "cifar_preresnet164": _cifar(_bottleneck, 18, "5.46"),
    "cifar_preresnet1001": _cifar(_bottleneck, 111, "4.62"),
}
