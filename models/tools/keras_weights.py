"""Copies the weights of Keras Applications into our networks, exactly.

The same network is built twice, as `models.build` and as `keras.applications` do; their graphs are
walked side by side (`graphs.same_layers`) and every layer's weights are copied. Where the graphs
differ, the weights are adjusted so that the logits at inference are equal:

- a bias before batch normalisation (Keras' ResNets) is subtracted from the moving mean;
- a difference of epsilon is added to the moving variance;
- a missing gamma (Keras' Inception networks) becomes a gamma of one;
- for BGR images (Keras' VGG and ResNets) the first kernel's channels are reversed;
- a classifier that is a 1 x 1 convolution (Keras' MobileNet) becomes a dense layer.

Padding, strides and the scale of the images cannot be adjusted so: build with `options(name)`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import keras
import numpy as np

from models import layers, registry
from models.tools import graphs, hdf5

DOWNLOAD = "keras"
IMAGENET_CLASSES = 1000

_NONE = np.empty(0)


@dataclass(frozen=True)
class Origin:
    """The network of Keras Applications that has the weights of one of our networks.

    Attributes:
        constructor: Name of the constructor in `keras.applications`.
        mean: Mean that Keras subtracts from RGB images in 0..255.
        std: Standard deviation that Keras then divides by.
        bgr: Whether Keras reverses the channels.
        arguments: Further arguments of the constructor.
        head: Name of the classifier in Keras.
    """

    constructor: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False
    arguments: Mapping = field(default_factory=dict)
    head: str = "predictions"


_CAFFE = {"mean": (123.68, 116.779, 103.939), "std": (1.0, 1.0, 1.0), "bgr": True}
_TORCH = {"mean": registry.IMAGENET_MEAN, "std": registry.IMAGENET_STD}
_SYMMETRIC = {"mean": (127.5, 127.5, 127.5), "std": (127.5, 127.5, 127.5)}


def _mobilenet(alpha):
    return Origin("MobileNet", **_SYMMETRIC, arguments={"alpha": alpha}, head="conv_preds")


ORIGINS = {
    "vgg16": Origin("VGG16", **_CAFFE),
    "vgg19": Origin("VGG19", **_CAFFE),
    "resnet50_v1": Origin("ResNet50", **_CAFFE),
    "resnet101_v1": Origin("ResNet101", **_CAFFE),
    "resnet152_v1": Origin("ResNet152", **_CAFFE),
    "densenet121": Origin("DenseNet121", **_TORCH),
    "densenet169": Origin("DenseNet169", **_TORCH),
    "densenet201": Origin("DenseNet201", **_TORCH),
    "mobilenet_100": _mobilenet(1.0),
    "mobilenet_075": _mobilenet(0.75),
    "mobilenet_050": _mobilenet(0.5),
    "mobilenet_025": _mobilenet(0.25),
    "inception_v3": Origin("InceptionV3", **_SYMMETRIC),
    "inception_resnet_v2": Origin("InceptionResNetV2", **_SYMMETRIC),
    "xception": Origin("Xception", **_SYMMETRIC),
    "nasnet_mobile": Origin("NASNetMobile", **_SYMMETRIC),
}


def names() -> list[str]:
    """Returns the names of the networks that Keras has weights for, in alphabetical order."""
    return sorted(ORIGINS)


def options(name: str) -> dict:
    """Returns the arguments of `models.build` that make network `name` fit Keras' weights.

    Raises:
        ValueError: If Keras has no weights for it.
    """
    origin = _origin(name)
    return {"mean": origin.mean, "std": origin.std}


def load(name: str, model: keras.Model, source: str | os.PathLike) -> list[str]:
    """Copies weights of Keras Applications into one of our networks.

    Args:
        name: Name of the network, one of `names()`.
        model: Result of `models.build(name, K, **options(name))`, with or without auxiliary heads.
        source: "keras" for the ImageNet weights that Keras downloads and caches, or the path of a
            `.weights.h5` or `.h5` file that Keras wrote for the same network.

    Returns:
        Names of the layers that kept their weights: auxiliary heads, which Keras does not have, and
        the classifier if the source has another number of classes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If Keras has no weights for the network, the model was built with other
            options, or the file is not of this network.
        RuntimeError: If the download fails.
    """
    origin = _origin(name)
    _check_images(name, model, origin)
    theirs = _build(origin, model, downloaded=source == DOWNLOAD)
    if source == DOWNLOAD:
        arrays = {layer.name: layer.get_weights() for layer in theirs.layers}
    else:
        arrays = hdf5.read(source, theirs, origin.head)
    return _copy(model, theirs, arrays, origin)


def num_classes(name: str, source: str | os.PathLike) -> int:
    """Returns the number of classes of weights, see `load`.

    Args:
        name: Name of the network, one of `names()`.
        source: "keras", or the path of a file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If Keras has no weights for the network, or the file is not of this network.
    """
    origin = _origin(name)
    if source == DOWNLOAD:
        return IMAGENET_CLASSES
    construct = getattr(keras.applications, origin.constructor)
    model = construct(weights=None, classifier_activation=None, **origin.arguments)
    return hdf5.num_classes(source, model, origin.head)


def _origin(name):
    if name not in ORIGINS:
        raise ValueError(f"no Keras weights for it, expected {', '.join(names())}, received {name}")
    return ORIGINS[name]


def _check_images(name, model, origin):
    """Raises ValueError if a model scales images otherwise than Keras' weights expect."""
    normalize = next(layer for layer in model.layers if isinstance(layer, layers.Normalize))
    for key in ("mean", "std"):
        expected, received = getattr(origin, key), getattr(normalize, key)
        if model.input_shape[-1] != 3 or not np.allclose(received, expected, rtol=1e-5):
            raise ValueError(
                f"Keras' weights of {name} need other images, expected {key} {expected} of RGB, "
                f"received {key} {received.tolist()} and {model.input_shape[-1]} channels"
            )


def _build(origin, model, *, downloaded):
    """Builds Keras' network with its weights, or with the image size and classes of ours."""
    construct = getattr(keras.applications, origin.constructor)
    if not downloaded:
        classes = model.output["logits"].shape[-1]
        return construct(
            weights=None,
            classes=classes,
            classifier_activation=None,
            input_shape=model.input_shape[1:],
            **origin.arguments,
        )
    try:
        return construct(weights="imagenet", classifier_activation=None, **origin.arguments)
    except Exception as error:  # Keras raises nothing narrower
        reason = " ".join(str(error).split())
        raise RuntimeError(f"no weights of {origin.constructor} from Keras: {reason}") from error


def _copy(model, theirs, arrays, origin):
    """Sets every layer that the arrays have weights for; returns the names of the others."""
    pairs = graphs.same_layers(model, theirs)
    values = {pair.ours: _values(pair, arrays, origin) for pair in pairs}
    copied = {layer: weights for layer, weights in values.items() if weights is not None}
    for layer, weights in copied.items():
        layer.set_weights(weights)
    return sorted(layer.name for layer in model.layers if layer.weights and layer not in copied)


def _values(pair, arrays, origin):
    """Returns the weights for our layer; None for a classifier with other classes."""
    given = _named(pair.theirs, arrays)
    if pair.theirs.name == origin.head and given.get("bias", _NONE).shape != pair.ours.bias.shape:
        return None
    if "moving_mean" in given:
        given.setdefault("gamma", np.ones_like(given["moving_mean"]))
        given["moving_variance"] += pair.theirs.epsilon - pair.ours.epsilon
        given["moving_mean"] -= _lost_bias(pair, arrays)
    elif origin.bgr and isinstance(pair.ours_before, keras.layers.InputLayer):
        given["kernel"] = given["kernel"][:, :, ::-1]
    return [_fitted(given, weight) for weight in pair.ours.weights]


def _named(layer, arrays):
    """Returns copies of a layer's arrays by the names of its weights; empty if left out."""
    values = arrays.get(layer.name, ())
    return {
        weight.name: np.array(value) for weight, value in zip(layer.weights, values, strict=False)
    }


def _lost_bias(pair, arrays):
    """Returns the bias that Keras' convolution adds before normalisation and ours does not."""
    if getattr(pair.ours_before, "use_bias", True):
        return 0.0
    return _named(pair.theirs_before, arrays).get("bias", 0.0)


def _fitted(given, weight):
    value = given.get(weight.name)
    if value is None or value.size != np.prod(weight.shape):
        raise ValueError(
            f"{weight.path} is not as in Keras, expected shape {tuple(weight.shape)}, "
            f"received {None if value is None else value.shape}"
        )
    return value.reshape(weight.shape)
