"""MobileNet, in four widths and for every resolution.

Andrew Howard, Menglong Zhu, Bo Chen, Dmitry Kalenichenko, Weijun Wang, Tobias Weyand, Marco
Andreetto, Hartwig Adam, "MobileNets: efficient convolutional neural networks for mobile vision
applications", 2017, arXiv:1704.04861. Transcribes table 1.

Images are scaled to -1..1.

Departures: those of the authors' released code, which Keras follows too: the last depthwise
convolution has a stride of 1 where the table prints 2, activations end at 6, a thousandth is
dropped before the classes, and TensorFlow pads at the right and bottom where a stride meets an
even size (`padding="same"`; Torch's versions pad all sides: "symmetric").
"""

from functools import partial

import keras

from models import layers, ops, registry

#   pointwise filters, stride of the depthwise convolution before them: table 1
BLOCKS = (
    (64, 1),  # 112 x 112
    (128, 2),
    (128, 1),  # 56 x 56
    (256, 2),
    (256, 1),  # 28 x 28
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),  # 14 x 14
    (1024, 2),
    (1024, 1),  # 7 x 7
)
PADDINGS = ("same", "symmetric")


def mobilenet(
    x,
    num_classes: int,
    *,
    width: float = 1.0,
    padding: str = "same",
    activation: str = "relu6",
    epsilon: float = 1e-3,
    dropout: float = 0.001,
):
    """A convolution and 13 pairs of a depthwise and a 1 x 1 convolution.

    Args:
        x: Images in -1..1, float32 [B, S, S, C].
        num_classes: Number of classes K.
        width: Multiplies all channels; the paper's alpha.
        padding: One of `PADDINGS`, of the strided convolutions.
        activation: One of `registry.ACTIVATIONS`.
        epsilon: Number added to batch normalisation's variances.
        dropout: Fraction of the averaged features that is dropped.

    Returns:
        {"logits": float32 [B, K]}.

    Raises:
        ValueError: If `width` leaves no channel, or `padding` or `activation` is unknown.
    """
    registry.require_one_of("padding", padding, PADDINGS)
    act = partial(_norm_act, activation=activation, epsilon=epsilon)
    if int(32 * width) < 1:
        raise ValueError(f"width is too small, expected at least 1/32, received {width}")
    x, border = _bordered(x, 2, padding, "stem")
    x = act(_conv(x, int(32 * width), 3, "stem", stride=2, padding=border), "stem")  # 112 x 112
    for number, (filters, stride) in enumerate(BLOCKS, start=1):
        name = f"block{number}"
        x, border = _bordered(x, stride, padding, f"{name}_depthwise")
        x = keras.layers.DepthwiseConv2D(
            3,
            strides=stride,
            padding=border,
            use_bias=False,
            depthwise_initializer=_normal(),
            name=f"{name}_depthwise",
        )(x)
        x = act(x, f"{name}_depthwise")
        x = act(_conv(x, int(filters * width), 1, f"{name}_pointwise"), f"{name}_pointwise")
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    x = keras.layers.Dropout(dropout, name="drop")(x)
    return {"logits": ops.logits(x, num_classes, kernel_initializer=_normal(), name="fc")}


def _bordered(x, stride, padding, name):
    """Returns the maps, with a border of zeros where they need one, and Keras' padding for them."""
    if padding == "same" or stride == 1:
        return x, "same"
    return keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(x), "valid"


def _conv(x, filters, kernel_size, name, *, stride=1, padding="same"):
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=stride,
        padding=padding,
        use_bias=False,
        kernel_initializer=_normal(),
        name=name,
    )(x)


def _norm_act(x, name, *, activation, epsilon):
    x = layers.BatchNorm(momentum=0.99, epsilon=epsilon, name=f"{name}_norm")(x)
    return ops.activate(x, activation, name=f"{name}_{activation}")


def _normal():
    return keras.initializers.TruncatedNormal(stddev=0.09)


def _row(width, error):
    return registry.Variant(
        partial(mobilenet, width=width),
        image_size=224,
        policy="inception",
        mean=127.5,
        std=127.5,
        paper="Howard et al. 2017",
        year=2017,
        error=f"{error} top-1, 1 crop",
    )


VARIANTS = {
    "mobilenet_100": _row(1.0, "29.4"),
    "mobilenet_075": _row(0.75, "31.6"),
    "mobilenet_050": _row(0.5, "36.3"),
    "mobilenet_025": _row(0.25, "49.4"),
}
