"""Inception v2 (BN-Inception).

Sergey Ioffe, Christian Szegedy, "Batch normalization: accelerating deep network training by
reducing internal covariate shift", ICML 2015, arXiv:1502.03167. Transcribes figure 5.

Images are mean-subtracted on the 0..255 scale. The paper's figures are for one centre crop of 224
pixels from a shorter side of 256.

Departures: figure 5 gives the projections of 4c and 4d 128 channels and yet their modules 576; with
96, as in the Caffe model by lim0606, the sums are right. Its first convolution is separable in the
text only. Padding and pools follow that model, except that average pools divide by the pixels
inside the image. The paper's auxiliary heads are not described well enough to be built. Weights
start as in He et al. (2015), which fits rectified units.
"""

from functools import partial

import keras

from models import inception_tables, ops, registry

STEM = (
    (64, 7, 2),  # 112 x 112 x 64
    ("max", 3, 2),  # 56 x 56 x 64
    (64, 1),
    (192, 3),  # 56 x 56 x 192
    ("max", 3, 2),  # 28 x 28 x 192
)

#         1x1  3x3r  3x3  double 3x3r, 3x3  pool  proj
FIGURE_5 = {
    "3a": (64, 64, 64, 64, 96, "average", 32),  # 28 x 28 x 256
    "3b": (64, 64, 96, 64, 96, "average", 64),  # 28 x 28 x 320
    "3c": (0, 128, 160, 64, 96, "max", 0),  # 14 x 14 x 576
    "4a": (224, 64, 96, 96, 128, "average", 128),  # 14 x 14 x 576
    "4b": (192, 96, 128, 96, 128, "average", 128),  # 14 x 14 x 576
    "4c": (160, 128, 160, 128, 160, "average", 96),  # 14 x 14 x 576
    "4d": (96, 128, 192, 160, 192, "average", 96),  # 14 x 14 x 576
    "4e": (0, 128, 192, 192, 256, "max", 0),  # 7 x 7 x 1024
    "5a": (352, 192, 320, 160, 224, "average", 128),  # 7 x 7 x 1024
    "5b": (352, 192, 320, 192, 224, "max", 128),  # 7 x 7 x 1024
}


def inception_v2(
    x,
    num_classes: int,
    *,
    projections=(),
    count_border: bool = False,
    epsilon: float = 1e-3,
    dropout: float = 0.0,
):
    """A stem of three convolutions, then ten modules, of which two halve the maps.

    Args:
        x: Mean-subtracted images on the scale of 0..255, float32 [B, 224, 224, C].
        num_classes: Number of classes K.
        projections: Pairs of a module and the channels of its pool branch, where they are not those
            of figure 5: (("4c", 128), ("4d", 128)) in Caffe's version.
        count_border: Whether average pools see a border of zeros, as in Caffe's version.
        epsilon: Number added to batch normalisation's variances.
        dropout: Fraction of the last 1024 features that is dropped; the paper removes it.

    Returns:
        {"logits": float32 [B, K]}.
    """
    conv = partial(inception_tables.conv_norm_relu, epsilon=epsilon)
    options = {"conv": conv, "count_border": count_border}
    x = inception_tables.chain(x, STEM, conv=conv, name="stem")
    for key, row in FIGURE_5.items():
        row = (*row[:-1], dict(projections).get(key, row[-1]))
        x = inception_tables.module(x, _module(*row), **options, name=f"inception_{key}")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(dropout, name="drop")(x)
    return {"logits": ops.logits(x, num_classes, name="fc")}


def _module(one, three_reduce, three, double_reduce, double, pool, projection):
    """A module; without a 1 x 1 branch it halves the maps, and its pool passes through."""
    if not one:
        return {
            "3x3": ((three_reduce, 1), (three, 3, 2)),
            "double": ((double_reduce, 1), (double, 3), (double, 3, 2)),
            "pool": ((pool, 3, 2),),
        }
    return {
        "1x1": ((one, 1),),
        "3x3": ((three_reduce, 1), (three, 3)),
        "double": ((double_reduce, 1), (double, 3), (double, 3)),
        "pool": ((pool, 3), (projection, 1)),
    }


_row = partial(registry.Variant, image_size=224, policy="inception", std=1.0)

VARIANTS = {
    "inception_v2": _row(
        inception_v2,
        paper="Ioffe & Szegedy 2015",
        year=2015,
        error="25.2/7.8 top-1/top-5, 1 crop",
    )
}
