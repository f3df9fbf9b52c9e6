"""What can be read off a built network: its cost, and which layers of another one are the same."""

import math

import keras


def parameters(weights) -> int:
    """Returns the number of elements of some variables."""
    return sum(math.prod(weight.shape) for weight in weights)


def layer_multiply_adds(layer: keras.Layer) -> int:
    """Returns the multiply-adds of one layer for one image: convolutions of any kind, and dense.

    Biases, normalisation, pooling and activations are not counted. A kernel's shape already holds
    only the channels of its group, and a depthwise kernel's one channel per map.
    """
    kernels = [weight for weight in layer.weights if weight.name.endswith("kernel")]
    return parameters(kernels) * math.prod(layer.output.shape[1:-1]) if kernels else 0


def multiply_adds(model: keras.Model) -> int:
    """Returns the multiply-adds of the convolutions and dense layers of a model for one image."""
    return sum(map(layer_multiply_adds, model.layers))


def activations(model: keras.Model) -> int:
    """Returns how many numbers the layers of a model put out for one image, the input included."""
    outputs = keras.tree.flatten([layer.output for layer in model.layers])
    return sum(math.prod(output.shape[1:]) for output in outputs)


def same_layers(ours: keras.Tensor, theirs: keras.Tensor, models) -> list[tuple]:
    """Pairs the layers with weights of two graphs of the same network, whatever their names.

    Walks back from an output of each. Layers without weights are passed over, so padding,
    activations and dropout may be arranged differently. The inputs of a concatenation are taken
    in order (nested ones as one); those of a sum by the kernels on the way to them, because
    `x + y` may be written `y + x`.

    Args:
        ours: Symbolic output of the first graph.
        theirs: The same of the second.
        models: The two models, which contain the outputs.

    Returns:
        [(our layer, their layer), ...] from the outputs back to the inputs.

    Raises:
        ValueError: If the graphs differ.
    """
    graphs = [_Graph(model) for model in models]
    pairs = {}
    waiting = [(graphs[0].origin(ours), graphs[1].origin(theirs))]
    while waiting:
        pair = waiting.pop()
        known = pairs.setdefault(*pair)
        if known is not pair[1] or bool(pair[0].weights) != bool(pair[1].weights):
            raise ValueError(_mismatch(*pair))
        if not graphs[0].visit(pair[0]):
            continue
        sources = [graph.sources(layer) for graph, layer in zip(graphs, pair, strict=True)]
        if len(sources[0]) != len(sources[1]):
            raise ValueError(_mismatch(*pair))
        waiting += zip(*sources, strict=True)
    return [(mine, other) for mine, other in pairs.items() if mine.weights]


def _mismatch(mine, other):
    return f"the networks differ, expected what feeds {mine.name}, received what feeds {other.name}"


class _Graph:
    """The layers of a model that count: with weights, with several inputs, or an input itself."""

    def __init__(self, model):
        self._layers = {
            id(output): layer
            for layer in model.layers
            for output in keras.tree.flatten(layer.output)
        }
        self._visited = set()

    def visit(self, layer):
        """Whether this is the first visit."""
        new = layer not in self._visited
        self._visited.add(layer)
        return new

    def origin(self, tensor):
        """The layer that counts from which a tensor comes."""
        layer = self._layers[id(tensor)]
        while not layer.weights and len(inputs := _inputs(layer)) == 1:
            layer = self._layers[id(inputs[0])]
        return layer

    def sources(self, layer):
        """The layers that count from which a layer's inputs come, in a canonical order."""
        if isinstance(layer, keras.layers.Concatenate):
            return [self.origin(tensor) for tensor in self._parts(layer)]
        return sorted(map(self.origin, _inputs(layer)), key=self._way)

    def _parts(self, layer):
        for tensor in _inputs(layer):
            before = self._layers[id(tensor)]
            nested = isinstance(before, keras.layers.Concatenate)
            yield from self._parts(before) if nested else [tensor]

    def _way(self, layer):
        """Shapes of the kernels from a layer back to where graphs meet: the same for any naming."""
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
    """Without leading ones: a 1 x 1 convolution of one pixel is a dense layer."""
    shape = list(weight.shape)
    while shape[:1] == [1]:
        del shape[0]
    return shape
