"""Draws a network as a picture, from the images at the top to the logits at the bottom.

igraph computes the layout (K. Sugiyama et al., 1981), matplotlib draws it. A layer without a box of
its own shares the box of the layer before it if it is that layer's only user: a convolution with
its normalisation and activation is one box.
"""

import os
from typing import NamedTuple

import igraph
import keras
import matplotlib

matplotlib.use("agg")

from matplotlib import pyplot
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path

_WIDTH, _HEIGHT, _ROW, _COLUMN = 2.6, 0.5, 0.85, 2.85  # inches: size of a box, distances of centres
_MOST_INCHES = 600  # limit of the picture's height
_COLOURS = {  # colour of a box by the class of its first layer
    "Conv": "#cfe2f6",
    "Dense": "#f7dcc3",
    "Pool": "#d6ecd2",
    "Add": "#eadcf2",
    "Concatenate": "#eadcf2",
}


class Box(NamedTuple):
    """A box of the picture: consecutive layers.

    Attributes:
        layers: Layers from first to last.
        inputs: Indices of the boxes that feed this one.
    """

    layers: list[keras.Layer]
    inputs: list[int]


def boxes(model: keras.Model) -> list[Box]:
    """Returns the boxes of a network, each after the boxes that feed it."""
    users, makers, nodes = {}, {}, []
    for layer in model.layers:
        for tensor in _inputs(layer):
            users[id(tensor)] = users.get(id(tensor), 0) + 1
    for layer in model.layers:
        sources = [makers[id(tensor)] for tensor in _inputs(layer)]
        only = len(sources) == 1 and users[id(_inputs(layer)[0])] == 1
        if only and not _begins(layer) and sources[0]:
            place = sources[0]
            nodes[place].layers.append(layer)
        else:
            place = len(nodes)
            nodes.append(Box([layer], sorted(set(sources))))
        for tensor in keras.tree.flatten(layer.output):
            makers[id(tensor)] = place
    return nodes


def _begins(layer):
    """Whether a layer begins a box."""
    kind = type(layer).__name__
    return any(word in kind for word in _COLOURS)


def _inputs(layer):
    return [] if isinstance(layer, keras.layers.InputLayer) else keras.tree.flatten(layer.input)


def draw(model: keras.Model, path: str | os.PathLike) -> None:
    """Draws a network into a file of the kind that its extension says (.svg, .png, .pdf).

    Raises:
        ValueError: If matplotlib does not know the extension, or the network is too deep.
        OSError: If the file cannot be written.
    """
    nodes = boxes(model)
    edges = [(source, place) for place, box in enumerate(nodes) for source in box.inputs]
    graph = igraph.Graph(len(nodes), edges, directed=True)
    layout = graph.layout_sugiyama(layers=_depths(nodes))
    bends, layout = layout.edge_routing, _apart(list(map(tuple, layout)))
    size = [
        spacing * (max(axis) - min(axis) + 1)
        for axis, spacing in zip(zip(*layout, strict=True), (_COLUMN, _ROW), strict=True)
    ]
    if size[1] > _MOST_INCHES:
        raise ValueError(f"{model.name} has {len(nodes)} boxes: too many for a picture")
    figure = pyplot.figure(figsize=size)
    panel = figure.add_axes((0, 0, 1, 1))
    panel.axis("off")
    panel.set_xlim(min(x for x, _ in layout) - 0.5, max(x for x, _ in layout) + 0.5)
    panel.set_ylim(max(y for _, y in layout) + 0.5, -0.5)
    for (source, place), way in zip(edges, bends, strict=True):
        panel.add_patch(_edge([layout[source], *way, layout[place]]))
    for box, centre in zip(nodes, layout, strict=True):
        _draw_box(panel, box, centre)
    try:
        figure.savefig(path, dpi=100)
    finally:
        pyplot.close(figure)


def _depths(nodes):
    """Returns the length of the longest path from the images to each box."""
    depths = []
    for box in nodes:
        depths.append(1 + max((depths[source] for source in box.inputs), default=-1))
    return depths


def _apart(centres):
    """Moves boxes that overlap in igraph's layout to the right."""
    ends, moved = {}, list(centres)
    for place in sorted(range(len(centres)), key=lambda place: centres[place]):
        x, y = centres[place]
        moved[place] = (max(x, ends.get(y, x)), y)
        ends[y] = moved[place][0] + 1
    return moved


def _edge(points):
    """Returns a smooth line through points, vertical at both ends."""
    vertices, codes = [points[0]], [Path.MOVETO]
    for (x, y), (to_x, to_y) in zip(points, points[1:], strict=False):
        middle = (y + to_y) / 2
        vertices += [(x, middle), (to_x, middle), (to_x, to_y)]
        codes += [Path.CURVE4] * 3
    return PathPatch(Path(vertices, codes), fill=False, edgecolor="#8a94a3", linewidth=1.2)


def _draw_box(panel, box, centre):
    first, last = box.layers[0], box.layers[-1]
    kind = type(first).__name__
    colour = next((c for word, c in _COLOURS.items() if word in kind), "#eef0f3")
    (x, y), width, height = centre, _WIDTH / _COLUMN, _HEIGHT / _ROW
    style = {"boxstyle": "round,pad=0,rounding_size=0.08", "mutation_aspect": _COLUMN / _ROW}
    corner = (x - width / 2, y - height / 2)
    panel.add_patch(
        FancyBboxPatch(corner, width, height, facecolor=colour, edgecolor="#6b7686", **style)
    )
    shape = " x ".join(map(str, keras.tree.flatten(last.output)[0].shape[1:]))
    text = {"ha": "center", "va": "center", "color": "#1d2430", "zorder": 3}
    panel.text(x, y - 0.18 * height, _label(box.layers), fontsize=7.5, **text)
    panel.text(x, y + 0.24 * height, shape, fontsize=7, **text | {"color": "#5c6675"})


def _label(layers):
    """Returns the label of a box: "conv2, 5 x 5, / 2, relu, dropout"."""
    first, *others = layers
    words = [first.name]
    if kernel := getattr(first, "kernel_size", None):
        words.append(f"{kernel[0]} x {kernel[1]}")
    stride = getattr(first, "strides", (1, 1))
    if stride and max(stride) > 1:
        words.append(f"/ {stride[0]}")
    words += [_SHORT.get(type(layer).__name__, "") for layer in others]
    text = ", ".join(filter(None, words))
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"


_LETTERS = 44  # limit of a label
_SHORT = {  # label of a layer that is not the first of its box
    "BatchNorm": "norm",
    "LocalResponseNorm": "LRN",
    "Activation": "relu",
    "ReLU": "relu",
    "Dropout": "dropout",
    "SpatialDropout2D": "dropout",
    "Flatten": "flatten",
}
