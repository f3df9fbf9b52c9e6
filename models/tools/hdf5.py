"""Reads weights files that Keras wrote: `.weights.h5` of Keras 3 and `.h5` of Keras 1 and 2.

Such files are not trusted: the expected network determines the names and shapes of the arrays, and
only plain arrays stored in the file itself are read.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import h5py
import keras
import numpy as np

_NAMES = {  # class of a layer with weights -> its name in a .weights.h5
    "BatchNormalization": "batch_normalization",
    "Conv2D": "conv2d",
    "Dense": "dense",
    "DepthwiseConv2D": "depthwise_conv2d",
    "SeparableConv2D": "separable_conv2d",
}


def read(path: str | os.PathLike, model: keras.Model, head: str) -> dict[str, list[np.ndarray]]:
    """Reads the weights of a model from a file.

    Args:
        path: Path of the file.
        model: Network as Keras builds it; its variables stay unchanged.
        head: Name of the classifier, which is left out if the file has another number of classes.

    Returns:
        Float32 arrays in the order of `layer.weights`, by the names of the model's layers.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a Keras weights file, or belongs to another network.
    """
    return _opened(path, model, lambda file: _read(file, model, head))


def num_classes(path: str | os.PathLike, model: keras.Model, head: str) -> int:
    """Returns the number of classes of the weights in a file.

    Args:
        path: Path of the file.
        model: Network as Keras builds it, with any number of classes.
        head: Name of the classifier.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a Keras weights file, or belongs to another network.
    """
    return _opened(path, model, lambda file: _read_num_classes(file, model, head))


def _opened(path, model, use):
    """Returns what `use` makes of the open file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file, expected a .h5 of Keras, received {path}")
    try:
        with h5py.File(path, "r") as file:
            return use(file)
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"wrong weights file, expected one that Keras wrote for {model.name}, "
            f"received {path}: {error.args[0] if error.args else error}"
        ) from error


def _read(file, model, head):
    arrays = {}
    for layer, places in _places(file, model):
        datasets = [_dataset(file, where) for where in places]
        shapes = [
            (data.shape, tuple(w.shape)) for data, w in zip(datasets, layer.weights, strict=True)
        ]
        if layer.name == head and all(a != b and a[:-1] == b[:-1] for a, b in shapes):
            continue
        for where, (shape, expected) in zip(places, shapes, strict=True):
            if shape != expected:
                raise ValueError(f"{where} has shape {shape} instead of {expected}")
        arrays[layer.name] = [data[()].astype("float32") for data in datasets]
    return arrays


def _read_num_classes(file, model, head):
    kernel, *_ = next(places for layer, places in _places(file, model) if layer.name == head)
    shape = _dataset(file, kernel).shape
    if not shape:
        raise ValueError(f"{kernel} is a single number")
    return shape[-1]


def _places(file, model) -> Iterator[tuple[keras.Layer, list[str]]]:
    """Yields every layer with weights and the paths of its arrays in the file."""
    if _has(file, "layers"):
        return _keras3_places(model)
    return _keras2_places(file, "model_weights" if _has(file, "model_weights") else "", model)


def _keras3_places(model):
    seen = Counter()
    for layer in model.layers:
        if not layer.weights:
            continue
        name = _NAMES[type(layer).__name__]
        folder = f"layers/{name}_{seen[name]}" if seen[name] else f"layers/{name}"
        seen[name] += 1
        yield layer, [f"{folder}/vars/{index}" for index in range(len(layer.weights))]


def _keras2_places(file, folder, model):
    """Pairs layers by order, because Keras' automatic names differ between sessions."""
    names = [f"{folder}/{name}" for name in _strings(_item(file, folder), "layer_names")]
    stored = [(name, _strings(_item(file, name), "weight_names")) for name in names]
    stored = [(name, weights) for name, weights in stored if weights]
    layers = [layer for layer in model.layers if layer.weights]
    if len(stored) != len(layers):
        raise ValueError(f"{len(stored)} layers with weights instead of {len(layers)}")
    for layer, (name, weights) in zip(layers, stored, strict=True):
        if len(weights) != len(layer.weights):
            raise ValueError(f"{len(weights)} arrays of {name} instead of {len(layer.weights)}")
        yield layer, [f"{name}/{weight}" for weight in weights]


def _strings(group, key):
    """Returns a list of names; Keras splits long lists into `key0`, `key1`, ..."""
    if key in group.attrs:
        pieces = [group.attrs[key]]
    else:
        pieces = []
        while f"{key}{len(pieces)}" in group.attrs:
            pieces.append(group.attrs[f"{key}{len(pieces)}"])
    names = [name for piece in pieces for name in piece]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _item(group, where):
    """Returns the item at a path of this file, refusing links, which may lead to other files."""
    for part in filter(None, where.split("/")):
        if not isinstance(group, h5py.Group) or not _has(group, part):
            raise ValueError(f"{where} is missing")
        if group.id.links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
            raise ValueError(f"{where} is a link")
        group = group[part]
    return group


def _has(group, name):
    """Whether a group has a name; `name in group` would open the file that a link leads to."""
    return group.id.links.exists(name.encode())


def _dataset(file, where):
    item = _item(file, where)
    if not isinstance(item, h5py.Dataset) or item.dtype.kind != "f":
        raise ValueError(f"{where} is no array of floats")
    if item.external or item.is_virtual:
        raise ValueError(f"{where} keeps its numbers in another file")
    return item
