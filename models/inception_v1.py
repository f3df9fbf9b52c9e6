"""GoogLeNet (Inception v1), with local response normalisation or batch normalisation.

Christian Szegedy, Wei Liu, Yangqing Jia, Pierre Sermanet, Scott Reed, Dragomir Anguelov, Dumitru
Erhan, Vincent Vanhoucke, Andrew Rabinovich, "Going deeper with convolutions", CVPR 2015,
arXiv:1409.4842. Transcribes table 1, figure 3 and section 5.

Images are mean-subtracted and stay on the 0..255 scale. The paper's figures are for one centre crop
of 224 pixels from a shorter side of 256, and for 10 and 144 crops.

Departures: gaps in the paper are filled from Caffe's `bvlc_googlenet`: pools are cut off at the
border, local response normalisation has k = 1 and alpha divided by its window of 5, weights start
uniform over the incoming connections, biases at 0.2. The average pool covers the whole map, and
the heads' windows shrink with it, for any image size. `googlenet_bn` is the row
"BN-GoogLeNet" of arXiv:1512.00567: batch normalisation after every convolution, whose bias it makes
superfluous, and the 5 x 5 convolutions of table 1 kept.
"""

from functools import partial

import keras

from models import inception_tables, initializers, layers, ops, pools, registry

CAFFE_LRN = {"radius": 2, "bias": 1.0, "alpha": 2e-5}

#         1x1  3x3r  3x3  5x5r  5x5  proj
TABLE_1 = {
    "3a": (64, 96, 128, 16, 32, 32),  # 28 x 28 x 256
    "3b": (128, 128, 192, 32, 96, 64),  # 28 x 28 x 480
    "4a": (192, 96, 208, 16, 48, 64),  # 14 x 14 x 512
    "4b": (160, 112, 224, 24, 64, 64),  # 14 x 14 x 512
    "4c": (128, 128, 256, 24, 64, 64),  # 14 x 14 x 512
    "4d": (112, 144, 288, 32, 64, 64),  # 14 x 14 x 528
    "4e": (256, 160, 320, 32, 128, 128),  # 14 x 14 x 832
    "5a": (256, 160, 320, 32, 128, 128),  # 7 x 7 x 832
    "5b": (384, 192, 384, 48, 128, 128),  # 7 x 7 x 1024
}
POOLED = ("3b", "4e")
HEADS = {"4a": "aux1", "4d": "aux2"}


def googlenet(
    x,
    num_classes: int,
    *,
    norm: str = "lrn",
    largest: int = 5,
    last_window: int = 3,
    dropout: float = 0.4,
    aux_heads: bool = False,
):
    """A stem of three convolutions, then nine modules.

    Args:
        x: Mean-subtracted images on the scale of 0..255, float32 [B, 224, 224, C].
        num_classes: Number of classes K.
        norm: "lrn" twice in the stem, "batch" after every convolution, or "none".
        largest: Side of the kernels of the "5x5" branches: 3 in torchvision's version.
        last_window: Side of the last max pool's windows: 2 in torchvision's version.
        dropout: Fraction of the last 1024 features that is dropped.
        aux_heads: Whether to add the heads of section 5 on modules 4a and 4d.

    Returns:
        {"logits": float32 [B, K]}, with heads also "aux1" and "aux2".

    Raises:
        ValueError: If `norm` is unknown.
    """
    registry.require_one_of("norm", norm, registry.NORMS)
    conv = inception_tables.conv_norm_relu if norm == "batch" else _conv_relu
    x = _stem(x, conv, lrn=norm == "lrn")  # 28 x 28 x 192
    outputs = {}
    for key, row in TABLE_1.items():
        x = inception_tables.module(x, _module(*row, largest), conv=conv, name=f"inception_{key}")
        if aux_heads and key in HEADS:
            outputs[HEADS[key]] = _head(x, num_classes, conv, HEADS[key])
        if key in POOLED:
            # 14 x 14 x 480, 7 x 7 x 832
            window = last_window if key == POOLED[-1] else 3
            x = inception_tables.pool(x, "max", window, 2, name=f"pool_{key}")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(dropout, name="drop")(x)
    outputs["logits"] = ops.logits(x, num_classes, kernel_initializer=_xavier(), name="fc")
    return outputs


def _stem(x, conv, *, lrn):
    x = conv(x, 64, 7, 2, name="conv1")  # 112 x 112 x 64
    x = inception_tables.pool(x, "max", 3, 2, name="pool1")  # 56 x 56 x 64
    if lrn:
        x = layers.LocalResponseNorm(**CAFFE_LRN, name="norm1")(x)
    x = conv(x, 64, 1, name="conv2_reduce")
    x = conv(x, 192, 3, name="conv2")  # 56 x 56 x 192
    if lrn:
        x = layers.LocalResponseNorm(**CAFFE_LRN, name="norm2")(x)
    return inception_tables.pool(x, "max", 3, 2, name="pool2")


def _module(one, three_reduce, three, five_reduce, five, projection, largest):
    """Figure 2 (b)."""
    return {
        "1x1": ((one, 1),),
        "3x3": ((three_reduce, 1), (three, 3)),
        "5x5": ((five_reduce, 1), (five, largest)),
        "pool": (("max", 3), (projection, 1)),
    }


def _head(x, num_classes, conv, name):
    """Section 5: a pool, a 1 x 1 convolution and two dense layers."""
    x = pools.pool(x, min(5, *x.shape[1:3]), 3, kind="average", name=f"{name}_pool")  # 4 x 4
    x = conv(x, 128, 1, name=name)
    x = keras.layers.Flatten(name=f"{name}_flatten")(x)
    x = keras.layers.Dense(
        1024,
        activation="relu",
        kernel_initializer=_xavier(),
        bias_initializer=_bias(),
        name=f"{name}_dense",
    )(x)
    x = keras.layers.Dropout(0.7, name=f"{name}_drop")(x)
    return ops.logits(x, num_classes, kernel_initializer=_xavier(), name=f"{name}_fc")


def _conv_relu(x, filters, kernel_size, stride=1, padding="same", *, name):
    x = ops.conv(
        x,
        filters,
        kernel_size,
        stride=stride,
        padding=inception_tables.border(kernel_size, padding),
        kernel_initializer=_xavier(),
        bias_initializer=_bias(),
        name=f"{name}_conv",
    )
    return ops.relu(x, name=f"{name}_relu")


_xavier = initializers.caffe_xavier


def _bias():
    return keras.initializers.Constant(0.2)


_row = partial(
    registry.Variant,
    image_size=224,
    policy="inception",
    std=1.0,
    paper="Szegedy et al. 2015",
    year=2014,
    aux_weight=0.3,
)

VARIANTS = {
    "googlenet": _row(googlenet, error="10.07 top-5, 1 crop"),
    "googlenet_bn": _row(
        partial(googlenet, norm="batch"),
        paper="Szegedy et al. 2016",
        year=2015,
        error="26.8 top-1, 1 crop",
    ),
}
