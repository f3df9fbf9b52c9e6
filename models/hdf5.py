"""Reads weights files that Keras wrote: `.weights.h5` of Keras 3 and `.h5` of Keras 1 and 2.

Such files come from outside, so nothing in them is trusted: the network that is expected says
which arrays there are and of what shape, and only plain arrays of that very file are read.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import h5py
import keras
import numpy as np

_NAMES = {  # of a layer's class in a .weights.h5; a subclass counts as itself there, and has none
    "BatchNormalization": "batch_normalization",
    "Conv2D": "conv2d",
    "Dense": "dense",
    "DepthwiseConv2D": "depthwise_conv2d",
    "SeparableConv2D": "separable_conv2d",
}


def read(path: str | os.PathLike, model: keras.Model, head: str) -> dict[str, list[np.ndarray]]:
    """Reads the weights of a model from a file.

    Args:
        path: The file.
        model: The network as Keras builds it; its variables are not changed.
        head: Name of the layer that may have another number of classes in the file.

    Returns:
        Float32 arrays in the order of `layer.weights`, by the names of the model's layers.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no file of Keras weights, or holds those of another network.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file, expected a .h5 of Keras, received {path}")
    try:
        with h5py.File(path, "r") as file:
            return {
                layer.name: [
                    _array(file, where, weight.shape, any_last=layer.name == head)
                    for where, weight in zip(places, layer.weights, strict=True)
                ]
                for layer, places in _places(file, model)
            }
    except (OSError, KeyError, ValueError) as error:
        reason = error.args[0] if error.args else error
        raise ValueError(
            f"wrong weights file, expected one that Keras wrote for {model.name}, "
            f"received {path}: {reason}"
        ) from error


def _places(file, model) -> Iterator[tuple[keras.Layer, list[str]]]:
    """Yields every layer with weights and where the file keeps them."""
    if "layers" in file:
        return _keras3_places(model)
    return _keras2_places(file["model_weights"] if "model_weights" in file else file, model)


def _keras3_places(model):
    seen = Counter()
    for layer in model.layers:
        if not layer.weights:
            continue
        name = _NAMES[type(layer).__name__]
        folder = f"layers/{name}_{seen[name]}" if seen[name] else f"layers/{name}"
        seen[name] += 1
        yield layer, [f"{folder}/vars/{index}" for index in range(len(layer.weights))]


def _keras2_places(file, model):
    """By order: names that Keras made up itself differ from one session to the next."""
    stored = [(name, _strings(file[name], "weight_names")) for name in _strings(file, "layer_names")]
    stored = [(name, weights) for name, weights in stored if weights]
    layers = [layer for layer in model.layers if layer.weights]
    if len(stored) != len(layers):
        raise ValueError(f"{len(stored)} layers with weights instead of {len(layers)}")
    for layer, (name, weights) in zip(layers, stored, strict=True):
        if len(weights) != len(layer.weights):
            raise ValueError(f"{len(weights)} arrays of {name} instead of {len(layer.weights)}")
        yield layer, [f"{file.name}/{name}/{weight}" for weight in weights]


def _strings(group, key):
    """A list of names; where it is long Keras cuts it into `key0`, `key1`, ..."""
    if key in group.attrs:
        pieces = [group.attrs[key]]
    else:
        pieces = []
        while f"{key}{len(pieces)}" in group.attrs:
            pieces.append(group.attrs[f"{key}{len(pieces)}"])
    names = [name for piece in pieces for name in piece]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _array(file, where, shape, *, any_last):
    """Reads one array that lies in this file itself and has the expected shape."""
    item = file
    for part in filter(None, where.split("/")):
        if not isinstance(item.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{where} is not in this file")
        item = item[part]
    if not isinstance(item, h5py.Dataset) or item.dtype.kind != "f":
        raise ValueError(f"{where} is no array of floats")
    if item.external or item.is_virtual:
        raise ValueError(f"{where} is not in this file")
    expected, found = tuple(shape), item.shape
    if found != expected and not (any_last and found[:-1] == expected[:-1]):
        raise ValueError(f"{where} has shape {found} instead of {expected}")
    return item[()].astype("float32")
