"""AlexNet, its single-tower, one-GPU and batch-normalised forms, and CaffeNet.

Alex Krizhevsky, Ilya Sutskever, Geoffrey Hinton, "ImageNet classification with deep convolutional
neural networks", NIPS 2012. Transcribes section 3.5 and figure 2; `alexnet_owt` follows Alex
Krizhevsky, "One weird trick for parallelizing convolutional neural networks", arXiv:1404.5997.

Images are mean-subtracted and stay on the 0..255 scale: on a smaller one local response
normalisation would have nothing to divide by.

Departures: figure 2 says 224 pixels, but its 55 x 55 maps need 227 without padding (Caffe's
reading) or 224 with 2 pixels on each side (`alexnet_owt`, as in torchvision). `alexnet_owt` has no
local response normalisation. `alexnet_bn` puts batch normalisation after every convolution, whose
bias it makes superfluous. `alexnet_one_tower` and `caffenet` (Caffe's reference network: it pools
before it normalises, alpha and k as in Caffe, fc6 and fc7 from N(0, 0.005)) are not in the papers.
"""

from functools import partial

import keras

from models import layers, ops, registry

PAPER_LRN = {"radius": 2, "bias": 2.0, "alpha": 1e-4}
CAFFE_LRN = {"radius": 2, "bias": 1.0, "alpha": 2e-5}


def alexnet(
    x,
    num_classes: int,
    *,
    filters=(96, 256, 384, 384, 256),
    towers: int = 2,
    padding: int = 0,
    activation: str = "relu",
    norm: str = "lrn",
    pooling: str = "max_overlapping",
    lrn=PAPER_LRN,
    pool_first: bool = False,
    conv_stddev=(0.01, 0.01, 0.01, 0.01, 0.01),
    dense_stddev: float = 0.01,
    dropout: float = 0.5,
):
    """Five convolutions and three dense layers.

    Args:
        x: Mean-subtracted images on the scale of 0..255, float32 [B, 227, 227, C].
        num_classes: Number of classes K.
        filters: Channels of the convolutions, over all towers.
        towers: 2 for the paper's two GPUs, which exchange maps only at conv3 and the dense layers.
        padding: Zeros around the image, pixels on each side.
        activation: One of `registry.ACTIVATIONS`.
        norm: "lrn" after conv1 and conv2, "batch" after all five convolutions, or "none".
        pooling: One of `registry.POOLINGS`; the paper's overlap (section 3.4).
        lrn: Arguments of `layers.LocalResponseNorm`.
        pool_first: Whether to pool before local response normalisation.
        conv_stddev: Of the convolutions' initial weights.
        dense_stddev: Of fc6's and fc7's initial weights.
        dropout: Fraction of fc6's and fc7's outputs that is dropped.

    Returns:
        {"logits": float32 [B, K]}.

    Raises:
        ValueError: If `activation`, `norm` or `pooling` is unknown.
    """
    registry.require_one_of("norm", norm, registry.NORMS)
    conv = partial(
        _conv,
        filters=filters,
        stddev=conv_stddev,
        activation=activation,
        batch_norm=norm == "batch",
    )
    shrink = partial(
        _shrink, lrn=lrn if norm == "lrn" else None, pooling=pooling, pool_first=pool_first
    )
    dense = partial(_dense, stddev=dense_stddev, activation=activation, dropout=dropout)

    x = conv(x, 1, 11, stride=4, padding=padding, bias=0.0)  # 55 x 55 x 96
    x = shrink(x, 1)  # 27 x 27 x 96
    x = conv(x, 2, 5, padding=2, groups=towers, bias=1.0)  # 27 x 27 x 256
    x = shrink(x, 2)  # 13 x 13 x 256
    x = conv(x, 3, 3, padding=1, bias=0.0)  # 13 x 13 x 384
    x = conv(x, 4, 3, padding=1, groups=towers, bias=1.0)  # 13 x 13 x 384
    x = conv(x, 5, 3, padding=1, groups=towers, bias=1.0)  # 13 x 13 x 256
    x = ops.halve(x, pooling, name="pool5")  # 6 x 6 x 256
    x = keras.layers.Flatten(name="flatten")(x)
    x = dense(x, 6)
    x = dense(x, 7)
    return {"logits": ops.logits(x, num_classes, kernel_initializer=_normal(0.01), name="fc8")}


def _conv(x, number, kernel_size, *, filters, stddev, bias, activation, batch_norm, **options):
    x = ops.conv(
        x,
        filters[number - 1],
        kernel_size,
        use_bias=not batch_norm,
        kernel_initializer=_normal(stddev[number - 1]),
        bias_initializer=keras.initializers.Constant(bias),
        name=f"conv{number}",
        **options,
    )
    if batch_norm:
        x = layers.BatchNorm(name=f"norm{number}")(x)
    return ops.activation(x, activation, name=f"{activation}{number}")


def _shrink(x, number, *, lrn, pooling, pool_first):
    """Normalises and pools, in the order asked for."""
    if lrn and not pool_first:
        x = layers.LocalResponseNorm(**lrn, name=f"norm{number}")(x)
    x = ops.halve(x, pooling, name=f"pool{number}")
    if lrn and pool_first:
        x = layers.LocalResponseNorm(**lrn, name=f"norm{number}")(x)
    return x


def _dense(x, number, *, stddev, activation, dropout):
    x = keras.layers.Dense(
        4096, kernel_initializer=_normal(stddev), bias_initializer="ones", name=f"fc{number}"
    )(x)
    x = ops.activation(x, activation, name=f"{activation}{number}")
    return keras.layers.Dropout(dropout, name=f"drop{number}")(x)


def _normal(stddev):
    return keras.initializers.RandomNormal(stddev=stddev)


_row = partial(
    registry.Variant,
    image_size=227,
    policy="alexnet",
    std=1.0,
    paper="Krizhevsky et al. 2012",
    year=2012,
)

VARIANTS = {
    "alexnet": _row(alexnet, error="40.7/18.2 top-1/top-5, 10 crops"),
    "alexnet_bn": _row(partial(alexnet, norm="batch")),
    "alexnet_one_tower": _row(partial(alexnet, towers=1)),
    "alexnet_one_gpu": _row(partial(alexnet, towers=1, filters=(48, 128, 192, 192, 256))),
    "alexnet_owt": _row(
        partial(
            alexnet,
            towers=1,
            filters=(64, 192, 384, 256, 256),
            padding=2,
            norm="none",
            conv_stddev=(0.01, 0.01, 0.03, 0.03, 0.03),
        ),
        image_size=224,
        paper="Krizhevsky 2014",
        year=2014,
        error="42.33 top-1 (recalled)",
    ),
    "caffenet": _row(
        partial(alexnet, lrn=CAFFE_LRN, pool_first=True, dense_stddev=0.005),
        paper="Jia et al. 2014",
        year=2014,
        error="42.6/19.6 top-1/top-5, 1 crop",
    ),
}
