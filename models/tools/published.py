"""Weights of other libraries for our networks: whose they are, and how they are loaded.

A source is Keras Applications or a PyTorch library. For the latter, `RULES` says of which networks
it has weights, how it normalises images, and by which table of `models.tools.state_dicts` its
modules are our layers.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import safetensors
import safetensors.numpy

from models import registry
from models.tools import keras_weights, state_dicts, torch_files

KERAS = "keras"
_SUFFIXES = {".pth": "torchvision", ".pt": "torchvision", ".safetensors": "timm", ".h5": KERAS}


class Rule(NamedTuple):
    """How a library's weights of some networks are loaded.

    Attributes:
        table: Our layers and their modules, see `models.tools.state_dicts`.
        mean: Mean that the library subtracts from RGB images in 0..255.
        std: Standard deviation that it divides by.
        epsilon: Epsilon of its batch normalisation.
        options: Options of our network that make it theirs.
        image_size: Side of their images in pixels (default: ours).
    """

    table: state_dicts.Table
    mean: registry.Pixel = registry.IMAGENET_MEAN
    std: registry.Pixel = registry.IMAGENET_STD
    epsilon: float = state_dicts.EPSILON
    options: Mapping = {}
    image_size: int | None = None


_RESNET = (
    ("stem_conv", "conv1"),
    ("stem_norm", "bn1"),
    ("stage#_block#_conv#", "layer#.#-1.conv#"),
    ("stage#_block#_norm#", "layer#.#-1.bn#"),
    ("stage#_block#_shortcut_conv", "layer#.#-1.downsample.0"),
    ("stage#_block#_shortcut_norm", "layer#.#-1.downsample.1"),
    ("fc", "fc"),
)
_DENSENET = (
    ("stem_conv", "features.conv0"),
    ("stem_norm", "features.norm0"),
    ("block#_layer#_norm#", "features.denseblock#.denselayer#.norm#"),
    ("block#_layer#_conv#", "features.denseblock#.denselayer#.conv#"),
    ("transition#_norm", "features.transition#.norm"),
    ("transition#_conv", "features.transition#.conv"),
    ("final_norm", "features.norm5"),
    ("fc", "classifier"),
)
_SQUEEZENET = (
    ("conv1", "features.0"),
    ("fire#_squeeze", "features.@.squeeze"),
    ("fire#_expand1", "features.@.expand1x1"),
    ("fire#_expand3", "features.@.expand3x3"),
    ("conv10", "classifier.1"),
)
_ALEXNET = (
    ("conv#", "features.@"),
    ("fc6", "classifier.1"),
    ("fc7", "classifier.4"),
    ("fc8", "classifier.6"),
)
_VGG_MAPS = (("conv#_#", "features.@"), ("norm#_#", "features.@"))
_VGG = (*_VGG_MAPS, ("fc6", "classifier.0"), ("fc7", "classifier.3"), ("fc8", "classifier.6"))
_VGG_TIMM = (*_VGG_MAPS, ("fc6", "pre_logits.fc1"), ("fc7", "pre_logits.fc2"), ("fc8", "head.fc"))
_DPN = (
    ("stem_conv", "features.conv1_1.conv"),
    ("stem_norm", "features.conv1_1.bn"),
    ("stage#_block#_norm1", "features.conv#+1_#.c1x1_a.bn"),
    ("stage#_block#_conv1", "features.conv#+1_#.c1x1_a.conv"),
    ("stage#_block#_norm2", "features.conv#+1_#.c3x3_b.bn"),
    ("stage#_block#_conv2", "features.conv#+1_#.c3x3_b.conv"),
    ("stage#_block#_norm3", "features.conv#+1_#.c1x1_c.bn"),
    ("stage#_block#_conv3", "features.conv#+1_#.c1x1_c.conv"),
    ("stage#_block#_project_norm", "features.conv#+1_#.c1x1_w_s2.bn"),
    ("stage#_block#_project_conv", "features.conv#+1_#.c1x1_w_s2.conv"),
    ("stage1_block#_project_norm", "features.conv2_#.c1x1_w_s1.bn"),
    ("stage1_block#_project_conv", "features.conv2_#.c1x1_w_s1.conv"),
    ("final_norm", "features.conv5_bn_ac.bn"),
    ("fc", "classifier"),
)

_RESNETS = "resnet18 resnet34 resnet50 resnet101 resnet152 wide_resnet50_2 wide_resnet101_2"
_DENSENETS = "densenet121 densenet161 densenet169 densenet201"
_VGGS = "vgg11 vgg13 vgg16 vgg19 vgg11_bn vgg13_bn vgg16_bn vgg19_bn"
_DPNS = "dpn68 dpn92 dpn98 dpn107 dpn131"
_DPN_SCALE = {"mean": (124.0, 117.0, 104.0), "std": 3 * (1 / 0.0167,)}

RULES = {
    "torchvision": {
        f"{_RESNETS} resnext50_32x4d resnext101_64x4d": Rule(_RESNET),
        _DENSENETS: Rule(_DENSENET),
        _VGGS: Rule(_VGG),
        "alexnet_owt": Rule(_ALEXNET),
        "squeezenet1_0": Rule(_SQUEEZENET, options={"class_padding": 0}, image_size=224),
        "squeezenet1_1": Rule(_SQUEEZENET),
    },
    "timm": {
        f"{_RESNETS} resnext50_32x4d resnext101_32x4d resnext101_64x4d": Rule(_RESNET),
        _DENSENETS: Rule(_DENSENET),
        _VGGS: Rule(_VGG_TIMM),
        _DPNS: Rule(_DPN, **_DPN_SCALE, epsilon=1e-3),
    },
}
SOURCES = (KERAS, *RULES)


def names(source: str) -> list[str]:
    """Returns the names of the networks that a source has weights for, in alphabetical order."""
    if source == KERAS:
        return keras_weights.names()
    return sorted(name for networks in RULES[source] for name in networks.split())


def parse(word: str) -> tuple[str, str | None]:
    """Splits "SOURCE", "SOURCE:FILE" or "FILE", whose suffix says whose it is.

    Returns:
        The source, one of `SOURCES`, and the path of the file; None for "keras", which Keras
        downloads.

    Raises:
        ValueError: If neither the source nor the kind of the file is known.
    """
    source, colon, file = word.partition(":")
    if source in SOURCES and (colon or not os.path.exists(word)):
        if not file and source != KERAS:
            raise ValueError(f"weights of {source} are not downloaded, expected {source}:FILE")
        return source, file or None
    suffix = Path(word).suffix
    if suffix not in _SUFFIXES:
        known = ", ".join(_SUFFIXES)
        raise ValueError(f"expected a weights file ({known}) or SOURCE:FILE, received {word}")
    return _SUFFIXES[suffix], word


def absolute(word: str) -> str:
    """Returns weights, as of `parse`, with an absolute path."""
    source, colon, file = word.partition(":")
    if source in SOURCES:
        return f"{source}:{os.path.abspath(file)}" if colon else word
    return os.path.abspath(word)


def options(name: str, word: str) -> dict:
    """Returns the arguments of `models.build` that make a network fit weights.

    Args:
        name: Name of the network.
        word: Weights, see `parse`.

    Raises:
        ValueError: If the source has no weights for the network.
    """
    source, _ = parse(word)
    if source == KERAS:
        return keras_weights.options(name)
    rule = _rule(name, source)
    scale = {"preprocessing": "standardised", "mean": rule.mean, "std": rule.std}
    return {**scale, **rule.options}


def image_size(name: str, source: str) -> int | None:
    """Returns the side of a source's images in pixels; None if it is that of our network."""
    return None if source == KERAS else _rule(name, source).image_size


def load(name: str, model: keras.Model, word: str) -> list[str]:
    """Copies weights into a network.

    Args:
        name: Name of the network.
        model: Result of `models.build(name, K, **options(name, word))`.
        word: Weights, see `parse`.

    Returns:
        Names of the layers that kept their weights: auxiliary heads, and the classifier if the
        source has another number of classes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, unsafe or of another network.
        RuntimeError: If Keras' download fails.
    """
    source, file = parse(word)
    if source == KERAS:
        return keras_weights.load(name, model, file or keras_weights.DOWNLOAD)
    rule = _rule(name, source)
    try:
        return state_dicts.load(model, read(file), rule.table, epsilon=rule.epsilon)
    except state_dicts.Mismatch as error:
        raise ValueError(
            f"wrong weights file, expected {source}'s weights of {name}, received {file}: {error}"
        ) from error


def read(file: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the arrays of a .safetensors or .pth file, by the names that the library gives today.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or unsafe.
    """
    if Path(file).suffix != ".safetensors":
        state = torch_files.read(file)
    elif not Path(file).is_file():
        raise FileNotFoundError(f"no weights file, expected a .safetensors, received {file}")
    else:
        try:
            state = safetensors.numpy.load_file(file)
        except safetensors.SafetensorError as error:
            raise ValueError(f"wrong weights file {file}: {error}") from error
    # DenseNets that were published before torchvision renamed the modules of a layer.
    return {re.sub(r"(\.denselayer\d+\.\w+)\.(\d)\.", r"\1\2.", k): v for k, v in state.items()}


def _rule(name: str, source: str) -> Rule:
    for networks, rule in RULES[source].items():
        if name in networks.split():
            return rule
    known = ", ".join(names(source))
    raise ValueError(f"no weights of {source} for it, expected {known}, received {name}")
