"""Rows that describe networks, and the option values that families share."""

from collections.abc import Callable
from dataclasses import dataclass

from keras import ops

UNPUBLISHED = "none published"  # of an error
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

Pixel = float | tuple[float, ...]  # one number, or one per channel

# Options that several families have mean the same in each of them.
ACTIVATIONS = {
    "relu": "relu",
    "relu6": "relu6",
    "tanh": "tanh",
    "abs_tanh": lambda x: ops.abs(ops.tanh(x)),
    "sigmoid": "sigmoid",
    "elu": "elu",
    "gelu": "gelu",
    "swish": "silu",
    "crelu": None,
}
NORMS = ("none", "lrn", "batch")
POOLINGS = (
    *("max_overlapping", "max", "average_overlapping", "average"),
    *("max_padded", "average_padded"),
)


@dataclass(frozen=True)
class Variant:
    """One network: a row of a family's `VARIANTS`.

    Attributes:
        graph: Function `(x, num_classes, **options) -> {"logits": ..., "aux1": ...}` of the
            normalised images x, float32 [B, S, S, C]. Its keyword-only arguments are the network's
            options. Usually a `functools.partial` of the family's one graph.
        image_size: Height and width S of the paper's images, pixels.
        policy: Name of the augmentation policy that matches the paper's recipe.
        mean: Mean that the paper subtracts, in 0..255 (default: the mean of the data).
        std: Number that the paper divides by, in 0..255 (default: the data's standard deviation).
        paper: Short citation, e.g. "Krizhevsky et al. 2012".
        year: Year of the paper's first appearance.
        error: Published error in % with its protocol, e.g. "40.7/18.2 top-1/top-5", and in brackets
            whose it is if not the paper's, or that it was recalled; `UNPUBLISHED` if none.
        aux_weight: Weight of each auxiliary head's loss in the paper; 0 without such heads.
    """

    graph: Callable
    image_size: int
    policy: str
    mean: Pixel | None = None
    std: Pixel | None = None
    paper: str = ""
    year: int = 0
    error: str = ""
    aux_weight: float = 0.0


def require_one_of(name: str, given, known):
    """Raises an error that lists the known values if an option has another value.

    Raises:
        ValueError: If `given` is not in `known`.
    """
    if given not in known:
        raise ValueError(f"unknown {name}, expected one of {', '.join(known)}, received {given!r}")
