"""Xception.

Francois Chollet, "Xception: deep learning with depthwise separable convolutions", CVPR 2017,
arXiv:1610.02357. Transcribes figure 5.

Images are scaled to -1..1. The paper's figures are for one centre crop of 299 pixels, 87.5 % of the
shorter side.

Departures: weights start so that every convolution keeps the variance (He et al. 2015, depthwise
kernels from N(0, 1 / pixels of the kernel)), which the paper leaves open. The optional dense
layers before the classifier are left out.
"""

from functools import partial

import keras

from models import layers, ops, pools, registry
from models.inception_tables import VALID, conv_norm_relu

# Channels of each block's separable convolutions. All but the middle blocks halve the maps.
ENTRY = ((128, 128), (256, 256), (728, 728))  # 74 x 74 x 128, 37 x 37 x 256, 19 x 19 x 728
MIDDLE = ((728, 728, 728),) * 8  # 19 x 19 x 728
EXIT = ((728, 1024),)  # 10 x 10 x 1024
LAST = (1536, 2048)  # 10 x 10 x 2048


def xception(
    x,
    num_classes: int,
    *,
    middle=MIDDLE,
    centred_pools: bool = False,
    epsilon: float = 1e-3,
    dropout: float = 0.5,
):
    """Two convolutions, twelve residual blocks and two separable convolutions.

    Args:
        x: Images scaled to -1..1, float32 [B, 299, 299, C].
        num_classes: Number of classes K.
        middle: Channels of the blocks of the middle flow.
        centred_pools: Whether pools pad all sides, as in Torch's versions, or like TensorFlow.
        epsilon: Number added to batch normalisation's variances.
        dropout: Fraction of the last 2048 features that is dropped.

    Returns:
        {"logits": float32 [B, K]}.
    """
    norm = partial(layers.BatchNorm, epsilon=epsilon)
    pool = pools.centred_max if centred_pools else _pool
    conv = partial(conv_norm_relu, epsilon=epsilon)
    x = conv(x, 32, 3, 2, VALID, name="block1_1")  # 149 x 149 x 32
    x = conv(x, 64, 3, 1, VALID, name="block1_2")  # 147 x 147 x 64
    blocks = (*ENTRY, *middle, *EXIT)
    for number, filters in enumerate(blocks, start=2):
        pool_here = None if filters in middle else pool
        x = _block(x, filters, pool=pool_here, norm=norm, name=f"block{number}")
    for number, filters in enumerate(LAST, start=1):
        name = f"block{len(blocks) + 2}_{number}"
        x = _separable_norm(x, filters, norm, name)
        x = ops.relu(x, name=f"{name}_relu")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(dropout, name="drop")(x)
    return {"logits": ops.logits(x, num_classes, name="fc")}


def _block(x, filters, *, pool, norm, name):
    """ReLUs, separable convolutions and a shortcut; block2's input is already rectified.

    With a pool, it halves the maps.
    """
    y = x
    for number, channels in enumerate(filters, start=1):
        if (name, number) != ("block2", 1):
            y = ops.relu(y, name=f"{name}_{number}_relu")
        y = _separable_norm(y, channels, norm, f"{name}_{number}")
    if pool:
        y = pool(y, name=f"{name}_pool")
        x = ops.conv(
            x,
            filters[-1],
            1,
            stride=2,
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"{name}_shortcut_conv",
        )
        x = norm(name=f"{name}_shortcut_norm")(x)
    return keras.layers.Add(name=f"{name}_add")([y, x])


def _separable_norm(x, filters, norm, name):
    return norm(name=f"{name}_norm")(ops.separable(x, filters, 3, name=f"{name}_conv"))


def _pool(x, *, name):
    return layers.MaxPool(3, 2, padding="same", name=name)(x)


VARIANTS = {
    "xception": registry.Variant(
        xception,
        image_size=299,
        policy="inception",
        mean=127.5,
        std=127.5,
        paper="Chollet 2017",
        year=2016,
        error="21.0/5.5 top-1/top-5, 1 crop (recalled)",
    )
}
