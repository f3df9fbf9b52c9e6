"""Converts a network from `keras_equivalents.classifier` to an ONNX graph.

The graph is written layer by layer, because existing converters require older versions of Keras
and NumPy. The input images are [B, H, W, C] as in Keras; the maps between layers are [B, C, H, W]
as ONNX's operators expect them. https://onnx.ai/onnx/operators/
"""

import math

import keras
import numpy as np
import onnx
from keras import ops
from onnx import TensorProto, helper, numpy_helper

OPSET = 17  # released in 2022, so older runtimes support it too
_IR_VERSION = 8  # from the same release
_BATCH = "batch"


def convert(model: keras.Model, metadata: dict[str, str]) -> onnx.ModelProto:
    """Converts a network to an ONNX graph.

    Args:
        model: Model from uint8 images [B, S, S, C] to float32 [B, K], of layers in `OPERATORS`.
        metadata: Metadata, written as `metadata_props`.

    Returns:
        Graph with one input and one output, named as in the model, and a dynamic batch size B.

    Raises:
        ValueError: If a layer is not in `OPERATORS`.
    """
    graph = _Graph()
    names = {id(model.input): _channels_first(graph, model.input.name)}
    for layer in model.operations:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if type(layer).__name__ not in OPERATORS:
            raise ValueError(
                f"layer {layer.name} ({type(layer).__name__}) is not known to the writer of ONNX"
            )
        inputs = [names[id(tensor)] for tensor in keras.tree.flatten(layer.input)]
        outputs = OPERATORS[type(layer).__name__](graph, layer, *inputs)
        output_tensors = keras.tree.flatten(layer.output)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        names |= {id(tensor): name for tensor, name in zip(output_tensors, outputs, strict=True)}
    return graph.model(model, names[id(model.output)], metadata)


class _Graph:
    """Builder that collects the nodes and constants of a graph."""

    def __init__(self):
        self._nodes, self._constants = [], []

    def node(self, operator: str, *inputs: str, name: str, outputs: int = 1, **attributes):
        """Adds a node and returns the name of its output, or a list of the names of several."""
        output_names = [name, *(f"{name}:{number}" for number in range(1, outputs))]
        self._nodes.append(
            helper.make_node(operator, inputs, output_names, name=name, **attributes)
        )
        return output_names if outputs > 1 else name

    def constant(self, values, name: str, dtype="float32") -> str:
        """Adds a constant and returns its name."""
        array = np.ascontiguousarray(ops.convert_to_numpy(values), dtype)
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def model(self, model, output: str, metadata) -> onnx.ModelProto:
        """Assembles the model and checks it."""
        shapes = [[_BATCH, *tensor.shape[1:]] for tensor in (model.input, model.output)]
        graph = helper.make_graph(
            self._nodes,
            model.name,
            [helper.make_tensor_value_info(model.input.name, TensorProto.UINT8, shapes[0])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, shapes[1])],
            self._constants,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        onnx_model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        helper.set_model_props(onnx_model, metadata)
        onnx.checker.check_model(onnx_model)
        return onnx_model


def _channels_first(graph, images):
    x = graph.node("Cast", images, name=f"{images}/float32", to=TensorProto.FLOAT)
    return graph.node("Transpose", x, name=f"{images}/channels_first", perm=[0, 3, 1, 2])


def _per_channel(values, rank):
    """Reshapes a scalar or a vector of channels to broadcast to [B, C, ...] tensors of a rank."""
    values = np.asarray(ops.convert_to_numpy(values))
    return values.reshape([-1, *[1] * (rank - 2)]) if values.ndim else values


def _window(layer, size):
    """Returns the attributes of a convolution or pooling, with TensorFlow's "same" padding."""
    dilations = list(getattr(layer, "dilation_rate", ()))
    begins, ends = [0, 0], [0, 0]
    if layer.padding == "same":
        for axis in (0, 1):
            length, stride = layer.input.shape[1 + axis], layer.strides[axis]
            span = (size[axis] - 1) * (dilations[axis] if dilations else 1) + 1
            missing = max(0, (math.ceil(length / stride) - 1) * stride + span - length)
            begins[axis], ends[axis] = missing // 2, missing - missing // 2
    window = {"kernel_shape": list(size), "strides": list(layer.strides), "pads": begins + ends}
    return window | ({"dilations": dilations} if dilations else {})


def _convolved(graph, x, kernel, name, groups=1, bias=None, **window):
    """Adds a convolution with a kernel in ONNX's layout: [filters, channels of a group, h, w]."""
    inputs = [x, graph.constant(kernel, f"{name}/kernel")]
    if bias is not None:
        inputs.append(graph.constant(bias, f"{name}/bias"))
    return graph.node("Conv", *inputs, name=f"{name}/convolved", group=groups, **window)


def _depthwise_conv(graph, layer, x, kernel, name, bias=None):
    """Adds a depthwise convolution with a kernel [h, w, C, multiplier]."""
    height, width, channels, multiplier = kernel.shape
    kernel = ops.reshape(
        ops.transpose(kernel, (2, 3, 0, 1)), (channels * multiplier, 1, height, width)
    )
    return _convolved(graph, x, kernel, name, channels, bias, **_window(layer, (height, width)))


def _conv(graph, layer, x):
    kernel = ops.transpose(layer.kernel, (3, 2, 0, 1))
    window = _window(layer, layer.kernel_size)
    y = _convolved(graph, x, kernel, layer.name, layer.groups, _bias(layer), **window)
    return _activated(graph, layer, y)


def _depthwise(graph, layer, x):
    y = _depthwise_conv(graph, layer, x, layer.kernel, layer.name, _bias(layer))
    return _activated(graph, layer, y)


def _separable(graph, layer, x):
    x = _depthwise_conv(graph, layer, x, layer.depthwise_kernel, f"{layer.name}/depthwise")
    kernel = ops.transpose(layer.pointwise_kernel, (3, 2, 0, 1))
    return _activated(graph, layer, _convolved(graph, x, kernel, layer.name, bias=_bias(layer)))


def _bias(layer):
    return layer.bias if layer.use_bias else None


def _dense(graph, layer, x):
    inputs = [x, graph.constant(layer.kernel, f"{layer.name}/kernel")]
    if layer.use_bias:
        inputs.append(graph.constant(layer.bias, f"{layer.name}/bias"))
    return _activated(graph, layer, graph.node("Gemm", *inputs, name=f"{layer.name}/product"))


def _norm(graph, layer, x):
    ones = ops.ones_like(layer.moving_mean)
    parts = {
        "gamma": ones if layer.gamma is None else layer.gamma,
        "beta": 0 * ones if layer.beta is None else layer.beta,
        "mean": layer.moving_mean,
        "variance": layer.moving_variance,
    }
    constants = [graph.constant(part, f"{layer.name}/{key}") for key, part in parts.items()]
    return graph.node("BatchNormalization", x, *constants, name=layer.name, epsilon=layer.epsilon)


def _max_pool(graph, layer, x):
    return graph.node("MaxPool", x, name=layer.name, **_window(layer, layer.pool_size))


def _average_pool(graph, layer, x):
    window = _window(layer, layer.pool_size)
    return graph.node("AveragePool", x, name=layer.name, count_include_pad=0, **window)


def _global_average(graph, layer, x):
    x = graph.node("GlobalAveragePool", x, name=f"{layer.name}/maps")
    return graph.node("Flatten", x, name=layer.name)


def _padded(graph, layer, x):
    (top, bottom), (left, right) = layer.padding
    pads = graph.constant([0, 0, top, left, 0, 0, bottom, right], f"{layer.name}/pads", "int64")
    return graph.node("Pad", x, pads, name=layer.name)


def _cropped(graph, layer, x):
    (top, bottom), (left, right) = layer.cropping
    height, width = layer.input.shape[1:3]
    bounds = {"starts": [top, left], "ends": [height - bottom, width - right], "axes": [2, 3]}
    named = [graph.constant(b, f"{layer.name}/{n}", "int64") for n, b in bounds.items()]
    return graph.node("Slice", x, *named, name=layer.name)


def _flattened(graph, layer, x):
    if len(layer.input.shape) == 4:
        x = graph.node("Transpose", x, name=f"{layer.name}/channels_last", perm=[0, 2, 3, 1])
    return graph.node("Flatten", x, name=layer.name)


def _one_pixel(graph, layer, x):
    """Reshapes [B, C] to maps of one pixel, the only reshaping in `keras_equivalents`."""
    shape = graph.constant([-1, layer.target_shape[-1], 1, 1], f"{layer.name}/shape", "int64")
    return graph.node("Reshape", x, shape, name=layer.name)


def _rescaled(graph, layer, x):
    rank = len(layer.input.shape)
    scale = graph.constant(_per_channel(layer.scale, rank), f"{layer.name}/scale")
    offset = graph.constant(_per_channel(layer.offset, rank), f"{layer.name}/offset")
    y = graph.node("Mul", x, scale, name=f"{layer.name}/scaled")
    return graph.node("Add", y, offset, name=layer.name)


def _einsum(graph, layer, x):
    if layer.equation != "bhwc,c->bhwc":
        raise ValueError(f"layer {layer.name}: {layer.equation} is not known to the writer of ONNX")
    scale = graph.constant(_per_channel(layer.kernel, 4), f"{layer.name}/scale")
    offset = graph.constant(ops.transpose(layer.bias, (2, 0, 1)), f"{layer.name}/offset")
    y = graph.node("Mul", x, scale, name=f"{layer.name}/scaled")
    return graph.node("Add", y, offset, name=layer.name)


def _concatenated(graph, layer, *xs):
    return graph.node("Concat", *xs, name=layer.name, axis=1)


def _split(graph, layer, x):
    ends = [0, *layer.indices_or_sections, layer.input.shape[-1]]
    sizes = graph.constant(np.diff(ends), f"{layer.name}/sizes", "int64")
    return graph.node("Split", x, sizes, name=layer.name, outputs=len(ends) - 1, axis=1)


def _product(graph, layer, *xs):
    x, *others = xs
    for number, other in enumerate(others, start=1):
        x = graph.node("Mul", x, other, name=f"{layer.name}/{number}")
    return x


def _inverse_root(graph, layer, x):
    return graph.node("Reciprocal", _root(graph, layer, x), name=f"{layer.name}/inverse")


def _root(graph, layer, x):
    return graph.node("Sqrt", x, name=layer.name)


def _activated(graph, layer, x):
    kind = keras.activations.serialize(layer.activation)
    if kind not in ACTIVATIONS:
        raise ValueError(f"layer {layer.name}: {kind} is not known to the writer of ONNX")
    return ACTIVATIONS[kind](graph, layer, x)


def _silu(graph, layer, x):
    gate = graph.node("Sigmoid", x, name=f"{layer.name}/sigmoid")
    return graph.node("Mul", x, gate, name=layer.name)


def _gelu(graph, layer, x):
    """Adds nodes for x (1 + erf(x / sqrt 2)) / 2."""
    name = layer.name
    root, one, half = (graph.constant(each, f"{name}/{each:.1f}") for each in (2**0.5, 1, 0.5))
    erf = graph.node("Erf", graph.node("Div", x, root, name=f"{name}/div"), name=f"{name}/erf")
    gate = graph.node("Add", erf, one, name=f"{name}/add")
    gate = graph.node("Mul", gate, half, name=f"{name}/half")
    return graph.node("Mul", x, gate, name=name)


def _relu6(graph, layer, x):
    bounds = [graph.constant(bound, f"{layer.name}/{bound}") for bound in (0, 6)]
    return graph.node("Clip", x, *bounds, name=layer.name)


def _operator(operator, **attributes):
    return lambda graph, layer, *xs: graph.node(operator, *xs, name=layer.name, **attributes)


# Functions `(graph, layer, x) -> output`, by Keras' name of the activation.
ACTIVATIONS = {
    "elu": _operator("Elu"),
    "gelu": _gelu,
    "linear": lambda graph, layer, x: x,
    "relu": _operator("Relu"),
    "relu6": _relu6,
    "sigmoid": _operator("Sigmoid"),
    "silu": _silu,
    "tanh": _operator("Tanh"),
}

# Functions `(graph, layer, *inputs) -> output`, by class name of the layer or operation.
OPERATORS = {
    "Absolute": _operator("Abs"),
    "Activation": _activated,
    "Add": _operator("Sum"),
    "Average": _operator("Mean"),
    "AveragePooling2D": _average_pool,
    "BatchNormalization": _norm,
    "Concatenate": _concatenated,
    "Conv2D": _conv,
    "Cropping2D": _cropped,
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise,
    "EinsumDense": _einsum,
    "Flatten": _flattened,
    "GlobalAveragePooling2D": _global_average,
    "MaxPooling2D": _max_pool,
    "Multiply": _product,
    "Rescaling": _rescaled,
    "Reshape": _one_pixel,
    "Rsqrt": _inverse_root,
    "SeparableConv2D": _separable,
    "Softmax": _operator("Softmax", axis=-1),
    "Split": _split,
    "Sqrt": _root,
    "Square": lambda graph, layer, x: graph.node("Mul", x, x, name=layer.name),
    "ZeroPadding2D": _padded,
}
