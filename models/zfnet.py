"""ZFNet.

Matthew Zeiler, Rob Fergus, "Visualizing and understanding convolutional networks", ECCV 2014,
arXiv:1311.2901. Transcribes figure 3.

Images are mean-subtracted and stay on the 0..255 scale, as for AlexNet.

Departures: the first convolution pads 1 pixel, the pools round up as Caffe's and the fourth to
sixth layers pad too, as the figure's map sizes require. The contrast is normalised with AlexNet's
constants, because the paper gives none. Filters of the first layer are not rescaled during
training.
"""

from functools import partial

import keras

from models import ops, pools, registry

#         filters, kernel, stride, padding: figure 3
CONVOLUTIONS = (
    (96, 7, 2, 1),  # 110 x 110, pooled to 55 x 55
    (256, 5, 2, 0),  # 26 x 26, pooled to 13 x 13
    (384, 3, 1, 1),
    (384, 3, 1, 1),
    (256, 3, 1, 1),  # 13 x 13, pooled to 6 x 6
)
POOLED = (1, 2, 5)
NORMALIZED = (1, 2)
DENSE = (4096, 4096)
LRN = {"radius": 2, "bias": 2.0, "alpha": 1e-4}


def zfnet(
    x,
    num_classes: int,
    *,
    convolutions=CONVOLUTIONS,
    normalized=NORMALIZED,
    dense=DENSE,
    lrn=LRN,
    pool_first: bool = True,
    pooling: str = "max_overlapping",
    dropout: float = 0.5,
):
    """Five convolutions and three dense layers.

    Args:
        x: Mean-subtracted images on the scale of 0..255, float32 [B, 224, 224, C].
        num_classes: Number of classes K.
        convolutions: Rows as in `CONVOLUTIONS`.
        normalized: Numbers of the pools that local response normalisation follows.
        dense: Units of fc6 and fc7.
        lrn: Arguments of `layers.LocalResponseNorm`.
        pool_first: Whether to pool before local response normalisation.
        pooling: One of `registry.POOLINGS`.
        dropout: Fraction of fc6's and fc7's outputs that is dropped.

    Returns:
        {"logits": float32 [B, K]}.

    Raises:
        ValueError: If `pooling` is unknown.
    """
    for number, (filters, kernel_size, stride, padding) in enumerate(convolutions, start=1):
        geometry = {"stride": stride, "padding": padding}
        x = ops.conv_norm_act(
            x, number, filters, kernel_size, **geometry, kernel_initializer=_normal()
        )
        if number in POOLED:
            order = {"pooling": pooling, "pool_first": pool_first}
            x = pools.lrn_halve(x, number, lrn=lrn if number in normalized else None, **order)
    x = keras.layers.Flatten(name="flatten")(x)
    for number, units in enumerate(dense, start=6):
        x = ops.dense(x, number, units, dropout=dropout, kernel_initializer=_normal())
    return {"logits": ops.logits(x, num_classes, kernel_initializer=_normal(), name="fc8")}


_normal = partial(keras.initializers.RandomNormal, stddev=0.01)

VARIANTS = {
    "zfnet": registry.Variant(
        zfnet,
        image_size=224,
        policy="alexnet",
        std=1.0,
        paper="Zeiler & Fergus 2014",
        year=2013,
        error="38.3/16.4 top-1/top-5, 10 crops",
    )
}
