"""LeNet-5.

Yann LeCun, Leon Bottou, Yoshua Bengio, Patrick Haffner, "Gradient-based learning applied to
document recognition", Proceedings of the IEEE, 1998. Transcribes figure 2.

Departures: C3 sees all six maps of S2 instead of table I's choice, the pools have no trainable
coefficients, tanh is not scaled, and a softmax (in the loss) over plain logits replaces the radial
basis functions. Hence 62,006 parameters with colour images, not the paper's 60,000. The images are
standardised, which is what the paper's grey levels of -0.1 and 1.175 are for; weights start as in
Glorot and Bengio (2010), because the paper's smaller ones belong to its scaled tanh.
"""

import keras

from models import layers


def lenet5(x, num_classes: int):
    """Figure 2: convolutions C1, C3, C5 with pools between them, then F6 and the classes.

    Args:
        x: Standardised images, float32 [B, 32, 32, C].
        num_classes: Number of classes K.

    Returns:
        {"logits": float32 [B, K]}.
    """
    x = _conv(x, 6, "conv1")  # 28 x 28 x 6
    x = layers.pool(x, 2, 2, kind="average", name="pool2")  # 14 x 14 x 6
    x = _conv(x, 16, "conv3")  # 10 x 10 x 16
    x = layers.pool(x, 2, 2, kind="average", name="pool4")  # 5 x 5 x 16
    x = _conv(x, 120, "conv5")  # 1 x 1 x 120
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(84, activation="tanh", name="fc6")(x)
    return {"logits": layers.logits(x, num_classes, name="fc7")}


def _conv(x, filters, name):
    x = layers.conv(x, filters, 5, name=name)
    return keras.layers.Activation("tanh", name=name.replace("conv", "tanh"))(x)


VARIANTS = {
    "lenet5": layers.Variant(
        lenet5,
        image_size=32,
        policy="cifar",
        paper="LeCun et al. 1998",
        year=1998,
    )
}
