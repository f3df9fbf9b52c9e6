"""Inception v3.

Christian Szegedy, Vincent Vanhoucke, Sergey Ioffe, Jonathon Shlens, Zbigniew Wojna, "Rethinking the
Inception architecture for computer vision", CVPR 2016, arXiv:1512.00567. Transcribes table 1 and
figures 5 to 8 and 10, with the widths of the authors' published model, which the paper omits.

Images are scaled to -1..1. The paper's figures are for one centre crop of 299 pixels, 87.5 % of the
shorter side, and for 12 and 144 crops.

Departures: table 1's third convolution is followed by a pool and a 1 x 1 of 80 channels, as in the
published model, and the 35 x 35 modules keep a 5 x 5 convolution. Dropout (0.2) and the initial
weights (He et al. 2015) are that model's too; its normalisation has no gamma, which is
`scale=False` here. The average pool covers the whole map, and the head's windows shrink with it.
"""

from functools import partial

import keras

from models import inception_tables, ops, pools, registry
from models.inception_tables import VALID

STEM = (
    (32, 3, 2, VALID),  # 149 x 149 x 32
    (32, 3, 1, VALID),  # 147 x 147 x 32
    (64, 3),  # 147 x 147 x 64
    ("max", 3, 2, VALID),  # 73 x 73 x 64
    (80, 1),  # 73 x 73 x 80
    (192, 3, 1, VALID),  # 71 x 71 x 192
    ("max", 3, 2, VALID),  # 35 x 35 x 192
)


def figure_5(projection: int) -> dict:
    """Returns a module for 35 x 35 pixels; `projection`: channels of its pool branch."""
    return {
        "1x1": ((64, 1),),
        "5x5": ((48, 1), (64, 5)),
        "double_3x3": ((64, 1), (96, 3), (96, 3)),
        "pool": (("average", 3), (projection, 1)),
    }


def figure_6(width: int) -> dict:
    """Returns a module for 17 x 17 pixels; `width`: channels inside its long branches."""
    c = width
    return {
        "1x1": ((192, 1),),
        "7x7": ((c, 1), (c, (1, 7)), (192, (7, 1))),
        "double_7x7": ((c, 1), (c, (7, 1)), (c, (1, 7)), (c, (7, 1)), (192, (1, 7))),
        "pool": (("average", 3), (192, 1)),
    }


SPREAD = {"1x3": ((384, (1, 3)),), "3x1": ((384, (3, 1)),)}
FIGURE_7 = {
    "1x1": ((320, 1),),
    "3x3": ((384, 1), SPREAD),
    "double_3x3": ((448, 1), (384, 3), SPREAD),
    "pool": (("average", 3), (192, 1)),
}
FROM_35_TO_17 = {
    "3x3": ((384, 3, 2, VALID),),
    "double_3x3": ((64, 1), (96, 3), (96, 3, 2, VALID)),
    "pool": (("max", 3, 2, VALID),),
}
FROM_17_TO_8 = {
    "3x3": ((192, 1), (320, 3, 2, VALID)),
    "7x7": ((192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2, VALID)),
    "pool": (("max", 3, 2, VALID),),
}

MODULES = {
    "5b": figure_5(32),  # 35 x 35 x 256
    "5c": figure_5(64),  # 35 x 35 x 288
    "5d": figure_5(64),  # 35 x 35 x 288
    "6a": FROM_35_TO_17,  # 17 x 17 x 768
    "6b": figure_6(128),  # 17 x 17 x 768
    "6c": figure_6(160),  # 17 x 17 x 768
    "6d": figure_6(160),  # 17 x 17 x 768
    "6e": figure_6(192),  # 17 x 17 x 768
    "7a": FROM_17_TO_8,  # 8 x 8 x 1280
    "7b": FIGURE_7,  # 8 x 8 x 2048
    "7c": FIGURE_7,  # 8 x 8 x 2048
}
HEAD = "6e"


def inception_v3(
    x,
    num_classes: int,
    *,
    dropout: float = 0.2,
    scale: bool = True,
    count_border: bool = False,
    aux_heads: bool = False,
):
    """A stem of five convolutions, then eleven modules at 35, 17 and 8 pixels.

    Args:
        x: Images scaled to -1..1, float32 [B, 299, 299, C].
        num_classes: Number of classes K.
        dropout: Fraction of the last 2048 features that is dropped.
        scale: Whether batch normalisation has a gamma.
        count_border: Whether average pools see a border of zeros, as in Torch's versions.
        aux_heads: Whether to add the head of section 4 on the last 17 x 17 module.

    Returns:
        {"logits": float32 [B, K]}, with the head also "aux1".
    """
    conv = partial(inception_tables.conv_norm_relu, scale=scale)
    x = inception_tables.chain(x, STEM, conv=conv, name="stem")
    outputs = {}
    for key, table in MODULES.items():
        options = {"conv": conv, "count_border": count_border}
        x = inception_tables.module(x, table, **options, name=f"mixed_{key}")
        if aux_heads and key == HEAD:
            outputs["aux1"] = _head(x, num_classes, conv)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(dropout, name="drop")(x)
    outputs["logits"] = ops.logits(x, num_classes, name="fc")
    return outputs


def _head(x, num_classes, conv):
    """Figure 8, with batch normalisation (section 7)."""
    x = pools.pool(x, min(5, *x.shape[1:3]), 3, kind="average", name="aux1_pool")  # 5 x 5 x 768
    x = conv(x, 128, 1, name="aux1_1")
    x = conv(x, 768, min(5, *x.shape[1:3]), 1, VALID, name="aux1_2")  # 1 x 1 x 768
    x = keras.layers.Flatten(name="aux1_flatten")(x)
    return ops.logits(x, num_classes, name="aux1_fc")


VARIANTS = {
    "inception_v3": registry.Variant(
        inception_v3,
        image_size=299,
        policy="inception",
        mean=127.5,
        std=127.5,
        paper="Szegedy et al. 2016",
        year=2015,
        error="21.2/5.6 top-1/top-5, 1 crop",
        aux_weight=0.4,
    )
}
