"""Network in Network, for ImageNet and for CIFAR.

Min Lin, Qiang Chen, Shuicheng Yan, "Network in network", ICLR 2014, arXiv:1312.4400. Transcribes
figure 2 with the widths of the authors' configurations: Caffe's for ImageNet, cuda-convnet's for
CIFAR, which also say how weights start.

ImageNet images are mean-subtracted and stay on the 0..255 scale.

Departures: CIFAR images are standardised where the paper whitens them.
"""

from collections.abc import Sequence
from functools import partial

import keras

from models import ops, pools, registry

#   kernel, stride, padding of a convolution; filters of it and of the 1 x 1 convolutions after it.
#   The last block ends with a 1 x 1 convolution that has one filter per class.
IMAGENET = (
    (11, 4, 0, (96, 96, 96)),  # 54 x 54, pooled to 27 x 27
    (5, 1, 2, (256, 256, 256)),  # 27 x 27, pooled to 13 x 13
    (3, 1, 1, (384, 384, 384)),  # 13 x 13, pooled to 6 x 6
    (3, 1, 1, (1024, 1024)),  # 6 x 6
)
CIFAR = (
    (5, 1, 2, (192, 160, 96)),  # 32 x 32, pooled to 16 x 16
    (5, 1, 2, (192, 192, 192)),  # 16 x 16, pooled to 8 x 8
    (3, 1, 1, (192, 192)),  # 8 x 8
)


def nin(
    x,
    num_classes: int,
    *,
    blocks,
    fine=(),
    drop_after=(1, 2),
    activation: str = "relu",
    pooling: str | Sequence[str] = "max_overlapping",
    dropout: float = 0.5,
):
    """Convolutions, each followed by a small network at every pixel, and averaged class maps.

    Args:
        x: Images, float32 [B, S, S, C].
        num_classes: Number of classes K.
        blocks: Rows as in `IMAGENET`; a pool stands between two of them.
        fine: Names of layers whose weights start from N(0, 0.01); the others from N(0, 0.05).
        drop_after: Numbers of the pools that dropout follows.
        activation: One of `registry.ACTIVATIONS`; the class maps are always rectified.
        pooling: One of `registry.POOLINGS`, or one for each pool.
        dropout: Fraction of the pooled maps that is dropped.

    Returns:
        {"logits": float32 [B, K]}.

    Raises:
        ValueError: If `activation` or `pooling` is unknown.
    """

    def normal(name):
        return keras.initializers.RandomNormal(stddev=0.01 if name in fine else 0.05)

    kinds = pools.per_pool(pooling, len(blocks) - 1)
    for number, (kernel_size, stride, padding, filters) in enumerate(blocks, start=1):
        for index, width in enumerate(filters):
            name = f"mlp{number}_{index}" if index else f"conv{number}"
            first = {"stride": stride, "padding": padding} if index == 0 else {}
            size = 1 if index else kernel_size
            x = ops.conv(x, width, size, **first, kernel_initializer=normal(name), name=name)
            x = ops.activate(x, activation, name=f"{name}_{activation}")
        if number < len(blocks):
            x = pools.halve(x, kinds[number - 1], name=f"pool{number}")
        if number in drop_after:
            x = keras.layers.Dropout(dropout, name=f"drop{number}")(x)
    logits = ops.class_average(x, num_classes, kernel_initializer=normal("classes"), name="classes")
    return {"logits": logits}


_row = partial(registry.Variant, paper="Lin et al. 2014", year=2013)

VARIANTS = {
    "nin": _row(
        partial(nin, blocks=IMAGENET, fine=("conv1", "conv3", "classes"), drop_after=(3,)),
        image_size=224,
        policy="alexnet",
        std=1.0,
        error="40.6 top-1, 1 crop (Caffe, recalled)",
    ),
    "nin_cifar": _row(
        partial(nin, blocks=CIFAR),
        image_size=32,
        policy="cifar",
        error="8.81 CIFAR-10+ (recalled)",
    ),
}
