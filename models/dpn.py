"""Dual path networks: every block adds to a residual path and appends to a dense path.

Yunpeng Chen, Jianan Li, Huaxin Xiao, Xiaojie Jin, Shuicheng Yan, Jiashi Feng, "Dual path
networks", NIPS 2017, arXiv:1707.01629. Transcribes table 1 (DPN-92, DPN-98) and table 6 (DPN-131);
DPN-68 and DPN-107 follow the authors' code, and so do the colour constants.

Departures: none in the graph. DPN-107's published error comes after training on 5000 classes more.
Weights start as in He et al. (2015), scaled by the incoming connections.
"""

from functools import partial
from typing import NamedTuple

import keras

from models import ops, pools, registry

WIDTHS_68 = (64, 128, 256, 512)
WIDTHS = (256, 512, 1024, 2048)


class Table(NamedTuple):
    """One column of the paper's table."""

    stem: tuple[int, int]  # kernel size, channels
    bottleneck: int  # channels of the first stage's 3 x 3 convolutions; every stage doubles them
    groups: int
    depths: tuple[int, ...]  # blocks of conv2 to conv5
    increments: tuple[int, ...]  # channels that each block of a stage appends
    widths: tuple[int, ...] = WIDTHS  # channels of the residual path


#                  stem  3 x 3   G        blocks             appended          added
DPN_68 = Table((3, 10), 128, 32, (3, 4, 12, 3), (16, 32, 32, 64), WIDTHS_68)
DPN_92 = Table((7, 64), 96, 32, (3, 4, 20, 3), (16, 32, 24, 128))
DPN_98 = Table((7, 96), 160, 40, (3, 6, 20, 3), (16, 32, 32, 128))
DPN_131 = Table((7, 128), 160, 40, (4, 8, 28, 3), (16, 32, 32, 128))
DPN_107 = Table((7, 128), 200, 50, (4, 8, 20, 3), (20, 64, 64, 128))


def dpn(x, num_classes: int, *, table: Table, depths=None):
    """Stages of dual path blocks.

    Args:
        x: Standardised images, float32 [B, S, S, C].
        num_classes: Number of classes K.
        table: Column of the paper's table.
        depths: Blocks in each stage (default: the table's).

    Returns:
        {"logits": float32 [B, K]}.
    """
    kernel_size, filters = table.stem
    x = _conv(x, filters, kernel_size, stride=2, name="stem_conv")  # 112 x 112 x 64
    x = pools.pool(_activate(x, name="stem"), 3, 2, padding=1, name="stem_pool")  # 56 x 56 x 64
    paths = None
    rows = zip(depths or table.depths, table.widths, table.increments, strict=True)
    for stage, (depth, width, increment) in enumerate(rows, start=1):
        # dpn92: 56 x 56 x 336, 28 x 28 x 704, 14 x 14 x 1552, 7 x 7 x 2688
        block = partial(
            _block,
            filters=table.bottleneck * 2 ** (stage - 1),
            width=width,
            increment=increment,
            groups=table.groups,
        )
        for index in range(1, depth + 1):
            name = f"stage{stage}_block{index}"
            stride = 2 if stage > 1 and index == 1 else 1
            if index == 1:
                paths = _project(x, width, increment, stride=stride, name=name)
            paths = block(x, paths, stride=stride, name=name)
            x = keras.layers.Concatenate(name=f"{name}_concat")(paths)
    return {"logits": ops.pooled_logits(_activate(x, name="final"), num_classes)}


def _project(x, width, increment, *, stride, name):
    """Starts a stage with a residual path of `width` channels and a dense one of two increments."""
    x = _activate(x, name=f"{name}_project")
    x = _conv(x, width + 2 * increment, 1, stride=stride, name=f"{name}_project_conv")
    return keras.ops.split(x, [width], axis=-1)


def _block(x, paths, *, filters, width, increment, groups, stride, name):
    """Returns both paths after one block; x is the concatenation of the paths before it."""
    residual, dense = paths
    y = _conv(_activate(x, name=name, number=1), filters, 1, name=f"{name}_conv1")
    y = _activate(y, name=name, number=2)
    y = _conv(y, filters, 3, stride=stride, groups=groups, name=f"{name}_conv2")
    y = _activate(y, name=name, number=3)
    added, appended = keras.ops.split(
        _conv(y, width + increment, 1, name=f"{name}_conv3"), [width], axis=-1
    )
    return (
        keras.layers.Add(name=f"{name}_add")([residual, added]),
        keras.layers.Concatenate(name=f"{name}_dense")([dense, appended]),
    )


_activate = partial(ops.norm_relu, epsilon=1e-3)
_conv = partial(ops.padded_conv, fan="fan_in")


def _row(table, error, note=""):
    return registry.Variant(
        partial(dpn, table=table),
        image_size=224,
        policy="inception",
        mean=(124.0, 117.0, 104.0),
        std=1 / 0.0167,
        paper="Chen et al. 2017",
        year=2017,
        error=f"{error} top-1/top-5, 1 crop{note}",
    )


VARIANTS = {
    "dpn68": _row(DPN_68, "23.57/6.93"),
    "dpn92": _row(DPN_92, "20.73/5.37"),
    "dpn98": _row(DPN_98, "20.15/5.15"),
    "dpn131": _row(DPN_131, "19.93/5.12"),
    "dpn107": _row(DPN_107, "19.75/4.94", ", pre-trained"),
}
