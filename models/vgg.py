"""VGG, with and without batch normalisation.

Karen Simonyan, Andrew Zisserman, "Very deep convolutional networks for large-scale image
recognition", ICLR 2015, arXiv:1409.1556. Transcribes table 1, configurations A, B, D and E.

Images are mean-subtracted and stay on the 0..255 scale. Weights start as in Glorot and Bengio
(2010), which the paper found to work without first training configuration A.

Departures: table 3 lists the errors of dense evaluation, here a test takes crops. The `_bn`
networks, which are not in the paper, normalise after every convolution and leave out its bias,
which Torch keeps.
"""

from functools import partial

import keras

from models import layers, ops, pools, registry

FILTERS = (64, 128, 256, 512, 512)

#           convolutions in each stage: table 1
DEPTHS_A = (1, 1, 2, 2, 2)
DEPTHS_B = (2, 2, 2, 2, 2)
DEPTHS_D = (2, 2, 3, 3, 3)
DEPTHS_E = (2, 2, 4, 4, 4)


def vgg(
    x,
    num_classes: int,
    *,
    depths,
    activation: str = "relu",
    norm: str = "none",
    dropout: float = 0.5,
):
    """Five stages of 3 x 3 convolutions, each ended by a pool, and three dense layers.

    Args:
        x: Mean-subtracted images on the scale of 0..255, float32 [B, 224, 224, C].
        num_classes: Number of classes K.
        depths: Convolutions in each stage.
        activation: One of `registry.ACTIVATIONS`.
        norm: "lrn" after the first convolution (A-LRN in the paper), "batch" after all, or "none".
        dropout: Fraction of fc6's and fc7's outputs that is dropped.

    Returns:
        {"logits": float32 [B, K]}.

    Raises:
        ValueError: If `activation` or `norm` is unknown.
    """
    registry.require_one_of("norm", norm, registry.NORMS)
    conv = partial(ops.conv_norm_act, kernel_size=3, padding=1, norm=norm, activation=activation)
    dense = partial(ops.dense, units=4096, activation=activation, dropout=dropout)
    for stage, (depth, filters) in enumerate(zip(depths, FILTERS, strict=True), start=1):
        # after the pools: 112 x 112 x 64, 56 x 56 x 128, 28 x 28 x 256, 14 x 14 x 512, 7 x 7 x 512
        for index in range(1, depth + 1):
            number = f"{stage}_{index}"
            x = conv(x, number, filters)
            if norm == "lrn" and number == "1_1":
                x = layers.LocalResponseNorm(name="norm1_1")(x)
        x = pools.halve(x, "max", name=f"pool{stage}")
    x = keras.layers.Flatten(name="flatten")(x)
    x = dense(x, 6)
    x = dense(x, 7)
    return {"logits": ops.logits(x, num_classes, name="fc8")}


def _row(depths, norm, error):
    return registry.Variant(
        partial(vgg, depths=depths, norm=norm),
        image_size=224,
        policy="alexnet",
        std=1.0,
        paper="Simonyan & Zisserman 2015",
        year=2014,
        error=error,
    )


VARIANTS = {
    "vgg11": _row(DEPTHS_A, "none", "29.6/10.4 top-1/top-5, dense (recalled)"),
    "vgg13": _row(DEPTHS_B, "none", "28.7/9.9 top-1/top-5, dense (recalled)"),
    "vgg16": _row(DEPTHS_D, "none", "27.0/8.8 top-1/top-5, dense"),
    "vgg19": _row(DEPTHS_E, "none", "27.3/9.0 top-1/top-5, dense"),
    "vgg11_bn": _row(DEPTHS_A, "batch", "29.6/10.2 top-1/top-5, 1 crop (torchvision)"),
    "vgg13_bn": _row(DEPTHS_B, "batch", "28.4/9.6 top-1/top-5, 1 crop (torchvision)"),
    "vgg16_bn": _row(DEPTHS_D, "batch", "26.6/8.5 top-1/top-5, 1 crop (torchvision)"),
    "vgg19_bn": _row(DEPTHS_E, "batch", "25.8/8.2 top-1/top-5, 1 crop (torchvision)"),
}
