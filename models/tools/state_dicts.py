"""Copies the state dicts of PyTorch libraries into our networks, exactly.

Which of their modules each of our layers is, says a table of two columns for a kind of network and
a source: our layers, their modules. `#` is a number; in their name it is the same number, `#-1` and
`#+1` are its neighbours, and `@` is the next, in numerical order, of the modules with such a name.

Where the libraries compute otherwise, weights are adjusted so that the logits at inference are
equal:

- kernels have the outputs first, and dense kernels after maps the channels before the pixels;
- a bias before batch normalisation is subtracted from the moving mean;
- a difference of epsilon is added to the moving variance;
- a classifier or dense layer that is a convolution becomes a dense layer.

Options, padding and the scale of the images cannot be adjusted so: the network is built with them.
"""

import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np

from models.tools import graphs

EPSILON = 1e-5  # of PyTorch's batch normalisation
# Beginnings of the names of auxiliary heads: ours, PyTorch libraries' and Caffe's.
AUXILIARY = ("aux", "Aux", "loss1/", "loss2/")

Table = Sequence[tuple[str, str]]
State = Mapping[str, np.ndarray]


class Mismatch(ValueError):
    """The state dict is not of this network."""


def load(model: keras.Model, state: State, table: Table, *, epsilon: float = EPSILON) -> list[str]:
    """Sets the weights of a model.

    Args:
        model: One of our networks, with any number of classes.
        state: Arrays by name, such as "conv1.weight".
        table: Our layers and their modules.
        epsilon: Epsilon of their batch normalisation.

    Returns:
        Names of the layers that kept their weights: auxiliary heads, and the classifier if the
        state dict has another number of classes.

    Raises:
        Mismatch: If an array is missing or has another shape.
    """
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    modules = {
        name: module
        for name, module in pair(layers, state, table).items()
        if f"{module}.weight" in state or not name.startswith(AUXILIARY)
    }
    _check_all_paired(layers, modules, state)
    heads, before = graphs.classifiers(model), graphs.layers_before(model)
    values = {}
    for name, module in modules.items():
        layer, get = layers[name], functools.partial(_array, state, module)
        if isinstance(layer, keras.layers.BatchNormalization):
            lost = _lost_bias(before[name], modules, state)
            arrays = _norm_arrays(layer, get, lost, epsilon - layer.epsilon)
        else:
            arrays = _kernel_arrays(layer, get, model)
        expected = [tuple(weight.shape) for weight in layer.weights]
        received = [array.shape for array in arrays]
        if received == expected:
            values[name] = arrays
        elif layer not in heads or [s[:-1] for s in received] != [s[:-1] for s in expected]:
            raise Mismatch(f"{module} has the shapes {received}, expected {expected} of {name}")
    for name, arrays in values.items():
        layers[name].set_weights(arrays)
    return sorted(layers.keys() - values.keys())


def _check_all_paired(layers: Iterable[str], modules: Mapping[str, str], state: State) -> None:
    """Raises Mismatch if a layer or a module has no partner and is not of an auxiliary head."""
    for name in layers:
        if name not in modules and not name.startswith(AUXILIARY):
            raise Mismatch(f"nothing is said of {name}")
    used = set(modules.values())
    for name in state:
        if name.rpartition(".")[0] not in used and not name.startswith(AUXILIARY):
            raise Mismatch(f"{name} is of no layer of this network")


def pair(layers: Mapping[str, keras.Layer], state: State, table: Table) -> dict[str, str]:
    """Returns the name of the module of each layer that a table names.

    Raises:
        Mismatch: If there are more or fewer modules than layers.
    """
    found = {}
    for ours, theirs in table:
        matching = sorted(_matching(ours, layers))
        if matching and "@" in theirs:
            kind = "running_mean" if _are_norms(layers, matching) else "weight"
            names = (name.rpartition(".") for name in state)
            modules = [module for module, _, array in names if array == kind]
            named = [name for _, name in sorted(_matching(theirs, modules))]
            named = [name for name in named if kind != "weight" or state[f"{name}.weight"].ndim > 1]
            if len(named) != len(matching):
                raise Mismatch(f"{len(named)} modules {theirs}, expected {len(matching)}")
        else:
            named = [_filled(theirs, numbers) for numbers, _ in matching]
        found |= zip((name for _, name in matching), named, strict=True)
    return found


def _matching(pattern: str, names: Iterable[str]) -> Iterable[tuple[tuple[int, ...], str]]:
    """Yields the names of a pattern after their numbers."""
    expression = re.compile(re.sub("[#@]", r"(\\d+)", pattern.replace(".", r"\.")))
    for name in names:
        if match := expression.fullmatch(name):
            yield tuple(map(int, match.groups())), name


def _filled(pattern: str, numbers: Iterable[int]) -> str:
    """Returns the name in which each `#`, `#-1` and `#+1` is one of these numbers, in order."""
    numbers = iter(numbers)
    return re.sub("#([+-]1)?", lambda match: str(next(numbers) + int(match[1] or 0)), pattern)


def _are_norms(layers, matching) -> bool:
    kind = keras.layers.BatchNormalization
    return any(isinstance(layers[name], kind) for _, name in matching)


def _array(state: State, module: str, name: str) -> np.ndarray:
    if f"{module}.{name}" not in state:
        raise Mismatch(f"{module}.{name} is missing")
    return np.asarray(state[f"{module}.{name}"], np.float32)


def _norm_arrays(layer, get, lost_bias, variance) -> list[np.ndarray]:
    """Returns the weights of batch normalisation.

    Args:
        layer: Our layer.
        get: Returns an array of their module by its name.
        lost_bias: Bias that they add before.
        variance: What they add to the variance, and ours does not.
    """
    arrays = {
        "gamma": get("weight"),
        "beta": get("bias"),
        "moving_mean": get("running_mean") - lost_bias,
        "moving_variance": get("running_var") + np.float32(variance),
    }
    return [arrays[weight.name] for weight in layer.weights]


def _lost_bias(before: keras.Layer, modules: Mapping[str, str], state: State) -> np.ndarray:
    """Returns the bias of the module before a normalisation if ours has none there, else 0."""
    keeps_it = getattr(before, "use_bias", True)
    return state.get(f"{modules.get(before.name)}.bias", _ZERO) if not keeps_it else _ZERO


_ZERO = np.float32(0)


def _kernel_arrays(layer, get, model) -> list[np.ndarray]:
    """Returns the kernel and, if there is one, the bias of a convolution or dense layer."""
    kernel = get("weight")
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        kernel = kernel.transpose(2, 3, 0, 1)
    elif isinstance(layer, keras.layers.Dense):
        kernel = _dense_kernel(kernel, model)
    else:
        kernel = kernel.transpose(2, 3, 1, 0)
    return [kernel, *([get("bias")] if layer.use_bias else [])]


def _dense_kernel(kernel: np.ndarray, model: keras.Model) -> np.ndarray:
    """Returns a kernel [inputs, outputs] whose inputs are in the order of our flattened maps."""
    maps = [
        layer.input.shape[1:] for layer in model.layers if isinstance(layer, keras.layers.Flatten)
    ]
    if kernel.ndim == 2 and kernel.shape[1] in map(math.prod, maps):
        height, width, channels = maps[0]
        kernel = kernel.reshape(-1, channels, height, width)
    if kernel.ndim == 4:
        kernel = kernel.transpose(0, 2, 3, 1).reshape(len(kernel), -1)
    return kernel.T
