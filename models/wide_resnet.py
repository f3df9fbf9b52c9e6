"""Wide residual networks for CIFAR: fewer layers, `width` times as many channels.

Sergey Zagoruyko, Nikos Komodakis, "Wide residual networks", BMVC 2016, arXiv:1605.07146.
Transcribes table 1: WRN-d-k is a convolution of 16 channels and three groups of (d - 4) / 6
pre-activated basic blocks of 16 k, 32 k and 64 k channels; dropout lies between the two
convolutions of a block. The ImageNet networks are in models/resnet.py.

Departures: none.
"""

from functools import partial

from models import preresnet, registry


def wide_resnet(x, num_classes: int, *, depth: int = 28, width: float = 10, dropout: float = 0.0):
    """WRN-depth-width.

    Args:
        x: Standardised images, float32 [B, 32, 32, C].
        num_classes: Number of classes K.
        depth: Convolutions in all, 6 n + 4.
        width: Factor k of the channels.
        dropout: Fraction dropped between the convolutions of a block; the paper's 0.3.

    Returns:
        {"logits": float32 [B, K]}.

    Raises:
        ValueError: If depth is not 6 n + 4.
    """
    blocks, rest = divmod(depth - 4, 6)
    if rest or blocks < 1:
        raise ValueError(f"wrong depth, expected 6 n + 4 with n of 1 or more, received {depth}")
    return preresnet.preresnet(
        x,
        num_classes,
        stem=preresnet.cifar_stem,
        unit=partial(preresnet.basic, dropout=dropout),
        depths=(blocks,) * 3,
        filters=round(16 * width),  # wrn28_10: 32 x 32 x 160, 16 x 16 x 320, 8 x 8 x 640
        fan="fan_in",
    )


def _wrn(depth, width, error, note=""):
    graph = partial(wide_resnet, depth=depth, width=width)
    row = partial(registry.Variant, paper="Zagoruyko & Komodakis 2016", year=2016)
    return row(graph, image_size=32, policy="cifar_reflected", error=f"{error} CIFAR-10+{note}")


VARIANTS = {
    "wrn16_4": _wrn(16, 4, "5.02"),
    "wrn16_8": _wrn(16, 8, "4.27"),
    "wrn28_10": _wrn(28, 10, "4.00"),
    "wrn40_4": _wrn(40, 4, "4.53"),
    "wrn52_1": _wrn(52, 1, "6.43", " (recalled)"),
}
