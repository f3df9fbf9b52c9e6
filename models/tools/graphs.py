"""Analyses of built networks: cost, stages, classifier, layers in common with another network."""

import math
import re
from typing import NamedTuple

import keras


class Pair(NamedTuple):
    """Corresponding layers with weights in two graphs of one network, and the layers before them.

    The layer before has weights or several inputs, or is the input; others are skipped.
    """

    ours: keras.Layer
    theirs: keras.Layer
    ours_before: keras.Layer
    theirs_before: keras.Layer


def parameters(weights) -> int:
    """Returns the number of elements of variables."""
    return sum(math.prod(weight.shape) for weight in weights)


def layer_multiply_adds(layer: keras.Layer) -> int:
    """Returns the multiply-adds of a convolution or dense layer for one image; 0 for other layers.

    Biases, normalisation, pooling and activations are not counted. A kernel's shape has
    the channels of one group only, and a depthwise kernel's shape one channel per map.
    """
    kernels = [weight for weight in layer.weights if weight.name.endswith("kernel")]
    return parameters(kernels) * math.prod(layer.output.shape[1:-1]) if kernels else 0


def multiply_adds(model: keras.Model) -> int:
    """Returns the multiply-adds of the convolutions and dense layers of a model for one image."""
    return sum(map(layer_multiply_adds, model.layers))


def activations(model: keras.Model) -> int:
    """Returns the number of values in all layers' outputs for one image, the input included."""
    outputs = keras.tree.flatten([layer.output for layer in model.layers])
    return sum(math.prod(output.shape[1:]) for output in outputs)


def classifiers(model: keras.Model) -> list[keras.Layer]:
    """Returns the layers that compute the logits: the last with weights before each output."""
    graph = _Graph(model)
    return [graph.origin(output) for output in keras.tree.flatten(model.output)]


def layers_before(model: keras.Model) -> dict[str, keras.Layer]:
    """Returns the layer before each layer that has one input, by its name."""
    graph = _Graph(model)
    single = {layer.name: _inputs(layer) for layer in model.layers if len(_inputs(layer)) == 1}
    return {name: graph.maker(tensor) for name, (tensor,) in single.items()}


def norm_biases(model: keras.Model) -> list[str]:
    """Returns the paths of the biases of batch normalisation."""
    kind = keras.layers.BatchNormalization
    return [layer.beta.path for layer in model.layers if isinstance(layer, kind) and layer.center]


def last_maps(model: keras.Model) -> keras.KerasTensor:
    """Returns the last maps [B, H, W, C] from which alone the logits are computed.

    These are the last of more than one pixel: before global pooling, or before the dense layers.
    If branches merge after all larger maps, they are the last maps of one pixel.
    """
    graph, tensor, maps = _Graph(model), model.output["logits"], model.input
    while True:
        if len(tensor.shape) == 4:
            maps = tensor
            if max(tensor.shape[1:3]) > 1:
                return maps
        before = _inputs(graph.maker(tensor))
        if len(before) != 1:
            return maps
        (tensor,) = before


def classifier_input(model: keras.Model) -> keras.KerasTensor:
    """Returns the input of the layer that computes the logits."""
    return _Graph(model).origin(model.output["logits"]).input


def stage_ends(model: keras.Model) -> list[int]:
    """Returns the index in `model.layers` of the last layer of each stage, in order.

    Stages are read from the layers' names ("stage2_block1_conv1"). Without such names, a stage ends
    before each layer whose maps are smaller than all before it on the way to the logits.
    """
    named = {}
    for place, layer in enumerate(model.layers):
        if match := re.match(r"stage(\d+)_", layer.name):
            named[int(match[1])] = place
    if named:
        return [named[number] for number in sorted(named)]
    way = _Graph(model).way_to(model.output["logits"])
    maps = [
        place
        for place, layer in enumerate(model.layers)
        if layer in way and len(keras.tree.flatten(layer.output)[0].shape) == 4
    ]
    ends, smallest = [], math.inf
    for before, place in zip(maps, maps[1:], strict=False):
        smallest = min(smallest, keras.tree.flatten(model.layers[before].output)[0].shape[1])
        if keras.tree.flatten(model.layers[place].output)[0].shape[1] < smallest:
            ends.append(place - 1)
    ends.append(maps[-1])
    begins = [0, *(end + 1 for end in ends)]
    return [
        end
        for begin, end in zip(begins, ends, strict=False)
        if any(layer.weights for layer in model.layers[begin : end + 1])
    ]


def same_layers(ours: keras.Model, theirs: keras.Model, output: str = "logits") -> list[Pair]:
    """Pairs the layers with weights of two graphs of the same network, regardless of names.

    Walks back from an output of each. Layers without weights are skipped, so padding, activations
    and dropout may be arranged differently. Inputs of a concatenation are paired in order (nested
    concatenations as one), inputs of a sum by the kernels that lead to them, because `x + y` may be
    written `y + x`.

    Args:
        ours: The first graph.
        theirs: The second graph, with a single output.
        output: Name of the output of `ours` that corresponds to it.

    Returns:
        The pairs, from the outputs back to the inputs.

    Raises:
        ValueError: If the graphs differ.
    """
    graphs = _Graph(ours), _Graph(theirs)
    waiting = [(graphs[0].origin(ours.output[output]), graphs[1].origin(theirs.output))]
    partners, pairs = {}, []
    while waiting:
        mine, other = pair = waiting.pop()
        if mine in partners and partners[mine] is other:
            continue
        sources = [graph.sources(layer) for graph, layer in zip(graphs, pair, strict=True)]
        same = bool(mine.weights) == bool(other.weights) and len(sources[0]) == len(sources[1])
        if mine in partners or not same:
            raise ValueError(f"the networks differ: {mine.name} of ours, {other.name} of Keras'")
        partners[mine] = other
        waiting += zip(*sources, strict=True)
        if mine.weights:
            pairs.append(Pair(mine, other, sources[0][0], sources[1][0]))
    return pairs


def require_size(model: keras.Model, side: int) -> None:
    """Raises ValueError if a network cannot process images of another size than it was built for.

    Args:
        model: Network whose weights must not depend on the size of the maps.
        side: Height and width of the images, pixels.
    """
    try:
        model.call(keras.ops.zeros([1, side, side, model.input_shape[-1]]))
    except Exception as error:  # every backend has its own
        raise ValueError(
            f"{model.name} cannot be trained on images of {side} pixels and of "
            f"{model.input_shape[1]}: its weights depend on the size, or the maps become too small"
        ) from error


def frozen_end(model: keras.Model) -> keras.KerasTensor | None:
    """Returns the output of the frozen part: no layer before it is trained or random.

    Returns:
        The tensor; None if there are several such tensors, or no weights before it.
    """
    graph, fixed, ends = _Graph(model), set(), {}
    for layer in model.layers:  # in topological order
        inputs = _inputs(layer)
        known = [tensor for tensor in inputs if graph.maker(tensor) in fixed]
        if len(known) == len(inputs) and not _changes(layer):
            fixed.add(layer)
        else:
            ends |= {id(tensor): tensor for tensor in known}
    (end, *others) = ends.values() or [None]
    return end if not others and any(layer.weights for layer in fixed) else None


def _changes(layer):
    return bool(layer.trainable_weights) or hasattr(layer, "seed_generator")


class _Graph:
    """The layers of a model by their output tensors.

    Nodes are layers with weights or several inputs, and the input.
    """

    def __init__(self, model):
        self._layers = {
            id(output): layer
            for layer in model.layers
            for output in keras.tree.flatten(layer.output)
        }

    def origin(self, tensor):
        """Returns the nearest node on the way back from a tensor."""
        layer = self._layers[id(tensor)]
        while not layer.weights and len(inputs := _inputs(layer)) == 1:
            layer = self._layers[id(inputs[0])]
        return layer

    def maker(self, tensor):
        """Returns the layer whose output a tensor is."""
        return self._layers[id(tensor)]

    def way_to(self, tensor):
        """Returns all layers on the way to a tensor, its own included."""
        way, waiting = set(), [tensor]
        while waiting:
            layer = self._layers[id(waiting.pop())]
            if layer not in way:
                way.add(layer)
                waiting += _inputs(layer)
        return way

    def sources(self, layer):
        """Returns the nodes that feed a layer, in a canonical order."""
        if isinstance(layer, keras.layers.Concatenate):
            return [self.origin(tensor) for tensor in self._parts(layer)]
        return sorted(map(self.origin, _inputs(layer)), key=self._way)

    def _parts(self, layer):
        for tensor in _inputs(layer):
            before = self._layers[id(tensor)]
            nested = isinstance(before, keras.layers.Concatenate)
            yield from self._parts(before) if nested else [tensor]

    def _way(self, layer):
        """Returns the shapes of the kernels from a layer back to the next merge."""
        way = []
        while layer.weights:
            way.append(max((_shape(weight) for weight in layer.weights), key=len))
            layer = self.origin(_inputs(layer)[0])
        return way


def _inputs(layer):
    if isinstance(layer, keras.layers.InputLayer):
        return []
    return keras.tree.flatten(layer.input)


def _shape(weight):
    """Returns a shape without leading ones: a 1 x 1 convolution of one pixel is a dense layer."""
    shape = list(weight.shape)
    while shape[:1] == [1]:
        del shape[0]
    return shape
