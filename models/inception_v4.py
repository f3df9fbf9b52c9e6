"""Inception v4.

Christian Szegedy, Sergey Ioffe, Vincent Vanhoucke, Alex Alemi, "Inception-v4, Inception-ResNet and
the impact of residual connections on learning", AAAI 2017, arXiv:1602.07261. Transcribes figures 3
to 9; "V" is the figures' mark of a convolution without padding.

Images are scaled to -1..1. The paper's figures are for one centre crop of 299 pixels, 87.5 % of the
shorter side, and for 12 and 144 crops.

Departures: the order of 1 x 7 and 7 x 1 convolutions is that of the authors' published model, and
so are the initial weights (He et al. 2015); its normalisation has no gamma, which is `scale=False`
here. Its auxiliary head, which the paper does not mention, is left out.
"""

from functools import partial

import keras

from models import inception_tables, ops, registry
from models.inception_tables import VALID

FIGURE_3 = (
    (32, 3, 2, VALID),  # 149 x 149 x 32
    (32, 3, 1, VALID),  # 147 x 147 x 32
    (64, 3),  # 147 x 147 x 64
    {"pool": (("max", 3, 2, VALID),), "3x3": ((96, 3, 2, VALID),)},  # 73 x 73 x 160
    {
        "3x3": ((64, 1), (96, 3, 1, VALID)),
        "7x7": ((64, 1), (64, (1, 7)), (64, (7, 1)), (96, 3, 1, VALID)),
    },  # 71 x 71 x 192
    {"3x3": ((192, 3, 2, VALID),), "pool": (("max", 3, 2, VALID),)},  # 35 x 35 x 384
)
FIGURE_4 = {
    "1x1": ((96, 1),),
    "3x3": ((64, 1), (96, 3)),
    "double_3x3": ((64, 1), (96, 3), (96, 3)),
    "pool": (("average", 3), (96, 1)),
}
FIGURE_5 = {
    "1x1": ((384, 1),),
    "7x7": ((192, 1), (224, (1, 7)), (256, (7, 1))),
    "double_7x7": ((192, 1), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7))),
    "pool": (("average", 3), (128, 1)),
}
SPREAD = {"1x3": ((256, (1, 3)),), "3x1": ((256, (3, 1)),)}
FIGURE_6 = {
    "1x1": ((256, 1),),
    "3x3": ((384, 1), SPREAD),
    "double_3x3": ((384, 1), (448, (3, 1)), (512, (1, 3)), SPREAD),
    "pool": (("average", 3), (256, 1)),
}
FIGURE_7 = {
    "3x3": ((384, 3, 2, VALID),),
    "double_3x3": ((192, 1), (224, 3), (256, 3, 2, VALID)),
    "pool": (("max", 3, 2, VALID),),
}
FIGURE_8 = {
    "3x3": ((192, 1), (192, 3, 2, VALID)),
    "7x7": ((256, 1), (256, (1, 7)), (320, (7, 1)), (320, 3, 2, VALID)),
    "pool": (("max", 3, 2, VALID),),
}

FIGURE_9 = (
    ("inception_a", FIGURE_4, 4),  # 35 x 35 x 384
    ("reduction_a", FIGURE_7, 1),  # 17 x 17 x 1024
    ("inception_b", FIGURE_5, 7),  # 17 x 17 x 1024
    ("reduction_b", FIGURE_8, 1),  # 8 x 8 x 1536
    ("inception_c", FIGURE_6, 3),  # 8 x 8 x 1536
)


def inception_v4(
    x, num_classes: int, *, modules=FIGURE_9, dropout: float = 0.2, scale: bool = True
):
    """A branching stem, then sixteen modules at 35, 17 and 8 pixels.

    Args:
        x: Images scaled to -1..1, float32 [B, 299, 299, C].
        num_classes: Number of classes K.
        modules: Name, table and number of each kind of module, in their order.
        dropout: Fraction of the last 1536 features that is dropped.
        scale: Whether batch normalisation has a gamma.

    Returns:
        {"logits": float32 [B, K]}.
    """
    conv = partial(inception_tables.conv_norm_relu, scale=scale)
    x = inception_tables.chain(x, FIGURE_3, conv=conv, name="stem")
    for name, table, count in modules:
        for number in range(1, count + 1):
            x = inception_tables.module(x, table, conv=conv, name=f"{name}{number}")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(dropout, name="drop")(x)
    return {"logits": ops.logits(x, num_classes, name="fc")}


VARIANTS = {
    "inception_v4": registry.Variant(
        inception_v4,
        image_size=299,
        policy="inception",
        mean=127.5,
        std=127.5,
        paper="Szegedy et al. 2017",
        year=2016,
        error="20.0/5.0 top-1/top-5, 1 crop",
    )
}
