"""Converts a network to a fully convolutional one, for testing on whole images of any size.

P. Sermanet et al., arXiv:1312.6229, section 3.5; K. Simonyan and A. Zisserman, arXiv:1409.1556,
section 3.2: dense layers become convolutions, and the logits are averaged over all positions.
"""

import math

import keras
from keras import ops

from models import layers


def dense(model: keras.Model) -> keras.Model:
    """Returns the network for images of any height and width, with shared weights.

    Args:
        model: Functional model from images [B, S, S, C] to {"logits": [B, K], ...}.

    Returns:
        Model from images [B, H, W, C] to {"logits": [B, K]}, averaged over all positions.

    Raises:
        ValueError: If a layer only works on images of the network's own size.
    """
    if any(isinstance(layer, layers.SubtractMeanImage) for layer in model.layers):
        raise ValueError(f"{model.name} cannot see whole images: its mean image has one size")
    images = keras.Input((None, None, model.input_shape[-1]), name="images")
    try:
        logits = keras.models.clone_model(
            model,
            input_tensors=images,
            clone_function=lambda layer: layer,
            call_function=_call_layer,
        ).output["logits"]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{model.name} cannot see whole images of any size: {error}") from error
    if len(logits.shape) == 4:
        logits = keras.layers.GlobalAveragePooling2D(name="places", dtype="float32")(logits)
    return keras.Model(images, {"logits": logits}, name=model.name)


def _call_layer(layer, *args, **kwargs):
    x = args[0]
    if isinstance(layer, keras.layers.Flatten):
        return x
    if isinstance(layer, keras.layers.Dense) and len(x.shape) == 4:
        return AsConvolution(layer, name=f"{layer.name}_places")(x)
    return layer(*args, **kwargs)


class AsConvolution(keras.layers.Layer):
    """Applies a dense layer as a convolution to every position of larger maps.

    Args:
        layer: Built dense layer, whose inputs are flattened maps [side, side, C].
        **options: Options of every Keras layer.
    """

    def __init__(self, layer: keras.layers.Dense, **options):
        super().__init__(trainable=False, dtype=layer.dtype_policy, **options)
        self.dense_layer = layer

    def call(self, x):
        """Returns maps [B, H - side + 1, W - side + 1, units] for maps [B, H, W, C]."""
        rows, units = self.dense_layer.kernel.shape
        side = math.isqrt(rows // x.shape[-1])
        kernel = ops.reshape(self.dense_layer.kernel, [side, side, x.shape[-1], units])
        y = ops.conv(x, ops.cast(kernel, x.dtype), padding="valid")
        if self.dense_layer.use_bias:
            y = y + ops.cast(self.dense_layer.bias, y.dtype)
        return self.dense_layer.activation(y)
