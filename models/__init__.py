"""Image classifiers by name: `build("resnet50", num_classes=1000)`."""

import contextlib
import inspect
import os
import sys
from collections.abc import Iterator

from runtime import console

with console.quiet_import():  # `python -m models` starts here
    import keras

    from models import (
        airbench,
        alexnet,
        all_cnn,
        cifarnet,
        densenet,
        dpn,
        dsn,
        fractalnet,
        highway,
        inception_resnet,
        inception_v1,
        inception_v2,
        inception_v3,
        inception_v4,
        layers,
        lenet,
        mobilenet,
        nasnet,
        nin,
        overfeat,
        preresnet,
        registry,
        resnet,
        resnext,
        squeezenet,
        stochastic_depth,
        study2017,
        vgg,
        wide_resnet,
        xception,
        zfnet,
    )

FAMILIES = (
    lenet,
    alexnet,
    zfnet,
    overfeat,
    nin,
    vgg,
    inception_v1,
    inception_v2,
    inception_v3,
    inception_v4,
    inception_resnet,
    xception,
    nasnet,
    resnet,
    resnext,
    wide_resnet,
    preresnet,
    stochastic_depth,
    densenet,
    fractalnet,
    dpn,
    cifarnet,
    all_cnn,
    dsn,
    highway,
    squeezenet,
    mobilenet,
    study2017,
    airbench,
)

PREPROCESSINGS = ("paper", "mean", "mean_image", "standardised")
VARIANTS = {name: row for family in FAMILIES for name, row in family.VARIANTS.items()}


def names() -> list[str]:
    """Returns the names of all networks in alphabetical order."""
    return sorted(VARIANTS)


def policy(name: str) -> str:
    """Returns the name of the augmentation policy that matches the paper of network `name`.

    Raises:
        ValueError: If `name` is unknown.
    """
    return _variant(name).policy


def image_size(name: str) -> int:
    """Returns the height and width in pixels of the images in the paper of network `name`.

    Raises:
        ValueError: If `name` is unknown.
    """
    return _variant(name).image_size


def aux_weight(name: str) -> float:
    """Returns the weight of each auxiliary head's loss in network `name`'s paper; 0 without heads.

    Raises:
        ValueError: If `name` is unknown.
    """
    return _variant(name).aux_weight


def owners(option: str) -> str:
    """Returns the families whose networks have an option: "lenet, nin" or "all but dpn".

    Args:
        option: Keyword argument of graphs. If only some networks of a family have it, they are
            named instead of the family.
    """
    having, lacking = [], []
    for family in FAMILIES:
        has = {name: option in _options(name) for name in family.VARIANTS}
        if len(set(has.values())) == 1:
            has = {family.__name__.rpartition(".")[2]: all(has.values())}
        having += [name for name, has_it in has.items() if has_it]
        lacking += [name for name, has_it in has.items() if not has_it]
    few = len(having) <= len(lacking)
    return ", ".join(having) if few else f"all but {', '.join(lacking)}"


def build(
    name: str,
    num_classes: int,
    *,
    image_size: int | None = None,
    channels: int = 3,
    aux_heads: bool = False,
    mean=None,
    std=None,
    preprocessing: str = "paper",
    **options,
) -> keras.Model:
    """Builds a freshly initialised classifier.

    Args:
        name: One of `names()`.
        num_classes: Number of classes K.
        image_size: Height and width S in pixels (default: the paper's).
        channels: Number of channels C of the images.
        aux_heads: Whether to add the paper's auxiliary heads, if it has any.
        mean: Mean of the training images per channel, in 0..255 (default: ImageNet's).
        std: Standard deviation per channel, likewise. Where the paper fixes mean or std, its value
            is used instead.
        preprocessing: One of `PREPROCESSINGS`: "paper" is the paper's, "mean" subtracts the mean
            colour, "mean_image" subtracts an image that the caller sets in the layer "normalize",
            "standardised" subtracts the mean colour and divides by `std`.
        **options: Keyword arguments of the network's graph, e.g. `dropout=0.2`.

    Returns:
        Functional model from float32 images [B, S, S, C] in 0..255 to a dict of float32 logits
        [B, K]: "logits", with heads also "aux1", "aux2". Normalisation is its first layer.

    Raises:
        ValueError: If the name or an option is unknown, a number is not positive, `mean` or `std`
            do not fit the channels, or the images are too small for the network.
    """
    variant = _variant(name)
    size = variant.image_size if image_size is None else image_size
    for quantity, number in (
        ("num_classes", num_classes),
        ("image_size", size),
        ("channels", channels),
    ):
        if number < 1:
            raise ValueError(f"{quantity} is not positive, expected 1 or more, received {number}")
    registry.require_one_of("preprocessing", preprocessing, PREPROCESSINGS)
    images = keras.Input((size, size, channels), name="images")
    x = _preprocessed(images, variant, preprocessing, mean, std)
    outputs = variant.graph(x, num_classes, **_checked(name, options, aux_heads))
    with deep_recursion():
        return keras.Model(images, outputs, name=name)


def pretrained(
    name: str, source: str, *, file: str | os.PathLike | None = None, num_classes: int | None = None
) -> keras.Model:
    """Builds a classifier with the weights of another library and its normalisation of images.

    Args:
        name: Name of the network.
        source: "keras", "timm", "torchvision", "pytorchcv" or "caffe" for the source's default
            weights of the network, or with a tag, such as "timm:resnet50.a2_in1k".
        file: Weights file as the source saves it (default: it is downloaded).
        num_classes: Number of classes; another than the source's gives a new head (default: the
            source's).

    Returns:
        Functional model as of `build`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the source has no weights for the network, or the file is damaged, unsafe
            or of another network.
        OSError: If a download fails.
        RuntimeError: If Keras' download fails.
    """
    from models.tools import published

    _variant(name)  # rejects an unknown network
    weights = published.find(name, source, file)
    size = weights.row.preprocessing.image_size
    classes = num_classes or weights.num_classes
    model = build(name, classes, image_size=size, **weights.options)
    weights.load(model)
    return model


@contextlib.contextmanager
def deep_recursion() -> Iterator[None]:
    """Raises Python's limit of 1000 nested calls: Keras walks graphs by a call per layer."""
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(max(usual, 20_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(usual)


def _preprocessed(images, variant, preprocessing, mean, std):
    """Applies the first layer, which normalises images [B, S, S, C] in 0..255."""
    if preprocessing == "mean_image":
        return layers.SubtractMeanImage(name="normalize")(images)
    fixed = {
        "paper": (variant.mean, variant.std),
        "mean": (None, 1.0),
        "standardised": (None, None),
    }
    channels, (own_mean, own_std) = images.shape[-1], fixed[preprocessing]
    return layers.Normalize(
        _pixel("mean", own_mean, mean, registry.IMAGENET_MEAN, channels),
        _pixel("std", own_std, std, registry.IMAGENET_STD, channels),
        name="normalize",
    )(images)


def _variant(name):
    if name not in VARIANTS:
        raise ValueError(f"unknown model, expected one of {', '.join(names())}, received {name!r}")
    return VARIANTS[name]


def _options(name):
    """Returns the names of the options of network `name`."""
    parameters = inspect.signature(_variant(name).graph).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def _checked(name, options, aux_heads):
    """Returns the options of network `name`; raises ValueError if one is unknown."""
    known = _options(name)
    if "aux_heads" in known:
        options = options | {"aux_heads": aux_heads}
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"unknown option of {name}, expected {' or '.join(known) or 'none'}, "
            f"received {', '.join(unknown)}"
        )
    return options


def _pixel(key, fixed, given, default, channels):
    """Returns the paper's mean or std, else the caller's, else ImageNet's (grey: its average)."""
    if fixed is not None:
        return fixed
    if given is None:
        return default if channels == 3 else sum(default) / 3
    given = tuple(float(value) for value in given)
    if len(given) != channels or (key == "std" and min(given) <= 0):
        positive = " above 0" if key == "std" else ""
        raise ValueError(f"wrong {key}, expected {channels} numbers{positive}, received {given}")
    return given
