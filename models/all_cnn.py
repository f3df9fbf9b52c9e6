"""All-CNN-C: convolutions with a stride of 2 instead of pools.

Jost Tobias Springenberg, Alexey Dosovitskiy, Thomas Brox, Martin Riedmiller, "Striving for
simplicity: the all convolutional net", ICLR 2015 workshop, arXiv:1412.6806. Transcribes tables 1
and 2, model C.

Departures: images are standardised where the paper whitens them. The seventh convolution does not
pad, as in the public Caffe form. Weights start as in He et al. (2015); the paper does not say how.
"""

from functools import partial

import keras

from models import initializers, ops, registry

#         filters, kernel, stride, padding; a 1 x 1 convolution with a filter per class follows
CONVOLUTIONS = (
    (96, 3, 1, 1),
    (96, 3, 1, 1),
    (96, 3, 2, 1),  # 16 x 16
    (192, 3, 1, 1),
    (192, 3, 1, 1),
    (192, 3, 2, 1),  # 8 x 8
    (192, 3, 1, 0),  # 6 x 6
    (192, 1, 1, 0),
)


def all_cnn(x, num_classes: int, *, activation: str = "relu", dropout: float = 0.5):
    """Nine convolutions, two of which halve the maps, and averaged class maps.

    Args:
        x: Standardised images, float32 [B, 32, 32, C].
        num_classes: Number of classes K.
        activation: One of `registry.ACTIVATIONS`; the class maps are always rectified.
        dropout: Fraction of the halved maps that is dropped; two fifths of it for the images.

    Returns:
        {"logits": float32 [B, K]}.

    Raises:
        ValueError: If `activation` is unknown.
    """
    x = keras.layers.Dropout(0.4 * dropout, name="drop0")(x)
    for number, (filters, kernel_size, stride, padding) in enumerate(CONVOLUTIONS, start=1):
        x = ops.conv_norm_act(
            x,
            number,
            filters,
            kernel_size,
            stride=stride,
            padding=padding,
            activation=activation,
            kernel_initializer=_he(),
        )
        if stride == 2:
            x = keras.layers.Dropout(dropout, name=f"drop{number}")(x)
    return {"logits": ops.class_average(x, num_classes, kernel_initializer=_he(), name="classes")}


_he = partial(initializers.he_normal, "fan_in")

VARIANTS = {
    "all_cnn_c": registry.Variant(
        all_cnn,
        image_size=32,
        policy="cifar",
        paper="Springenberg et al. 2015",
        year=2014,
        error="7.25 CIFAR-10+",
    )
}
