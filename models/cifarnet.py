"""CifarNet.

Alex Krizhevsky's cuda-convnet layer definitions for CIFAR-10 (2011) in the form that TensorFlow's
tutorial and TF-slim made common. Transcribes TF-slim's `cifarnet`; there is no paper.

Departures: images are standardised with the data's mean and deviation, not each with its own.
"""

import keras

from models import layers, ops, registry

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
        norm: "lrn" around the pools, "batch" after both convolutions, or "none".
        pooling: One of `registry.POOLINGS`.
        dropout: Fraction of fc3's outputs that is dropped.

    Returns:
        {"logits": float32 [B, K]}.

    Raises:
        ValueError: If `activation`, `norm` or `pooling` is unknown.
    """
    registry.require_one_of("norm", norm, registry.NORMS)

    def active(x, number):
        return ops.activation(x, activation, name=f"{activation}{number}")

    def convolve(x, number):
        x = _conv(x, f"conv{number}", use_bias=norm != "batch")
        if norm == "batch":
            x = layers.BatchNorm(name=f"norm{number}")(x)
        return active(x, number)

    def respond(x, number):
        return layers.LocalResponseNorm(**LRN, name=f"norm{number}")(x) if norm == "lrn" else x

    x = convolve(x, 1)  # 32 x 32 x 64
    x = ops.halve(x, pooling, name="pool1")  # 16 x 16 x 64
    x = respond(x, 1)
    x = convolve(x, 2)  # 16 x 16 x 64
    x = respond(x, 2)
    x = ops.halve(x, pooling, name="pool2")  # 8 x 8 x 64
    x = keras.layers.Flatten(name="flatten")(x)
    x = active(_dense(x, 384, "fc3"), 3)
    x = keras.layers.Dropout(dropout, name="drop3")(x)
    x = active(_dense(x, 192, "fc4"), 4)
    return {"logits": ops.logits(x, num_classes, kernel_initializer=_normal(1 / 192), name="fc5")}


def _conv(x, name, use_bias):
    return ops.conv(
        x, 64, 5, padding=2, use_bias=use_bias, kernel_initializer=_normal(0.05), name=name
    )


def _dense(x, units, name):
    return keras.layers.Dense(
        units,
        kernel_initializer=_normal(0.04),
        bias_initializer=keras.initializers.Constant(0.1),
        name=name,
    )(x)


def _normal(stddev):
    return keras.initializers.TruncatedNormal(stddev=stddev)


VARIANTS = {
    "cifarnet": registry.Variant(
        cifarnet, image_size=32, policy="cifar", paper="Krizhevsky 2011", year=2011
    )
}
