"""SqueezeNet, versions 1.0 and 1.1.

Forrest Iandola, Song Han, Matthew Moskewicz, Khalid Ashraf, William Dally, Kurt Keutzer,
"SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and < 0.5 MB model size", 2016,
arXiv:1602.07360. Transcribes table 1; version 1.1, 2.4 times cheaper, is from the authors'
repository, and so are the images' means and how weights start (as Caffe's "xavier").

Departures: version 1.0 takes 227 pixels and its last convolution pads 1, as in the authors'
configuration, where the paper's table says 224.
"""

from functools import partial

import keras

from models import initializers, ops, pools, registry

#   squeeze filters, expand filters of each kind; a pool precedes every row
FIRES_1_0 = (
    ((16, 64), (16, 64), (32, 128)),  # 55 x 55 x 256
    ((32, 128), (48, 192), (48, 192), (64, 256)),  # 27 x 27 x 512
    ((64, 256),),  # 13 x 13 x 512
)
FIRES_1_1 = (
    ((16, 64), (16, 64)),  # 55 x 55 x 128
    ((32, 128), (32, 128)),  # 27 x 27 x 256
    ((48, 192), (48, 192), (64, 256), (64, 256)),  # 13 x 13 x 512
)


def squeezenet(x, num_classes: int, *, stem, fires, class_padding: int = 0, dropout: float = 0.5):
    """A convolution, fire modules with pools between them, and averaged class maps.

    Args:
        x: Mean-subtracted images on the scale of 0..255, float32 [B, S, S, C].
        num_classes: Number of classes K.
        stem: Filters and kernel size of the first convolution.
        fires: Squeeze and expand filters of the fire modules, in groups that follow a pool.
        class_padding: Zeros around the last maps, pixels on each side.
        dropout: Fraction of fire9's outputs that is dropped.

    Returns:
        {"logits": float32 [B, K]}.
    """
    x = _conv(x, *stem, "conv1", stride=2)  # 111 x 111
    number = 1
    for group in fires:
        x = pools.halve(x, "max_overlapping", name=f"pool{number}")
        for squeeze, expand in group:
            number += 1
            x = fire(x, squeeze, expand, name=f"fire{number}")
    x = keras.layers.Dropout(dropout, name="drop9")(x)
    logits = ops.class_average(
        x,
        num_classes,
        padding=class_padding,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        name="conv10",
    )
    return {"logits": logits}


def fire(x, squeeze: int, expand: int, *, name: str):
    """Figure 1: 1 x 1 to squeeze, then 1 x 1 and 3 x 3 side by side to expand.

    Args:
        x: [B, H, W, C].
        squeeze: Channels that the expanding convolutions see.
        expand: Channels of each of them.
        name: Prefix of the layers' names.

    Returns:
        [B, H, W, 2 expand].
    """
    x = _conv(x, squeeze, 1, f"{name}_squeeze")
    small = _conv(x, expand, 1, f"{name}_expand1")
    large = _conv(x, expand, 3, f"{name}_expand3", padding=1)
    return keras.layers.Concatenate(name=name)([small, large])


def _conv(x, filters, kernel_size, name, **options):
    xavier = initializers.caffe_xavier()
    x = ops.conv(x, filters, kernel_size, kernel_initializer=xavier, name=name, **options)
    return ops.relu(x, name=f"{name}_relu")


_row = partial(
    registry.Variant,
    policy="alexnet",
    mean=(123.0, 117.0, 104.0),
    std=1.0,
    paper="Iandola et al. 2016",
    year=2016,
)

VARIANTS = {
    "squeezenet1_0": _row(
        partial(squeezenet, stem=(96, 7), fires=FIRES_1_0, class_padding=1),
        image_size=227,
        error="42.5/19.7 top-1/top-5, 1 crop (top-1 recalled)",
    ),
    "squeezenet1_1": _row(
        partial(squeezenet, stem=(64, 3), fires=FIRES_1_1),
        image_size=224,
        error="41.8/19.4 top-1/top-5, 1 crop (torchvision)",
    ),
}
