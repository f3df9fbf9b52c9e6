"""Inception-ResNet v1 and v2.

Christian Szegedy, Sergey Ioffe, Vincent Vanhoucke, Alex Alemi, "Inception-v4, Inception-ResNet and
the impact of residual connections on learning", AAAI 2017, arXiv:1602.07261. Transcribes figures 10
to 15 (v1); v2 is the authors' published model.

Images are scaled to -1..1. The paper's figures are for one centre crop of 299 pixels, 87.5 % of the
shorter side, and for 12 and 144 crops.

Departures: the paper's figures 15 to 19 (v2: the stem of Inception v4, 5, 10 and 5 blocks) describe
a net of 32 million parameters, which cannot be the one behind its results; the published one has
another stem, 10, 20 and 10 blocks and a last 1 x 1 convolution. Residuals are scaled as in that
model, in v1 too, where the paper leaves the factor open between 0.1 and 0.3. Dropout (0.2) and the
initial weights (He et al. 2015) are the published model's; its normalisation has no gamma, which is
`scale=False` here.
"""

from functools import partial

import keras

from models import inception_tables, layers, ops, registry
from models.inception_tables import VALID

STEM = (
    (32, 3, 2, VALID),  # 149 x 149 x 32
    (32, 3, 1, VALID),  # 147 x 147 x 32
    (64, 3),  # 147 x 147 x 64
    ("max", 3, 2, VALID),  # 73 x 73 x 64
    (80, 1),  # 73 x 73 x 80
    (192, 3, 1, VALID),  # 71 x 71 x 192
)
STEM_V1 = (*STEM, (256, 3, 2, VALID))  # 35 x 35 x 256
STEM_V2 = (
    *STEM,
    ("max", 3, 2, VALID),  # 35 x 35 x 192
    {
        "1x1": ((96, 1),),
        "5x5": ((48, 1), (64, 5)),
        "double_3x3": ((64, 1), (96, 3), (96, 3)),
        "pool": (("average", 3), (64, 1)),
    },  # 35 x 35 x 320
)

A_V1 = {"1x1": ((32, 1),), "3x3": ((32, 1), (32, 3)), "double_3x3": ((32, 1), (32, 3), (32, 3))}
A_V2 = {"1x1": ((32, 1),), "3x3": ((32, 1), (32, 3)), "double_3x3": ((32, 1), (48, 3), (64, 3))}
B_V1 = {"1x1": ((128, 1),), "7x7": ((128, 1), (128, (1, 7)), (128, (7, 1)))}
B_V2 = {"1x1": ((192, 1),), "7x7": ((128, 1), (160, (1, 7)), (192, (7, 1)))}
C_V1 = {"1x1": ((192, 1),), "3x3": ((192, 1), (192, (1, 3)), (192, (3, 1)))}
C_V2 = {"1x1": ((192, 1),), "3x3": ((192, 1), (224, (1, 3)), (256, (3, 1)))}


def reduction_a(reduce: int, middle: int, last: int, single: int) -> dict:
    """Returns figure 7's module with the channels of table 1: its k, l, m, n."""
    return {
        "3x3": ((single, 3, 2, VALID),),
        "double_3x3": ((reduce, 1), (middle, 3), (last, 3, 2, VALID)),
        "pool": (("max", 3, 2, VALID),),
    }


def reduction_b(first: int, second: int, middle: int, last: int) -> dict:
    """Returns figure 13's module with the channels of its three 3 x 3 branches."""
    return {
        "3x3": ((256, 1), (first, 3, 2, VALID)),
        "other_3x3": ((256, 1), (second, 3, 2, VALID)),
        "double_3x3": ((256, 1), (middle, 3), (last, 3, 2, VALID)),
        "pool": (("max", 3, 2, VALID),),
    }


#   blocks, their table, the factor of their residuals, steps after the blocks
STAGES_V1 = (
    (5, A_V1, 0.17, (reduction_a(192, 192, 256, 384),)),  # 35 x 35 x 256, then 17 x 17 x 896
    (10, B_V1, 0.10, (reduction_b(384, 256, 256, 256),)),  # 17 x 17 x 896, then 8 x 8 x 1792
    (5, C_V1, 0.20, ()),  # 8 x 8 x 1792
)
STAGES_V2 = (
    (10, A_V2, 0.17, (reduction_a(256, 256, 384, 384),)),  # 35 x 35 x 320, then 17 x 17 x 1088
    (20, B_V2, 0.10, (reduction_b(384, 288, 288, 320),)),  # 17 x 17 x 1088, then 8 x 8 x 2080
    (9, C_V2, 0.20, ()),  # 8 x 8 x 2080
    (1, C_V2, None, ((1536, 1),)),  # 8 x 8 x 2080, then 8 x 8 x 1536
)


def inception_resnet(
    x,
    num_classes: int,
    *,
    stem,
    stages,
    last_block: bool = False,
    embedding: int = 0,
    dropout: float = 0.2,
    scale: bool = True,
):
    """A stem, then stages of residual blocks at 35, 17 and 8 pixels.

    Args:
        x: Images scaled to -1..1, float32 [B, 299, 299, C].
        num_classes: Number of classes K.
        stem: Steps before the blocks.
        stages: Rows as in `STAGES_V1`; a factor of None leaves the residual unscaled and the sum
            unrectified.
        last_block: Whether another such block follows the last stage's, as in facenet's v1.
        embedding: Units of a normalised dense layer before the classifier, likewise 512; 0: none.
        dropout: Fraction of the last features that is dropped.
        scale: Whether batch normalisation has a gamma.

    Returns:
        {"logits": float32 [B, K]}.
    """
    conv = partial(inception_tables.conv_norm_relu, scale=scale)
    if last_block:
        stages = (*stages, (1, stages[-1][1], None, ()))
    x = inception_tables.chain(x, stem, conv=conv, name="stem")
    for stage, (count, table, factor, after) in enumerate(stages, start=1):
        for number in range(1, count + 1):
            x = _block(x, table, factor, conv=conv, name=f"stage{stage}_block{number}")
        x = inception_tables.chain(x, after, conv=conv, name=f"stage{stage}_after")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(dropout, name="drop")(x)
    if embedding:
        x = keras.layers.Dense(embedding, use_bias=False, name="embedding")(x)
        x = layers.BatchNorm(epsilon=1e-3, name="embedding_norm")(x)
    return {"logits": ops.logits(x, num_classes, name="fc")}


def _block(x, table, factor, *, conv, name):
    """Branches, a 1 x 1 convolution without normalisation, and a shortcut (figure 20)."""
    y = inception_tables.module(x, table, conv=conv, name=name)
    y = ops.conv(y, x.shape[-1], 1, kernel_initializer="he_normal", name=f"{name}_up")
    if factor is not None:
        y = keras.layers.Rescaling(factor, name=f"{name}_scale")(y)
    x = keras.layers.Add(name=f"{name}_add")([x, y])
    return x if factor is None else ops.relu(x, name=f"{name}_relu")


_row = partial(
    registry.Variant,
    image_size=299,
    policy="inception",
    mean=127.5,
    std=127.5,
    paper="Szegedy et al. 2017",
    year=2016,
)

VARIANTS = {
    "inception_resnet_v1": _row(
        partial(inception_resnet, stem=STEM_V1, stages=STAGES_V1),
        error="21.3/5.5 top-1/top-5, 1 crop",
    ),
    "inception_resnet_v2": _row(
        partial(inception_resnet, stem=STEM_V2, stages=STAGES_V2),
        error="19.9/4.9 top-1/top-5, 1 crop",
    ),
}
