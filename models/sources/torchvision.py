"""torchvision's modules, by our layers. Source: the state dicts of torchvision 0.28."""

from models.sources.rows import Rule, units
from models.tools.state_dicts import Table

RESNET = (
    ("stem_conv", "conv1"),
    ("stem_norm", "bn1"),
    ("stage#_block#_conv#", "layer#.#-1.conv#"),
    ("stage#_block#_norm#", "layer#.#-1.bn#"),
    ("stage#_block#_shortcut_conv", "layer#.#-1.downsample.0"),
    ("stage#_block#_shortcut_norm", "layer#.#-1.downsample.1"),
    ("fc", "fc"),
)
DENSENET = (
    ("stem_conv", "features.conv0"),
    ("stem_norm", "features.norm0"),
    ("block#_layer#_norm#", "features.denseblock#.denselayer#.norm#"),
    ("block#_layer#_conv#", "features.denseblock#.denselayer#.conv#"),
    ("transition#_norm", "features.transition#.norm"),
    ("transition#_conv", "features.transition#.conv"),
    ("final_norm", "features.norm5"),
    ("fc", "classifier"),
)
_SQUEEZENET = (
    ("conv1", "features.0"),
    ("fire#_squeeze", "features.@.squeeze"),
    ("fire#_expand1", "features.@.expand1x1"),
    ("fire#_expand3", "features.@.expand3x3"),
    ("conv10", "classifier.1"),
)
_ALEXNET = (
    ("conv#", "features.@"),
    ("fc6", "classifier.1"),
    ("fc7", "classifier.4"),
    ("fc8", "classifier.6"),
)
VGG_MAPS = (("conv#_#", "features.@"), ("norm#_#", "features.@"))
_VGG = (*VGG_MAPS, ("fc6", "classifier.0"), ("fc7", "classifier.3"), ("fc8", "classifier.6"))


def inception_v3() -> Table:
    """Returns the table of Inception v3."""
    stem = ("1a_3x3", "2a_3x3", "2b_3x3", None, "3b_1x1", "4a_3x3")  # a pool between
    return (
        *units(
            *((f"stem_{i}", f"Conv2d_{name}") for i, name in enumerate(stem, start=1) if name),
            ("mixed_#~_1x1_1", "Mixed_#~.branch1x1"),
            ("mixed_#~_pool_2", "Mixed_#~.branch_pool"),
            ("mixed_#~_5x5_#", "Mixed_#~.branch5x5_#"),
            ("mixed_#~_double_7x7_#", "Mixed_#~.branch7x7dbl_#"),
            ("mixed_6a_3x3_1", "Mixed_6a.branch3x3"),
            ("mixed_7a_7x7_#", "Mixed_7a.branch7x7x3_#"),
            ("mixed_#~_7x7_#", "Mixed_#~.branch7x7_#"),
            ("mixed_#~_3x3_2_1x3_1", "Mixed_#~.branch3x3_2a"),
            ("mixed_#~_3x3_2_3x1_1", "Mixed_#~.branch3x3_2b"),
            ("mixed_#~_3x3_#", "Mixed_#~.branch3x3_#"),
            ("mixed_#~_double_3x3_3_1x3_1", "Mixed_#~.branch3x3dbl_3a"),
            ("mixed_#~_double_3x3_3_3x1_1", "Mixed_#~.branch3x3dbl_3b"),
            ("mixed_#~_double_3x3_#", "Mixed_#~.branch3x3dbl_#"),
        ),
        ("fc", "fc"),
    )


def _googlenet() -> Table:
    branches = {
        "1x1_1": "branch1",
        "3x3_1": "branch2.0",
        "3x3_2": "branch2.1",
        "5x5_1": "branch3.0",
        "5x5_2": "branch3.1",
        "pool_2": "branch4.1",
    }
    return (
        *units(
            ("conv1", "conv1"),
            ("conv2_reduce", "conv2"),
            ("conv2", "conv3"),
            *((f"inception_#~_{o}", f"inception#~.{t}") for o, t in branches.items()),
        ),
        ("fc", "fc"),
    )


_GOOGLENET = {"largest": 3, "last_window": 2}

RESNETS = "resnet18 resnet34 resnet50 resnet101 resnet152 wide_resnet50_2 wide_resnet101_2"
DENSENETS = "densenet121 densenet161 densenet169 densenet201"
VGGS = "vgg11 vgg13 vgg16 vgg19 vgg11_bn vgg13_bn vgg16_bn vgg19_bn"

RULES = {
    f"{RESNETS} resnext50_32x4d resnext101_64x4d": Rule(RESNET),
    DENSENETS: Rule(DENSENET),
    VGGS: Rule(_VGG),
    "alexnet_owt": Rule(_ALEXNET),
    "squeezenet1_0": Rule(_SQUEEZENET, options={"class_padding": 0}),
    "squeezenet1_1": Rule(_SQUEEZENET),
    "inception_v3": Rule(inception_v3(), epsilon=1e-3, options={"count_border": True}),
    "googlenet_bn": Rule(_googlenet(), epsilon=1e-3, options=_GOOGLENET),
}
