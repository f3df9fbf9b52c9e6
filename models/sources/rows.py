"""The table of published weights, and the rules by which they become our networks'.

`weights.csv` has a row per network, source and tag. What the rows of a kind of network have in
common (which of the library's modules are our layers) is a `Rule` of the library's file here.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from models import registry
from models.tools import state_dicts

_TABLE = Path(__file__).with_name("weights.csv")
_HALF = 3 * (127.5,)
_DPN = (124.0, 117.0, 104.0)
_CAFFE = (122.67891434, 116.66876762, 104.00698793)  # average of its mean image, RGB
_CIFAR_MEAN, _CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)

# Mean and standard deviation of RGB images in 0..255, by their names in the table.
SCALES = {
    "imagenet": (registry.IMAGENET_MEAN, registry.IMAGENET_STD),
    "half": (_HALF, _HALF),
    "dpn": (_DPN, 3 * (1 / 0.0167,)),
    "caffe": (_CAFFE, 3 * (1.0,)),
    "caffe_colour": ((123.0, 117.0, 104.0), 3 * (1.0,)),  # of GoogLeNet
    "cifar": tuple(tuple(255 * each for each in pixel) for pixel in (_CIFAR_MEAN, _CIFAR_STD)),
}


@dataclass(frozen=True)
class Rule:
    """How the weights of a kind of network at a source become ours.

    Attributes:
        table: Our layers and their modules, see `models.tools.state_dicts`. The last row is that of
            the classifier.
        epsilon: Epsilon of their batch normalisation.
        options: Options of our network that make it theirs.
        bgr: Whether their images are BGR.
    """

    table: state_dicts.Table
    epsilon: float = state_dicts.EPSILON
    options: Mapping = field(default_factory=dict)
    bgr: bool = False


@dataclass(frozen=True)
class Preprocessing:
    """What a source does to an image before its network sees it.

    Attributes:
        image_size: Side of the centre crop, pixels.
        short_side: Shorter side to which the image is resized before, pixels.
        interpolation: "bilinear" or "bicubic", with antialiasing.
    """

    image_size: int
    short_side: int
    interpolation: str


@dataclass(frozen=True)
class Row:
    """Weights that a source publishes for one of our networks.

    Attributes:
        network: Name of our network.
        source: Name of the source.
        tag: Their name at the source.
        file: Name of the file there; "" if the source's own library finds it.
        top1: Published top-1 accuracy in %; CIFAR networks: on CIFAR-10.
        said_in: Where it is published.
        preprocessing: What images go through.
        scale: Key of `SCALES`; "" for Keras, which has its own.
        licence: SPDX identifier as the source states it.
        megabytes: Size of the file in millions of bytes.
    """

    network: str
    source: str
    tag: str
    file: str
    top1: float
    said_in: str
    preprocessing: Preprocessing
    scale: str
    licence: str
    megabytes: float


def _read() -> tuple[Row, ...]:
    with _TABLE.open(newline="") as file:
        return tuple(_row(cells) for cells in csv.DictReader(file))


def _row(cells: Mapping[str, str]) -> Row:
    names = ("image_size", "short_side", "interpolation")
    size, side, interpolation = (cells[name] for name in names)
    return Row(
        **{name: cells[name] for name in ("network", "source", "tag", "file", "said_in")},
        top1=float(cells["top1"]),
        preprocessing=Preprocessing(int(size), int(side), interpolation),
        scale=cells["scale"],
        licence=cells["licence"],
        megabytes=float(cells["MB"]),
    )


ROWS = _read()


def of(network: str, source: str) -> list[Row]:
    """Returns a source's weights for a network, the default ones first."""
    return [row for row in ROWS if (row.network, row.source) == (network, source)]


def networks(source: str) -> list[str]:
    """Returns the names of the networks that a source has weights for, in alphabetical order."""
    return sorted({row.network for row in ROWS if row.source == source})


def units(
    *pairs: tuple[str, str], conv: str = ".conv", norm: str = ".bn"
) -> tuple[tuple[str, str], ...]:
    """Returns the rows of convolutions with batch normalisation.

    Args:
        *pairs: Beginnings of our layers' names, and of their modules'.
        conv: End of the name of their convolution.
        norm: End of the name of their normalisation.
    """
    rows = [
        ((f"{ours}_conv", f"{theirs}{conv}"), (f"{ours}_norm", f"{theirs}{norm}"))
        for ours, theirs in pairs
    ]
    return tuple(row for pair in rows for row in pair)
