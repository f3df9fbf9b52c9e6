"""Deeply supervised network: Network in Network for CIFAR with a head after each convolution.

Chen-Yu Lee, Saining Xie, Patrick Gallagher, Zhengyou Zhang, Zhuowen Tu, "Deeply-supervised nets",
AISTATS 2015, arXiv:1409.5185. Transcribes section 4.1 as in the authors' configuration.

Departures: the losses are softmax cross entropies where the paper has squared hinges for CIFAR-10;
the companions' weight stays 0.001 where the paper lets it decay; images are standardised where the
paper whitens them.
"""

from collections.abc import Sequence

import keras

from models import ops, pools, registry

#   kernel of a convolution; filters of it and of the 1 x 1 convolutions after it. The last block
#   ends with a 1 x 1 convolution that has one filter per class.
BLOCKS = (
    (5, (192, 160, 96)),  # 32 x 32, pooled to 16 x 16
    (5, (192, 192, 192)),  # 16 x 16, pooled to 8 x 8
    (3, (192, 192)),  # 8 x 8
)


def dsn(
    x,
    num_classes: int,
    *,
    aux_heads: bool = False,
    activation: str = "relu",
    pooling: str | Sequence[str] = "max_overlapping",
    dropout: float = 0.5,
):
    """Three blocks and averaged class maps, and a companion head at conv1, conv2 and conv3.

    Args:
        x: Standardised images, float32 [B, 32, 32, C].
        num_classes: Number of classes K.
        aux_heads: Whether to add the companion heads.
        activation: One of `registry.ACTIVATIONS`; the class maps are always rectified.
        pooling: One of `registry.POOLINGS`, or one for each pool.
        dropout: Fraction of the pooled maps that is dropped.

    Returns:
        {"logits": float32 [B, K]}; with heads also "aux1", "aux2", "aux3".

    Raises:
        ValueError: If `activation` or `pooling` is unknown.
    """
    companions = {}
    kinds = pools.per_pool(pooling, len(BLOCKS) - 1)
    for number, (kernel_size, filters) in enumerate(BLOCKS, start=1):
        for index, width in enumerate(filters):
            name = f"mlp{number}_{index}" if index else f"conv{number}"
            size = 1 if index else kernel_size
            x = ops.conv(x, width, size, padding=size // 2, kernel_initializer=_normal(), name=name)
            if aux_heads and index == 0:
                companions[f"aux{number}"] = _companion(x, num_classes, f"aux{number}")
            x = ops.activate(x, activation, name=f"{name}_{activation}")
        if number < len(BLOCKS):
            x = pools.halve(x, kinds[number - 1], name=f"pool{number}")
            x = keras.layers.Dropout(dropout, name=f"drop{number}")(x)
    logits = ops.class_average(x, num_classes, kernel_initializer=_normal(), name="classes")
    return {"logits": logits, **companions}


def _companion(x, num_classes, name):
    x = keras.layers.Flatten(name=f"{name}_flatten")(x)
    return ops.logits(x, num_classes, kernel_initializer=_normal(), name=name)


def _normal():
    return keras.initializers.RandomNormal(stddev=0.05)


VARIANTS = {
    "dsn": registry.Variant(
        dsn,
        image_size=32,
        policy="cifar",
        paper="Lee et al. 2015",
        year=2014,
        error="7.97 CIFAR-10+",
        aux_weight=0.001,
    )
}
