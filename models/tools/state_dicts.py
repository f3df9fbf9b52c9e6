"""Copies the state dicts of PyTorch libraries and Caffe into our networks, exactly.

Which of their modules each of our layers is, says a table for a kind of network and a source: our
layers, their modules; for a separable convolution two modules. Of several rows that fit a layer,
the first counts. In our name, `#` is a number and `~` a letter. In their name, `#` and `~` are the
same in the same order, a letter after `#` by its place in the alphabet; `#+5` is a number 5 higher;
and `@` is the next, in numerical order, of the modules with such a name.

Where the libraries compute otherwise, weights are adjusted so that the logits at inference are
equal:

- kernels have the outputs first, and dense kernels after maps the channels before the pixels;
- a bias before batch normalisation is subtracted from the moving mean;
- a difference of epsilon is added to the moving variance;
- a bias in place of batch normalisation becomes a normalisation that only adds it;
- the channels of the first kernel are reversed for networks of BGR images;
- a classifier or dense layer that is a convolution becomes a dense layer.

Options, padding and the scale of the images cannot be adjusted so: the network is built with them.
"""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np

from models.tools import graphs

EPSILON = 1e-5  # of PyTorch's batch normalisation
# Beginnings of the names of auxiliary heads: ours, PyTorch libraries' and Caffe's.
AUXILIARY = ("aux", "Aux", "loss1/", "loss2/")

Table = Sequence[tuple[str, ...]]
State = Mapping[str, np.ndarray]


class Mismatch(ValueError):
    """The state dict is not of this network."""


def load(
    model: keras.Model,
    state: State,
    table: Table,
    *,
    epsilon: float = EPSILON,
    bgr: bool = False,
) -> list[str]:
    """Sets the weights of a model.

    Args:
        model: One of our networks, with any number of classes.
        state: Arrays by name, such as "conv1.weight".
        table: Our layers and their modules.
        epsilon: Epsilon of their batch normalisation.
        bgr: Whether their images are BGR.

    Returns:
        Names of the layers that kept their weights: auxiliary heads, and the classifier if the
        state dict has another number of classes.

    Raises:
        Mismatch: If an array is missing or has another shape.
    """
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    modules = {
        name: names
        for name, names in pair(layers, state, table).items()
        if f"{names[0]}.weight" in state or not name.startswith(AUXILIARY)
    }
    check_all_paired(layers, modules, state)
    heads, before = graphs.classifiers(model), graphs.layers_before(model)
    first, values = next(iter(layers)), {}
    for name, names in modules.items():
        layer, (module, *_) = layers[name], names
        if isinstance(layer, keras.layers.BatchNormalization):
            lost = _lost_bias(before[name], modules, state)
            arrays = _norm_arrays(layer, module, state, lost, epsilon - layer.epsilon)
        else:
            arrays = _kernel_arrays(layer, names, state, before[name])
        if bgr and name == first:
            arrays[0] = arrays[0][..., ::-1, :]
        expected = [tuple(weight.shape) for weight in layer.weights]
        received = [array.shape for array in arrays]
        if received == expected:
            values[name] = arrays
        elif layer not in heads or [s[:-1] for s in received] != [s[:-1] for s in expected]:
            raise Mismatch(f"{module} has the shapes {received}, expected {expected} of {name}")
    for name, arrays in values.items():
        layers[name].set_weights(arrays)
    return sorted(layers.keys() - values.keys())


def check_all_paired(
    layers: Iterable[str], modules: Mapping[str, tuple[str, ...]], state: State
) -> None:
    """Checks that every layer and every module has a partner, except in auxiliary heads.

    Args:
        layers: Names of our layers.
        modules: Names of the modules of each layer.
        state: Arrays by name.

    Raises:
        Mismatch: If one has none.
    """
    for name in layers:
        if name not in modules and not name.startswith(AUXILIARY):
            raise Mismatch(f"nothing is said of {name}")
    used = {module for names in modules.values() for module in names}
    for name in state:
        if name.rpartition(".")[0] not in used and not name.startswith(AUXILIARY):
            raise Mismatch(f"{name} is of no layer of this network")


def pair(
    layers: Mapping[str, keras.Layer], state: State, table: Table
) -> dict[str, tuple[str, ...]]:
    """Returns the names of the modules of each layer that a table names.

    Raises:
        Mismatch: If there are more or fewer modules than layers.
    """
    found = {}
    for ours, *theirs in table:
        matching = sorted(_matching(ours, (name for name in layers if name not in found)))
        norms = any(isinstance(layers[name], _NORM) for _, name in matching)
        columns = [_modules(pattern, matching, state, norms) for pattern in theirs]
        names = (name for _, name in matching)
        found |= dict(zip(names, zip(*columns, strict=True), strict=True))
    return found


def _modules(pattern: str, matching: list[tuple[tuple, str]], state: State, norms: bool):
    """Returns the module of a pattern for each of the matching layers."""
    if "@" not in pattern or not matching:
        return [_filled(pattern, values) for values, _ in matching]
    kind = "running_mean" if norms else "weight"
    names = (name.rpartition(".") for name in state)
    modules = [module for module, _, array in names if array == kind]
    named = [name for _, name in sorted(_matching(pattern, modules))]
    named = [name for name in named if norms or state[f"{name}.weight"].ndim > 1]
    if len(named) != len(matching):
        raise Mismatch(f"{len(named)} modules {pattern}, expected {len(matching)}")
    return named


def _matching(pattern: str, names: Iterable[str]) -> Iterable[tuple[tuple, str]]:
    """Yields the names of a pattern after their numbers and letters."""
    expression = re.escape(pattern).replace(r"\#", "#").replace(r"\~", "~")
    expression = re.sub("[#@]", r"(\\d+)", expression).replace("~", "([a-z])")
    for name in names:
        if match := re.fullmatch(expression, name):
            yield tuple(int(v) if v.isdigit() else v for v in match.groups()), name


def _filled(pattern: str, values: Iterable[int | str]) -> str:
    """Returns the name in which each `#` and `~` is one of these values, in order."""
    values = iter(values)

    def value(match):
        given = next(values)
        if match[0] == "~":
            return given
        number = ord(given) - ord("a") + 1 if isinstance(given, str) else given
        return str(number + int(match[1] or 0))

    return re.sub(r"#([+-]\d+)?|~", value, pattern)


def _array(state: State, module: str, name: str) -> np.ndarray:
    if f"{module}.{name}" not in state:
        raise Mismatch(f"{module}.{name} is missing")
    return np.asarray(state[f"{module}.{name}"], np.float32)


def _norm_arrays(layer, module, state, lost_bias, variance) -> list[np.ndarray]:
    """Returns the weights of batch normalisation.

    Args:
        layer: Our layer.
        module: Name of their normalisation, or of a convolution whose bias takes its place.
        state: Arrays by name.
        lost_bias: Bias that they add before.
        variance: What they add to the variance, and ours does not.
    """
    get = functools.partial(_array, state, module)
    if get("weight").ndim > 1:
        ones = np.ones_like(get("bias"))
        unchanged = {"gamma": ones, "moving_mean": 0 * ones}
        arrays = {**unchanged, "beta": get("bias"), "moving_variance": ones - layer.epsilon}
    else:
        arrays = {
            "gamma": get("weight"),
            "beta": get("bias"),
            "moving_mean": get("running_mean") - lost_bias,
            "moving_variance": get("running_var") + np.float32(variance),
        }
    return [arrays[weight.name] for weight in layer.weights]


def _lost_bias(before: keras.Layer, modules: Mapping[str, tuple[str, ...]], state: State):
    """Returns the bias of the module before a normalisation if ours has none there, else 0."""
    if getattr(before, "use_bias", True) or before.name not in modules:
        return _ZERO
    return state.get(f"{modules[before.name][-1]}.bias", _ZERO)


_ZERO = np.float32(0)
_NORM = keras.layers.BatchNormalization


def _kernel_arrays(layer, names, state, before) -> list[np.ndarray]:
    """Returns the kernels and, if there is one, the bias of a convolution or dense layer.

    Args:
        layer: Our layer.
        names: Names of their modules.
        state: Arrays by name.
        before: The layer before ours.
    """
    kernels = [_array(state, name, "weight") for name in names]
    if isinstance(layer, keras.layers.SeparableConv2D):
        kernels = [kernels[0].transpose(2, 3, 0, 1), kernels[1].transpose(2, 3, 1, 0)]
    elif isinstance(layer, keras.layers.DepthwiseConv2D):
        kernels = [kernels[0].transpose(2, 3, 0, 1)]
    elif isinstance(layer, keras.layers.Dense):
        kernels = [_dense_kernel(kernels[0], before)]
    else:
        kernels = [kernels[0].transpose(2, 3, 1, 0)]
    return [*kernels, *([_array(state, names[-1], "bias")] if layer.use_bias else [])]


def _dense_kernel(kernel: np.ndarray, before: keras.Layer) -> np.ndarray:
    """Returns a kernel [inputs, outputs] whose inputs are in the order of our flattened maps."""
    if kernel.ndim == 2 and isinstance(before, keras.layers.Flatten):
        height, width, channels = before.input.shape[1:]
        if kernel.shape[1] == height * width * channels:
            kernel = kernel.reshape(-1, channels, height, width)
    if kernel.ndim == 4:
        kernel = kernel.transpose(0, 2, 3, 1).reshape(len(kernel), -1)
    return kernel.T
