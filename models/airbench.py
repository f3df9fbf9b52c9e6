"""airbench94, a network made to reach 94 % on CIFAR-10 in the shortest possible training.

Keller Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, arXiv:2404.00498, sections
3.1 (the network), 3.2 (whitening) and 3.3 (identity). The first layer is not trained: it whitens
patches of the training images (David Page, "How to train your ResNet", 2018).

Departures: the whitening's bias is trained to the end, not for three epochs.
"""

import keras
import numpy as np

from models import initializers, layers, ops, pools, registry

WIDTHS = (64, 256, 256)
SCALE = 1 / 9  # factor of the features before the logits

_uniform = initializers.torch_uniform


def airbench(x, num_classes: int):
    """Whitening, three stages of two convolutions, global max pooling and logits.

    Args:
        x: Standardised images, float32 [B, 32, 32, C].
        num_classes: Number of classes K.

    Returns:
        {"logits": float32 [B, K]}.
    """
    x = layers.Whitening(2, name="whiten")(x)  # 31 x 31 x 24
    x = ops.activate(x, "gelu", name="whiten_gelu")
    for number, width in enumerate(WIDTHS, 1):
        # 15 x 15 x 64, 7 x 7 x 256, 3 x 3 x 256
        name = f"stage{number}"
        x = _conv(x, width, f"{name}_conv1")
        x = pools.pool(x, 2, 2, name=f"{name}_pool")
        x = _normalised(x, f"{name}_norm1")
        x = _conv(x, width, f"{name}_conv2")
        x = _normalised(x, f"{name}_norm2")
    x = pools.pool(x, x.shape[1], 1, name="pool")
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Rescaling(SCALE, name="scale")(x)
    return {"logits": ops.logits(x, num_classes, kernel_initializer=_uniform(), name="fc")}


def _conv(x, filters, name):
    options = {"use_bias": False, "kernel_initializer": Identity()}
    return ops.conv(x, filters, 3, padding=1, name=name, **options)


def _normalised(x, name):
    x = layers.BatchNorm(momentum=0.6, scale=False, name=name)(x)
    return ops.activate(x, "gelu", name=f"{name}_gelu")


class Identity(keras.initializers.Initializer):
    """Kernels whose first filters copy one channel each (section 3.3); the others are random."""

    def __call__(self, shape, dtype=None):
        """Returns a kernel [k, k, C, filters]."""
        kernel = np.array(keras.ops.convert_to_numpy(_uniform()(shape, "float32")))
        height, width, channels, filters = shape
        count = min(channels, filters)
        kernel[..., :count] = 0
        kernel[height // 2, width // 2, range(count), range(count)] = 1
        return keras.ops.convert_to_tensor(kernel, dtype)


VARIANTS = {
    "airbench94": registry.Variant(
        airbench,
        image_size=32,
        policy="airbench",
        paper="Jordan 2024",
        year=2024,
        error="5.99 CIFAR-10, 6 views",
    )
}
