"""AlexNet, its single-tower, one-GPU and batch-normalised variants, and CaffeNet.

Alex Krizhevsky, Ilya Sutskever, Geoffrey Hinton, "ImageNet classification with deep convolutional
neural networks", NIPS 2012. Transcribes section 3.5 and figure 2; `alexnet_owt` follows Alex
Krizhevsky, "One weird trick for parallelizing convolutional neural networks", arXiv:1404.5997.

Images are mean-subtracted but not divided by a standard deviation: on a scale smaller than 0..255
local response normalisation would have no effect.

Departures: figure 2 says 224 pixels, but its 55 x 55 maps need 227 without padding (as in Caffe) or
224 with 2 pixels of padding on each side (`alexnet_owt`, as in torchvision). `alexnet_owt` has no
local response normalisation. `alexnet_bn` has batch normalisation after every convolution, which
then needs no bias. Not in the papers: `alexnet_one_tower`, which has no grouped convolutions, and
`caffenet`, Caffe's reference network, which pools before local response normalisation, has another
alpha and k for it, and initialises fc6 and fc7 from N(0, 0.005).
"""

from functools import partial

import keras

from models import ops, pools, registry

PAPER_LRN = {"radius": 2, "bias": 2.0, "alpha": 1e-4}
CAFFE_LRN = {"radius": 2, "bias": 1.0, "alpha": 2e-5}  # Caffe divides its alpha 1e-4 by 5 channels


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
    stddev=(0.01,) * 7,
    dropout: float = 0.5,
):
    """Five convolutions, with pooling after conv1, conv2 and conv5, and three dense layers.

    Args:
        x: Mean-subtracted images on the scale of 0..255, float32 [B, 227, 227, C].
        num_classes: Number of classes K.
        filters: Output channels of conv1 to conv5, over all towers.
        towers: Groups of conv2, conv4 and conv5: 2 as on the paper's two GPUs, which exchange their
            maps only before conv3 and the dense layers.
        padding: Zero padding of conv1 on each side of the image, pixels.
        activation: One of `registry.ACTIVATIONS`.
        norm: "lrn" after conv1 and conv2, "batch" after all five convolutions, or "none".
        pooling: One of `registry.POOLINGS`; the paper's windows overlap (section 3.4).
        lrn: Arguments of `layers.LocalResponseNorm` (section 3.3).
        pool_first: Whether to pool before local response normalisation.
        stddev: Standard deviations of the initial weights of conv1 to conv5, fc6 and fc7.
        dropout: Fraction of fc6's and fc7's outputs that is dropped.

    Returns:
        {"logits": float32 [B, K]}.

    Raises:
        ValueError: If `activation`, `norm` or `pooling` is unknown.
    """
    registry.require_one_of("norm", norm, registry.NORMS)
    conv = partial(_conv, stddev=stddev, norm=norm, activation=activation)
    dense = partial(_dense, stddev=stddev, activation=activation, dropout=dropout)
    lrn = lrn if norm == "lrn" else None
    lrn_pool = partial(pools.lrn_halve, lrn=lrn, pooling=pooling, pool_first=pool_first)
    c1, c2, c3, c4, c5 = filters

    x = conv(x, 1, filters=c1, kernel_size=11, stride=4, padding=padding)  # 55 x 55 x 96
    x = lrn_pool(x, 1)  # 27 x 27 x 96
    x = conv(x, 2, filters=c2, kernel_size=5, padding=2, groups=towers, bias=1.0)  # 27 x 27 x 256
    x = lrn_pool(x, 2)  # 13 x 13 x 256
    x = conv(x, 3, filters=c3, kernel_size=3, padding=1)  # 13 x 13 x 384
    x = conv(x, 4, filters=c4, kernel_size=3, padding=1, groups=towers, bias=1.0)  # 13 x 13 x 384
    x = conv(x, 5, filters=c5, kernel_size=3, padding=1, groups=towers, bias=1.0)  # 13 x 13 x 256
    x = pools.halve(x, pooling, name="pool5")  # 6 x 6 x 256
    x = keras.layers.Flatten(name="flatten")(x)
    x = dense(x, 6, units=4096)
    x = dense(x, 7, units=4096)
    return {"logits": ops.logits(x, num_classes, kernel_initializer=_normal(0.01), name="fc8")}


def _conv(x, number, *, stddev, bias=0.0, **options):
    """Convolution, batch normalisation if `norm` is "batch", and activation."""
    options["kernel_initializer"] = _normal(stddev[number - 1])
    options["bias_initializer"] = keras.initializers.Constant(bias)
    return ops.conv_norm_act(x, number, **options)


def _dense(x, number, *, stddev, **options):
    """Dense layer whose biases start at 1, activation and dropout."""
    options["kernel_initializer"] = _normal(stddev[number - 1])
    return ops.dense(x, number, bias_initializer="ones", **options)


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
    "alexnet_bn": _row(partial(alexnet, norm="batch"), error=registry.UNPUBLISHED),
    "alexnet_one_tower": _row(
        partial(alexnet, towers=1), error="38.5/16.6 top-1/top-5, 1 crop (pytorchcv)"
    ),
    "alexnet_one_gpu": _row(
        partial(alexnet, towers=1, filters=(48, 128, 192, 192, 256)),
        error="1.7/1.2 more than alexnet (recalled)",  # section 3.2
    ),
    "alexnet_owt": _row(
        partial(
            alexnet,
            towers=1,
            filters=(64, 192, 384, 256, 256),
            padding=2,
            norm="none",
            stddev=(0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01),
        ),
        image_size=224,
        paper="Krizhevsky 2014",
        year=2014,
        error="42.33 top-1 (recalled)",
    ),
    "caffenet": _row(
        partial(alexnet, lrn=CAFFE_LRN, pool_first=True, stddev=(*(0.01,) * 5, 0.005, 0.005)),
        paper="Jia et al. 2014",
        year=2014,
        error="42.6/19.6 top-1/top-5, 1 crop",
    ),
}
