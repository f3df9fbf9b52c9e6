"""Rebuilds a trained network from Keras' own layers, so that it needs none of this project's code.

Layer names and outputs stay the same; layers that only act in training are left out. Where Keras
has no counterpart of our layer, a convolution with fixed weights or an operation of `keras.ops`
replaces it, so that the writers of other formats need to know few kinds of layers.
"""

import keras
import numpy as np
from keras import ops

import models
from models import fractalnet, highway, layers, registry, resnet, stochastic_depth


def classifier(model: keras.Model, temperature: float = 1.0) -> keras.Model:
    """Rebuilds a trained network.

    Args:
        model: Model from float32 images [B, S, S, C] in 0..255 to {"logits": [B, K]}.
        temperature: Divisor of the logits.

    Returns:
        Functional model from uint8 images [B, S, S, C] to probabilities, float32 [B, K].

    Raises:
        ValueError: If one of our layers in the network is not in `EQUIVALENTS`.
    """
    images = keras.Input(model.input_shape[1:], dtype="uint8", name="images")
    with models.deep_recursion():
        x = keras.models.clone_model(
            keras.Model(model.input, model.output["logits"]),
            images,
            clone_function=lambda layer: layer,
            call_function=_equivalent,
        ).output
        if temperature != 1:
            x = keras.layers.Rescaling(1 / temperature, name="temperature")(x)
        x = keras.layers.Softmax(name="probabilities")(x)
        return keras.Model(images, x, name=model.name)


def _equivalent(layer, *inputs, **options):
    """Calls the equivalent of a layer."""
    if type(layer) in EQUIVALENTS:
        return EQUIVALENTS[type(layer)](layer, *inputs)
    if type(layer).__module__.partition(".")[0] != "keras":
        raise ValueError(
            f"layer {layer.name} ({type(layer).__name__}) has no equivalent among Keras' own, "
            "expected one of " + ", ".join(sorted(kind.__name__ for kind in EQUIVALENTS))
        )
    return _copy_as(type(layer))(layer, *inputs, **options)


def _copy_as(kind, **changes):
    """Returns a function that calls a layer of class `kind` with a layer's config and weights."""

    def call(layer, inputs, *_, **options):
        config = layer.get_config() | changes
        zeros = {name: "zeros" for name in config if name.endswith("_initializer")}
        copy = kind.from_config(config | zeros)
        return _fixed(copy, inputs, getattr(layer, "weights", ()), **options)

    return call


def _fixed(layer, inputs, weights, **options):
    """Calls a layer, which builds it, and then sets its weights."""
    outputs = layer(inputs, **options)
    for variable, value in zip(getattr(layer, "weights", ()), weights, strict=True):
        variable.assign(value)
    return outputs


def _inputs(layer, inputs, *_):
    return inputs


def _rescaling(layer, images):
    mean, std = layer.mean.astype("float64"), layer.std.astype("float64")
    scale, offset = np.broadcast_arrays(1 / std, -mean / std)
    return keras.layers.Rescaling(scale.tolist(), offset.tolist(), name=layer.name)(images)


def _mean_image(layer, images):
    """Subtracts the mean image as the bias of a multiplication by one."""
    images = keras.layers.Rescaling(1.0, name=f"{layer.name}_cast")(images)
    ones, shape = np.ones(images.shape[-1]), images.shape[1:]
    add = keras.layers.EinsumDense("bhwc,c->bhwc", shape, bias_axes="hwc", name=layer.name)
    return _fixed(add, images, [ones, -ops.convert_to_numpy(layer.mean)])


def _response_norm(layer, x):
    """Normalizes by a 1 x 1 convolution: alpha times the sum over neighbours, plus the bias."""
    channel = np.arange(x.shape[-1])
    band = layer.alpha * (abs(channel[:, None] - channel) <= layer.radius)
    bias = np.full(channel.shape, layer.bias)
    convolution = keras.layers.Conv2D(len(channel), 1, name=f"{layer.name}_energy")
    inverse = ops.rsqrt(_fixed(convolution, ops.square(x), [band[None, None], bias]))
    return keras.layers.Multiply(name=layer.name)([x, inverse, ops.sqrt(inverse)])


def _concatenated_relu(layer, x):
    """Multiplies every channel by 1 and by -1 and rectifies both."""
    maps, name, flat = x, layer.name, len(x.shape) == 2
    if flat:
        maps = keras.layers.Reshape((1, 1, x.shape[-1]), name=f"{name}_maps")(x)
    signs = np.tile([1.0, -1.0], (1, 1, x.shape[-1], 1))
    convolution = keras.layers.DepthwiseConv2D(
        1, depth_multiplier=2, use_bias=False, activation="relu", name=name
    )
    y = _fixed(convolution, maps, [signs])
    return keras.layers.Flatten(name=f"{name}_flat")(y) if flat else y


def _subsampled(layer, x):
    """Subsamples by a strided 1 x 1 convolution whose kernel is the identity."""
    convolution = keras.layers.Conv2D(
        layer.filters, 1, strides=layer.stride, use_bias=False, name=layer.name
    )
    return _fixed(convolution, x, [np.eye(x.shape[-1], layer.filters)[None, None]])


def _carried(layer, transformed, gate, carried):
    name = layer.name
    closed = keras.layers.Rescaling(-1.0, 1.0, name=f"{name}_closed")(gate)
    parts = [
        keras.layers.Multiply(name=f"{name}_transformed")([transformed, gate]),
        keras.layers.Multiply(name=f"{name}_carried")([carried, closed]),
    ]
    return keras.layers.Add(name=name)(parts)


def _activation(layer, x):
    if layer.activation is registry.ACTIVATIONS["abs_tanh"]:
        return ops.absolute(keras.layers.Activation("tanh", name=layer.name)(x))
    return _copy_as(keras.layers.Activation)(layer, x)


# Functions `(layer, *inputs) -> outputs`, by layer class. Other layers of Keras are copied.
EQUIVALENTS = {
    keras.layers.Dropout: _inputs,
    keras.layers.Activation: _activation,
    layers.Normalize: _rescaling,
    layers.SubtractMeanImage: _mean_image,
    layers.LocalResponseNorm: _response_norm,
    layers.BatchNorm: _copy_as(keras.layers.BatchNormalization, synchronized=False),
    layers.ConcatenatedReLU: _concatenated_relu,
    layers.GroupedConv2D: _copy_as(keras.layers.Conv2D),
    layers.SmoothActivation: _activation,
    layers.MaxPool: _copy_as(keras.layers.MaxPooling2D),
    layers.Whitening: _copy_as(keras.layers.Conv2D),
    resnet.SubsampleAndPad: _subsampled,
    highway.Gate: _carried,
    stochastic_depth.Survival: lambda layer, x: layer.probability,
    stochastic_depth.Gate: lambda layer, x, odds: keras.layers.Rescaling(odds, name=layer.name)(x),
    stochastic_depth.HeldBatchNorm: _copy_as(keras.layers.BatchNormalization, synchronized=False),
    fractalnet.PathChoice: _inputs,
    fractalnet.DropPathJoin: lambda layer, maps, _: keras.layers.Average(name=layer.name)(maps),
}
