"""Plain CIFAR networks of 14 and 19 layers that differ in their kernels only.

From an unpublished study of 2017 with the predecessor of this application: 19 layers of 3 x 3, 19
layers of 5 x 5, and 14 layers in which 3 x 3, 7 x 7, 3 x 3 and 5 x 5 take turns. The activations,
poolings and normalisations that it compares are options here, as they are in LeNet, AlexNet and
VGG.

Departures: the study records numbers of layers and kernels, not widths: 32, 64 and 128 channels
here, doubled where a pool halves the maps, and averaged maps before the one dense layer. The 14
layers have one more 3 x 3 in front. Weights start as in He et al. (2015).
"""

from functools import partial

import keras

from models import initializers, layers, ops, pools, registry

FILTERS = (32, 64, 128)

#   kernels of the convolutions in each stage; the dense layer is the last of the 14 or 19
SMALL = ((3,) * 6,) * 3
LARGE = ((5,) * 6,) * 3
MIXED = ((3, 3, 7, 3, 5), (3, 7, 3, 5), (3, 7, 3, 5))


def plain(
    x,
    num_classes: int,
    *,
    kernels,
    width: float = 1.0,
    activation: str = "relu",
    norm: str = "batch",
    pooling: str = "max",
    dropout: float = 0.0,
):
    """Three stages of convolutions with pools between them, averaged maps, a dense layer.

    Args:
        x: Standardised images, float32 [B, 32, 32, C].
        num_classes: Number of classes K.
        kernels: Kernel sizes of each stage's convolutions.
        width: Multiplies all channels.
        activation: One of `registry.ACTIVATIONS`.
        norm: "lrn" before each pool, "batch" after every convolution, or "none".
        pooling: One of `registry.POOLINGS`.
        dropout: Fraction of the averaged maps that is dropped.

    Returns:
        {"logits": float32 [B, K]}.

    Raises:
        ValueError: If `activation`, `norm` or `pooling` is unknown, or `width` leaves no channel.
    """
    if int(FILTERS[0] * width) < 1:
        raise ValueError(f"width is too small, expected at least 1/32, received {width}")
    registry.require_one_of("norm", norm, registry.NORMS)
    for stage, (sizes, filters) in enumerate(zip(kernels, FILTERS, strict=True), start=1):
        # 32 x 32 x 32, 16 x 16 x 64, 8 x 8 x 128
        if stage > 1:
            if norm == "lrn":
                x = layers.LocalResponseNorm(name=f"norm{stage - 1}")(x)
            x = pools.halve(x, pooling, name=f"pool{stage - 1}")
        for index, size in enumerate(sizes, start=1):
            x = ops.conv_norm_act(
                x,
                f"{stage}_{index}",
                int(filters * width),
                size,
                padding=size // 2,
                norm=norm,
                activation=activation,
                kernel_initializer=initializers.he_normal("fan_in"),
            )
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    x = keras.layers.Dropout(dropout, name="drop")(x)
    return {"logits": ops.logits(x, num_classes, name="fc")}


def _row(kernels):
    return registry.Variant(
        partial(plain, kernels=kernels),
        image_size=32,
        policy="cifar",
        paper="2017 study, unpublished",
        year=2017,
        error=registry.UNPUBLISHED,
    )


VARIANTS = {
    "study2017_3x3": _row(SMALL),
    "study2017_5x5": _row(LARGE),
    "study2017_mixed": _row(MIXED),
}
