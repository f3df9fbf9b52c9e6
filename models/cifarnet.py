"""CifarNet.

Alex Krizhevsky's cuda-convnet layer definitions for CIFAR-10 (2011) in the form that TensorFlow's
tutorial and TF-slim made common. Transcribes TF-slim's `cifarnet`; there is no paper.

Departures: images are standardised with the mean and standard deviation of the data set, not
each with its own.
"""

from functools import partial

import keras

from models import layers, ops, pools, registry

LRN = {"radius": 4, "bias": 1.0, "alpha": 0.001 / 9}


def cifarnet(
    x,
    num_classes: int,
    *,
    activation: str = "relu",
    norm: str = "lrn",
    pooling: str = "max",
    dropout: float = 0.5,
):
    """Two convolutions and three dense layers; the first block pools before it normalises.

    Args:
        x: Standardised images, float32 [B, 32, 32, C].
        num_classes: Number of classes K.
        activation: One of `registry.ACTIVATIONS`.
        norm: "lrn" after pool1 and before pool2, "batch" after both convolutions, or "none".
        pooling: One of `registry.POOLINGS`.
        dropout: Fraction of fc3's outputs that is dropped.

    Returns:
        {"logits": float32 [B, K]}.

    Raises:
        ValueError: If `activation`, `norm` or `pooling` is unknown.
    """
    registry.require_one_of("norm", norm, registry.NORMS)

    conv = partial(_conv, norm=norm, activation=activation)
    dense = partial(_dense, activation=activation)

    def lrn(x, number):
        return layers.LocalResponseNorm(**LRN, name=f"norm{number}")(x) if norm == "lrn" else x

    x = conv(x, 1, filters=64, kernel_size=5, padding=2)  # 32 x 32 x 64
    x = pools.halve(x, pooling, name="pool1")  # 16 x 16 x 64
    x = lrn(x, 1)
    x = conv(x, 2, filters=64, kernel_size=5, padding=2)  # 16 x 16 x 64
    x = lrn(x, 2)
    x = pools.halve(x, pooling, name="pool2")  # 8 x 8 x 64
    x = keras.layers.Flatten(name="flatten")(x)
    x = dense(x, 3, units=384, dropout=dropout)
    x = dense(x, 4, units=192, dropout=None)
    return {"logits": ops.logits(x, num_classes, kernel_initializer=_normal(1 / 192), name="fc5")}


def _conv(x, number, **options):
    return ops.conv_norm_act(x, number, kernel_initializer=_normal(0.05), **options)


def _dense(x, number, **options):
    bias = keras.initializers.Constant(0.1)
    return ops.dense(x, number, kernel_initializer=_normal(0.04), bias_initializer=bias, **options)


def _normal(stddev):
    return keras.initializers.TruncatedNormal(stddev=stddev)


VARIANTS = {
    "cifarnet": registry.Variant(
        cifarnet,
        image_size=32,
        policy="cifar",
        paper="Krizhevsky 2011",
        year=2011,
        error=registry.UNPUBLISHED,
    )
}
