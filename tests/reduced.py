"""Networks that a test can run: every kind of layer of the whole ones, fewer of them."""

from outlines import NETWORKS

import models
from models import inception_v4, xception

# Of each family the network with the fewest multiply-adds.
CHEAPEST = [
    min(family.VARIANTS, key=lambda name: float(NETWORKS[name]["madds_millions"]))
    for family in models.FAMILIES
]

# By family: the side of the images in pixels, where 32, or 16 for CIFAR's networks, are too few.
SIZES = {
    "lenet": 32,
    "alexnet": 67,
    "zfnet": 67,
    "overfeat": 71,
    "nin": 67,
    "inception_v1": 64,
    "inception_v3": 75,
    "inception_v4": 75,
    "inception_resnet": 75,
    "squeezenet": 64,
    "dsn": 8,
}
OPTIONS = {
    "inception_v4": {"modules": [(name, table, 1) for name, table, _ in inception_v4.FIGURE_9]},
    "xception": {"middle": xception.MIDDLE[:1]},
    "nasnet": {"cells": 1},
    "wide_resnet": {"depth": 10},
    "dpn": {"depths": (2, 1, 1, 1)},
    "fractalnet": {"filters": (16, 32)},
}


def build(name, num_classes=10, **options):
    """Builds network `name`, with its auxiliary heads, for small images and with few blocks."""
    return models.build(name, num_classes, aux_heads=True, **_few(name) | options)


def distinct():
    """The networks, less those that only have more blocks than another one."""
    names = {}
    for name in models.names():
        graph = models.VARIANTS[name].graph
        keywords = getattr(graph, "keywords", {}) | _few(name)
        names.setdefault(f"{getattr(graph, 'func', graph)} {sorted(keywords.items())}", name)
    return list(names.values())


def _few(name):
    family = next(each for each in models.FAMILIES if name in each.VARIANTS)
    family = family.__name__.removeprefix("models.")
    paper = models.image_size(name)
    size = min(SIZES.get(family, 32 if paper > 32 else 16), paper)
    return {"image_size": size, **_stages(name), **OPTIONS.get(family, {})}


def _stages(name):
    """One block in each stage of the network's table, at most two in the first."""
    table = getattr(models.VARIANTS[name].graph, "keywords", {})
    if "depths" in table:
        first, *others = table["depths"]
        return {"depths": [min(first, 2)] + [1] * len(others)}
    if "stages" in table:
        return {"stages": [(1, *row) for _, *row in table["stages"]]}
    return {}
