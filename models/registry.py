"""What a family declares of its networks: a row for each, and the choices that families share."""

from collections.abc import Callable
from dataclasses import dataclass

from keras import ops

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

Pixel = float | tuple[float, ...]

# Options that several families have, with the same meaning in each.
ACTIVATIONS = {
    "relu": "relu",
    "tanh": "tanh",
    "abs_tanh": lambda x: ops.abs(ops.tanh(x)),
    "sigmoid": "sigmoid",
    "elu": "elu",
    "swish": "silu",
    "crelu": None,
}
NORMS = ("none", "lrn", "batch")
POOLINGS = ("max_overlapping", "max", "average_overlapping", "average")


@dataclass(frozen=True)
class Variant:
    """One network: a row of a family's `VARIANTS`.

    Attributes:
        graph: Function `(x, num_classes, **options) -> {"logits": ..., "aux1": ...}` of the
            normalised images x, float32 [B, S, S, C]. Its keyword-only arguments are the network's
            options; a row is usually a `functools.partial` of the family's one graph.
        image_size: S of the paper, pixels.
        policy: Name of the augmentation that the paper's recipe calls for.
        mean: What the paper subtracts, in 0..255; None: the mean of the data.
        std: What the paper divides by, in 0..255; None: the standard deviation of the data.
        paper: Short citation, e.g. "Krizhevsky et al. 2012".
        year: Of the paper's first appearance.
        error: Published error in % with its protocol, e.g. "40.7/18.2 top-1/top-5"; "" if none.
        aux_weight: Weight of every auxiliary head's loss in the paper; 0: it has none.
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


def require_one_of(what: str, given, known):
    """Refuses an option that is not in its table.

    Raises:
        ValueError: If `given` is not in `known`.
    """
    if given not in known:
        raise ValueError(f"unknown {what}, expected one of {', '.join(known)}, received {given!r}")
