"""DenseNet: every layer sees the maps of all layers before it in its block.

Gao Huang, Zhuang Liu, Laurens van der Maaten, Kilian Weinberger, "Densely connected convolutional
networks", CVPR 2017, arXiv:1608.06993. Transcribes table 1 (ImageNet) and section 3 (CIFAR; "BC":
bottlenecks of four times the growth rate and transitions that halve the channels).

Departures: none in the graph. With `epsilon=1.001e-5` DenseNet-121, -169 and -201 are the networks
of Keras Applications. Weights start as in He et al. (2015), scaled by the outgoing connections,
as in the authors' code.
"""

from functools import partial

import keras

from models import ops, pools, registry

#             layers in each dense block: table 1
DEPTHS_121 = (6, 12, 24, 16)
DEPTHS_169 = (6, 12, 32, 32)
DEPTHS_201 = (6, 12, 48, 32)
DEPTHS_161 = (6, 12, 36, 24)


def densenet(
    x,
    num_classes: int,
    *,
    stem,
    depths,
    growth_rate: int,
    bottleneck: bool = True,
    compression: float = 0.5,
    dropout: float = 0.0,
    epsilon: float = 1e-5,
    stem_filters: int | None = None,
):
    """Dense blocks with transitions between them, which halve the maps.

    Args:
        x: Standardised images, float32 [B, S, S, C].
        num_classes: Number of classes K.
        stem: Function `(x, *, conv, activate)` that applies the layers before the blocks.
        depths: Layers in each block.
        growth_rate: Channels k that each layer adds.
        bottleneck: Whether a 1 x 1 convolution to 4 k channels precedes each 3 x 3 ("B").
        compression: Fraction of the channels that a transition keeps ("C").
        dropout: Fraction dropped after every convolution but the first; 0.2 in the paper for data
            without augmentation.
        epsilon: Number added to batch normalisation's variances.
        stem_filters: Channels of the stem (default: the network's own).

    Returns:
        {"logits": float32 [B, K]}.
    """
    if stem_filters is not None:
        stem = partial(stem, filters=stem_filters)
    conv = partial(_conv, dropout=dropout)
    activate = partial(ops.norm_relu, epsilon=epsilon)
    grow = partial(_layer, growth_rate=growth_rate, bottleneck=bottleneck)
    x = stem(x, conv=partial(conv, dropout=0.0), activate=activate)
    for block, depth in enumerate(depths, start=1):
        # densenet121:        56 x 56 x 256, 28 x 28 x 512, 14 x 14 x 1024, 7 x 7 x 1024
        # densenet40_k12:     32 x 32 x 160, 16 x 16 x 304, 8 x 8 x 448
        # densenet_bc100_k12: 32 x 32 x 216, 16 x 16 x 300, 8 x 8 x 342
        for index in range(1, depth + 1):
            name = f"block{block}_layer{index}"
            x = grow(x, conv=conv, activate=activate, name=name)
        if block < len(depths):
            # densenet121: 28 x 28 x 128, 14 x 14 x 256, 7 x 7 x 512
            name = f"transition{block}"
            x = activate(x, name=name)
            x = conv(x, int(x.shape[-1] * compression), 1, name=name)
            x = pools.pool(x, 2, 2, kind="average", name=f"{name}_pool")
    x = activate(x, name="final")
    return {"logits": ops.pooled_logits(x, num_classes)}


def imagenet_stem(x, *, conv, activate, filters: int):
    """7 x 7 convolution, activation and 3 x 3 pool."""
    x = activate(conv(x, filters, 7, stride=2, name="stem"), name="stem")  # 112 x 112 x 64
    return pools.pool(x, 3, 2, padding=1, name="stem_pool")  # 56 x 56 x 64


def cifar_stem(x, *, conv, activate, filters: int):
    """A 3 x 3 convolution alone."""
    return conv(x, filters, 3, name="stem")


def _layer(x, *, conv, activate, growth_rate, bottleneck, name):
    """Appends `growth_rate` channels to x."""
    y = activate(x, name=name, number=1)
    if bottleneck:
        y = conv(y, 4 * growth_rate, 1, name=name, number=1)
        y = activate(y, name=name, number=2)
    y = conv(y, growth_rate, 3, name=name, number=2 if bottleneck else 1)
    return keras.layers.Concatenate(name=f"{name}_concat")([x, y])


def _conv(x, filters, kernel_size, *, dropout, stride=1, name, number=""):
    x = ops.padded_conv(x, filters, kernel_size, stride=stride, name=f"{name}_conv{number}")
    return keras.layers.Dropout(dropout, name=f"{name}_dropout{number}")(x) if dropout else x


_row = partial(registry.Variant, paper="Huang et al. 2017", year=2016)


def _imagenet(depths, growth_rate, error):
    stem = partial(imagenet_stem, filters=2 * growth_rate)
    graph = partial(densenet, stem=stem, depths=depths, growth_rate=growth_rate)
    error = f"{error} top-1/top-5, 1 crop"
    return _row(graph, image_size=224, policy="inception", error=error)


def _plain(layer_count, growth_rate, error):
    """DenseNet of `layer_count` = 3 n + 4 layers, without B and C."""
    stem = partial(cifar_stem, filters=16)
    depths = ((layer_count - 4) // 3,) * 3
    options = {"growth_rate": growth_rate, "bottleneck": False, "compression": 1.0}
    return _cifar(partial(densenet, stem=stem, depths=depths, **options), error)


def _bc(layer_count, growth_rate, error):
    """DenseNet-BC of `layer_count` = 6 n + 4 layers."""
    stem = partial(cifar_stem, filters=2 * growth_rate)
    depths = ((layer_count - 4) // 6,) * 3
    return _cifar(partial(densenet, stem=stem, depths=depths, growth_rate=growth_rate), error)


def _cifar(graph, error):
    return _row(graph, image_size=32, policy="cifar", error=f"{error} CIFAR-10+")


VARIANTS = {
    "densenet121": _imagenet(DEPTHS_121, 32, "25.02/7.71"),
    "densenet169": _imagenet(DEPTHS_169, 32, "23.80/6.85"),
    "densenet201": _imagenet(DEPTHS_201, 32, "22.58/6.34"),
    "densenet161": _imagenet(DEPTHS_161, 48, "22.33/6.15 (recalled)"),
    "densenet40_k12": _plain(40, 12, "5.24"),
    "densenet100_k12": _plain(100, 12, "4.10"),
    "densenet100_k24": _plain(100, 24, "3.74"),
    "densenet_bc100_k12": _bc(100, 12, "4.51"),
    "densenet_bc250_k24": _bc(250, 24, "3.62"),
    "densenet_bc190_k40": _bc(190, 40, "3.46"),
}
