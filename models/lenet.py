"""LeNet-5.

Yann LeCun, Leon Bottou, Yoshua Bengio, Patrick Haffner, "Gradient-based learning applied to
document recognition", Proceedings of the IEEE, 1998. Transcribes figure 2.

Departures: C3 sees all six maps of S2 instead of table I's choice, the pools have no trainable
coefficients, tanh is not scaled, and a softmax (in the loss) over plain logits replaces the radial
basis functions. Hence 62,006 parameters with colour images, not the paper's 60,000. The images are
standardised, which is what the paper's grey levels of -0.1 and 1.175 are for; weights start as in
Glorot and Bengio (2010), because the paper's smaller ones belong to its scaled tanh.
"""

from functools import partial

import keras

from models import ops, pools, registry


def lenet5(
    x,
    num_classes: int,
    *,
    activation: str = "tanh",
    pooling: str = "average",
    dropout: float = 0.0,
):
    """Figure 2: convolutions C1, C3, C5 with pools between them, then F6 and the classes.

    Args:
        x: Standardised images, float32 [B, 32, 32, C].
        num_classes: Number of classes K.
        activation: One of `registry.ACTIVATIONS`.
        pooling: One of `registry.POOLINGS`.
        dropout: Fraction of F6's outputs that is dropped.

    Returns:
        {"logits": float32 [B, K]}.

    Raises:
        ValueError: If `activation` or `pooling` is unknown.
    """
    conv = partial(ops.conv_norm_act, kernel_size=5, activation=activation)
    x = conv(x, 1, filters=6)  # 28 x 28 x 6
    x = pools.halve(x, pooling, name="pool2")  # 14 x 14 x 6
    x = conv(x, 3, filters=16)  # 10 x 10 x 16
    x = pools.halve(x, pooling, name="pool4")  # 5 x 5 x 16
    x = conv(x, 5, filters=120)  # 1 x 1 x 120
    x = keras.layers.Flatten(name="flatten")(x)
    x = ops.dense(x, 6, units=84, activation=activation, dropout=dropout)
    return {"logits": ops.logits(x, num_classes, name="fc7")}


VARIANTS = {
    "lenet5": registry.Variant(
        lenet5,
        image_size=32,
        policy="cifar",
        paper="LeCun et al. 1998",
        year=1998,
        error="0.95 on MNIST (recalled)",
    )
}
