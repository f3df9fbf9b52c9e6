"""OverFeat, the fast model.

Pierre Sermanet, David Eigen, Xiang Zhang, Michael Mathieu, Rob Fergus, Yann LeCun, "OverFeat:
integrated recognition, localization and detection using convolutional networks", ICLR 2014,
arXiv:1312.6229. Transcribes table 1.

Images are standardised with one mean and one deviation for all channels, the released code's.

Departures: none in the network. The paper slides it over whole images, here a test takes crops.
"""

from functools import partial

import keras

from models import layers

#         filters, kernel, stride, padding: table 1
CONVOLUTIONS = (
    (96, 11, 4, 0),  # 56 x 56, pooled to 28 x 28
    (256, 5, 1, 0),  # 24 x 24, pooled to 12 x 12
    (512, 3, 1, 1),
    (1024, 3, 1, 1),
    (1024, 3, 1, 1),  # 12 x 12, pooled to 6 x 6
)
POOLED = (1, 2, 5)
DENSE = (3072, 4096)


def overfeat(x, num_classes: int, *, dropout: float = 0.5):
    """Five convolutions, pools that do not overlap, and three dense layers.

    Args:
        x: Standardised images, float32 [B, 231, 231, C].
        num_classes: Number of classes K.
        dropout: Fraction of fc6's and fc7's outputs that is dropped.

    Returns:
        {"logits": float32 [B, K]}.
    """
    for number, (filters, kernel_size, stride, padding) in enumerate(CONVOLUTIONS, start=1):
        x = layers.conv(
            x,
            filters,
            kernel_size,
            stride=stride,
            padding=padding,
            kernel_initializer=_normal(),
            name=f"conv{number}",
        )
        x = layers.relu(x, name=f"relu{number}")
        if number in POOLED:
            x = layers.halve(x, "max", name=f"pool{number}")
    x = keras.layers.Flatten(name="flatten")(x)
    for number, units in enumerate(DENSE, start=6):
        x = keras.layers.Dense(units, kernel_initializer=_normal(), name=f"fc{number}")(x)
        x = layers.relu(x, name=f"relu{number}")
        x = keras.layers.Dropout(dropout, name=f"drop{number}")(x)
    return {"logits": layers.logits(x, num_classes, kernel_initializer=_normal(), name="fc8")}


_normal = partial(keras.initializers.RandomNormal, stddev=0.01)

VARIANTS = {
    "overfeat_fast": layers.Variant(
        overfeat,
        image_size=231,
        policy="alexnet",
        mean=118.380948,
        std=61.896913,
        paper="Sermanet et al. 2014",
        year=2013,
        error="39.0/17.0 top-1/top-5, 1 scale",
    )
}
