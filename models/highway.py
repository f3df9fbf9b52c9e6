"""Highway network of 19 layers for CIFAR.

Rupesh Kumar Srivastava, Klaus Greff, Juergen Schmidhuber, "Training very deep networks", NIPS 2015,
arXiv:1507.06228. Transcribes equation 3 and the network of table 2, widths as in the authors'
configuration.

Departures: images are standardised where the authors normalise the contrast of each. Weights start
as in He et al. (2015), the gates' biases at -2 as in the authors' configuration.
"""

import keras

from models import initializers, ops, pools, registry

#        filters, highway layers
STAGES = (
    (32, 4),  # 32 x 32, pooled to 16 x 16
    (80, 5),  # 16 x 16, pooled to 8 x 8
    (128, 5),  # 8 x 8
)
ACTIVATIONS = tuple(kind for kind in registry.ACTIVATIONS if kind != "crelu")


class Gate(keras.layers.Layer):
    """Equation 3: passes the transformed maps where the gate is open, else the carried maps."""

    def call(self, transformed, gate, carried):
        """Mixes `transformed` and `carried` by `gate` in 0..1, all three [B, H, W, C]."""
        return transformed * gate + carried * (1 - gate)


def highway(
    x,
    num_classes: int,
    *,
    activation: str = "relu",
    pooling: str = "max",
    dropout: float = 0.2,
):
    """Three stages of a convolution and highway layers, then averaged maps.

    Args:
        x: Standardised images, float32 [B, 32, 32, C].
        num_classes: Number of classes K.
        activation: One of `registry.ACTIVATIONS` except crelu, which changes the channels.
        pooling: One of `registry.POOLINGS`.
        dropout: Fraction of the image, the first pooled maps and the last maps that is dropped.

    Returns:
        {"logits": float32 [B, K]}.

    Raises:
        ValueError: If `activation` or `pooling` is unknown.
    """
    registry.require_one_of("activation", activation, ACTIVATIONS)
    x = keras.layers.Dropout(dropout, name="drop0")(x)
    for stage, (filters, depth) in enumerate(STAGES, start=1):
        x = _conv(x, filters, 3, activation, f"conv{stage}")
        for index in range(1, depth + 1):
            name = f"highway{stage}_{index}"
            transformed = _conv(x, filters, 3, activation, f"{name}_conv")
            gate = _conv(x, filters, 3, "sigmoid", f"{name}_gate", bias=-2.0)
            x = Gate(name=name)(transformed, gate, x)
        if stage < len(STAGES):
            x = pools.halve(x, pooling, name=f"pool{stage}")
        if stage == 1:
            x = keras.layers.Dropout(dropout, name="drop1")(x)
    x = _conv(x, 100, 1, activation, "conv4")  # 8 x 8 x 100
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    x = keras.layers.Dropout(dropout, name="drop4")(x)
    return {"logits": ops.logits(x, num_classes, name="fc5")}


def _conv(x, filters, kernel_size, activation, name, *, bias=0.0):
    x = ops.conv(
        x,
        filters,
        kernel_size,
        padding=kernel_size // 2,
        kernel_initializer=initializers.he_normal("fan_in"),
        bias_initializer=keras.initializers.Constant(bias),
        name=name,
    )
    return ops.activate(x, activation, name=f"{name}_{activation}")


VARIANTS = {
    "highway19": registry.Variant(
        highway,
        image_size=32,
        policy="cifar",
        paper="Srivastava et al. 2015",
        year=2015,
        error="7.72 CIFAR-10+, mean (recalled)",  # the authors' log: 7.86
    )
}
