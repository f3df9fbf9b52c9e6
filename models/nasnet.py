"""NASNet-A for mobile devices.

Barret Zoph, Vijay Vasudevan, Jonathon Shlens, Quoc Le, "Learning transferable architectures for
scalable image recognition", CVPR 2018, arXiv:1707.07012. Transcribes figure 4 (the cells of
NASNet-A), figure 2 (their stacking for ImageNet) and the row "4 @ 1056".

Images are scaled to -1..1. The paper's figures are for one centre crop of 224 pixels, 87.5 % of the
shorter side.

Departures: what the figures leave open (the adjustment of the previous cell's maps, the two
reduction cells of the stem with a quarter and half of the filters) follows the authors' published
model; its auxiliary head is left out. Strided pools see a border of zeros, as in Keras' version of
it. Weights start so that every convolution keeps the variance (He et al. 2015, depthwise kernels
from N(0, 1 / pixels of the kernel)).
"""

from functools import partial

import keras

from models import inception_tables, layers, ops, pools, registry

# Figure 4: each block adds two operations (kind, size of the window, input). h is the output
# of the previous cell, p of the cell before that, both reduced to the cell's filters; a to e are
# the cell's own blocks. In the reduction cell, operations on h or p have a stride of 2.
NORMAL = {
    "a": (("separable", 5, "h"), ("separable", 3, "p")),
    "b": (("separable", 5, "p"), ("separable", 3, "p")),
    "c": (("average", 3, "h"), ("identity", 1, "p")),
    "d": (("average", 3, "p"), ("average", 3, "p")),
    "e": (("separable", 3, "h"), ("identity", 1, "h")),
}
REDUCTION = {
    "a": (("separable", 5, "h"), ("separable", 7, "p")),
    "b": (("max", 3, "h"), ("separable", 7, "p")),
    "c": (("average", 3, "h"), ("separable", 5, "p")),
    "d": (("identity", 1, "b"), ("average", 3, "a")),
    "e": (("separable", 3, "a"), ("max", 3, "h")),
}


def nasnet(
    x,
    num_classes: int,
    *,
    cells: int = 4,
    filters: int = 44,
    stem_filters: int = 32,
    count_border: bool = True,
    dropout: float = 0.5,
):
    """A convolution, two reduction cells, and three stages of normal cells.

    Args:
        x: Images scaled to -1..1, float32 [B, 224, 224, C].
        num_classes: Number of classes K.
        cells: Normal cells in each stage, the paper's N.
        filters: Filters of a cell in the first stage; the last stage ends with 24 times as many.
        stem_filters: Channels of the first convolution.
        count_border: Whether strided pools see a border of zeros.
        dropout: Fraction of the last features that is dropped.

    Returns:
        {"logits": float32 [B, K]}.
    """
    reduction = partial(_reduction, count_border=count_border)
    x = _conv_norm(x, stem_filters, 3, stride=2, name="stem")  # 111 x 111 x 32
    x, p = reduction(x, x, filters // 4, name="stem_cell1")  # 56 x 56 x 44
    x, p = reduction(x, p, filters // 2, name="stem_cell2")  # 28 x 28 x 88
    for stage in (1, 2, 3):
        # 28 x 28 x 264, 14 x 14 x 528, 7 x 7 x 1056
        width = filters * 2 ** (stage - 1)
        if stage > 1:
            x, p = reduction(x, p, width, name=f"stage{stage}_reduction")
        for number in range(1, cells + 1):
            x, p = _normal(x, p, width, name=f"stage{stage}_cell{number}")
    x = ops.relu(x, name="relu")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(dropout, name="drop")(x)
    return {"logits": ops.logits(x, num_classes, name="fc")}


def _normal(x, p, filters, *, name):
    maps = _cell(x, p, filters, NORMAL, 1, name)
    kept = [maps[key] for key in "pabcde"]
    return keras.layers.Concatenate(name=f"{name}_concat")(kept), x


def _reduction(x, p, filters, *, count_border, name):
    maps = _cell(x, p, filters, REDUCTION, 2, name, count_border=count_border)
    kept = [maps[key] for key in "bcde"]
    return keras.layers.Concatenate(name=f"{name}_concat")(kept), x


def _cell(x, p, filters, table, stride, name, **pools):
    """Returns h, p and the sums of all blocks."""
    p = _adjust(p, x, filters, f"{name}_p")
    h = ops.relu(x, name=f"{name}_h_relu")
    maps = {"h": _conv_norm(h, filters, 1, name=f"{name}_h"), "p": p}
    for block, pair in table.items():
        terms = [
            _operation(
                maps[source],
                kind,
                size,
                filters,
                stride=stride if source in "hp" else 1,
                name=f"{name}_{block}_{side}",
                **pools,
            )
            for side, (kind, size, source) in zip(("left", "right"), pair, strict=True)
        ]
        maps[block] = keras.layers.Add(name=f"{name}_{block}_add")(terms)
    return maps


def _operation(x, kind, size, filters, *, stride, name, count_border=True):
    if kind == "identity":
        return x
    if kind == "separable":
        x = _separable(x, filters, size, stride=stride, name=f"{name}_1")
        return _separable(x, filters, size, name=f"{name}_2")
    if stride == 1 or not count_border:
        return inception_tables.pool(x, kind, size, stride, name=name)
    border = [(length % 2, 1) for length in x.shape[1:3]]
    x = keras.layers.ZeroPadding2D(border, name=f"{name}_pad")(x)
    return pools.pool(x, size, stride, kind=kind, name=name)


def _separable(x, filters, kernel_size, *, stride=1, name):
    x = ops.relu(x, name=f"{name}_relu")
    x = ops.separable(x, filters, kernel_size, stride=stride, name=f"{name}_conv")
    return _norm(x, name)


def _adjust(p, x, filters, name):
    """Brings the output of the cell before the last to the size of x and to `filters` channels."""
    same_size = p.shape[1:3] == x.shape[1:3]
    if p is x or (same_size and p.shape[-1] == filters):
        return p
    p = ops.relu(p, name=f"{name}_relu")
    if same_size:
        return _conv_norm(p, filters, 1, name=name)
    return _norm(_halve(p, filters, name), name)


def _halve(x, filters, name):
    """Convolves every second pixel and, for half of the channels, its lower right neighbour."""
    shifted = keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_pad")(x)
    shifted = keras.layers.Cropping2D(((1, 0), (1, 0)), name=f"{name}_crop")(shifted)
    halves = [
        _conv(maps, filters // 2, 1, stride=2, name=f"{name}_{side}_conv")
        for side, maps in (("even", x), ("odd", shifted))
    ]
    return keras.layers.Concatenate(name=f"{name}_concat")(halves)


def _conv_norm(x, filters, kernel_size, *, stride=1, name):
    return _norm(_conv(x, filters, kernel_size, stride=stride, name=f"{name}_conv"), name)


_conv = partial(ops.conv, use_bias=False, kernel_initializer="he_normal")


def _norm(x, name):
    return layers.BatchNorm(epsilon=1e-3, name=f"{name}_norm")(x)


VARIANTS = {
    "nasnet_mobile": registry.Variant(
        nasnet,
        image_size=224,
        policy="inception",
        mean=127.5,
        std=127.5,
        paper="Zoph et al. 2018",
        year=2017,
        error="26.0/8.4 top-1/top-5, 1 crop",
    )
}
