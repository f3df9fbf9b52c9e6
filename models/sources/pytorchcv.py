"""pytorchcv's modules, by our layers. Source: the state dicts of pytorchcv 0.0.74.

Its networks are features in stages of units, and an output.
"""

from models.sources.rows import Rule, units
from models.tools.state_dicts import Table

_FC = ("fc", "output")
_UNIT = "features.stage#.unit#"

_RESNET = (
    *units(
        ("stem", "features.init_block.conv"),
        ("stage#_block#_shortcut", f"{_UNIT}.identity_conv"),
    ),
    ("stage#_block#_conv#", f"{_UNIT}.body.conv#.conv"),
    ("stage#_block#_norm#", f"{_UNIT}.body.conv#.bn"),
    _FC,
)
_CIFAR_RESNET = (*units(("stem", "features.init_block")), *_RESNET[2:])
_UNNORMALISED = (  # its wide ResNet-50 has biases in place of normalisation
    *units(
        ("stem", "features.init_block.conv"),
        ("stage#_block#_shortcut", f"{_UNIT}.identity_conv"),
        norm=".conv",
    ),
    ("stage#_block#_conv#", f"{_UNIT}.body.conv#.conv"),
    ("stage#_block#_norm#", f"{_UNIT}.body.conv#.conv"),
    _FC,
)
_PREACTIVATED = (
    ("stage#_unit#_norm#", f"{_UNIT}.body.conv#.bn"),
    ("stage#_unit#_conv#", f"{_UNIT}.body.conv#.conv"),
    ("stage#_unit#_shortcut_conv", f"{_UNIT}.identity_conv"),
    ("final_norm", "features.post_activ.bn"),
    _FC,
)
_PRERESNET = (*units(("stem", "features.init_block")), *_PREACTIVATED)
_CIFAR_PRERESNET = (("stem_conv", "features.init_block"), *_PREACTIVATED)


def _densenet(stem: Table, number: str = "#") -> Table:
    """Returns the table of a DenseNet; `number` is that of a layer's convolutions."""
    return (
        *stem,
        ("block#_layer#_norm#", f"{_UNIT}.conv{number}.bn"),
        ("block#_layer#_conv#", f"{_UNIT}.conv{number}.conv"),
        *units(("transition#", "features.stage@.trans@.conv")),
        ("final_norm", "features.post_activ.bn"),
        _FC,
    )


_VGG = (
    ("conv#_#", "features.stage#.unit#.conv"),
    ("norm#_#", "features.stage#.unit#.bn"),
    ("fc6", "output.fc1.fc"),
    ("fc7", "output.fc2.fc"),
    ("fc8", "output.fc3"),
)
_ALEXNET = (("conv#", "features.stage@.unit@.conv"), *_VGG[2:])
_NIN = (
    ("conv#", "features.stage#.unit1.conv"),
    ("mlp#_#", "features.stage#.unit#+1.conv"),
    ("classes", "output.final_conv.conv"),
)
_SQUEEZENET = (
    ("conv1", "features.init_block.conv"),
    ("fire#_squeeze", "features.stage@.unit@.squeeze.conv"),
    ("fire#_expand1", "features.stage@.unit@.expand1x1.conv"),
    ("fire#_expand3", "features.stage@.unit@.expand3x3.conv"),
    ("conv10", "output.final_conv"),
)
_MOBILENET = (
    ("stem", "features.init_block.conv"),
    ("stem_norm", "features.init_block.bn"),
    ("block#_depthwise", "features.stage@.unit@.dw_conv.conv"),
    ("block#_depthwise_norm", "features.stage@.unit@.dw_conv.bn"),
    ("block#_pointwise", "features.stage@.unit@.pw_conv.conv"),
    ("block#_pointwise_norm", "features.stage@.unit@.pw_conv.bn"),
    _FC,
)
_DPN = (
    *units(("stem", "features.init_block"), ("stage#_block#_project", f"{_UNIT}.conv_proj")),
    ("stage#_block#_norm#", f"{_UNIT}.conv#.bn"),
    ("stage#_block#_conv#", f"{_UNIT}.conv#.conv"),
    ("final_norm", "features.final_block.activ.bn"),
    ("fc", "output.classifier"),
)
_XCEPTION_BODY = "features.stage@.unit@.body.block@"
_XCEPTION_LAST = "features.final_block.conv#"
_XCEPTION = (
    *units(("block1_#", "features.init_block.conv#")),
    ("block14_#_conv", f"{_XCEPTION_LAST}.conv.dw_conv", f"{_XCEPTION_LAST}.conv.pw_conv"),
    ("block14_#_norm", f"{_XCEPTION_LAST}.bn"),
    *units(("block#_shortcut", "features.stage@.unit@.identity_conv")),
    ("block#_#_conv", f"{_XCEPTION_BODY}.conv.dw_conv", f"{_XCEPTION_BODY}.conv.pw_conv"),
    ("block#_#_norm", f"{_XCEPTION_BODY}.bn"),
    _FC,
)


def _branches(unit: str, branches: tuple[str, ...], *, steps: str = ".conv_list.conv") -> dict:
    """Returns the modules of an Inception module's branches, in their order, by ours.

    Args:
        unit: Path of the module.
        branches: Ends of our layers' names: "5x5_#" for a chain of convolutions, "1x1_1" for one,
            "pool_2" for the one after a pool.
        steps: Path of a convolution in a chain.
    """
    paths = {}
    for number, branch in enumerate(branches, start=1):
        path = f"{unit}.branches.branch{number}"
        paths[branch] = f"{path}{steps}#" if branch.endswith("#") else f"{path}.conv"
    return paths


def _module(ours: str, unit: str, *branches: str) -> tuple[tuple[str, str], ...]:
    return tuple((f"{ours}_{o}", path) for o, path in _branches(unit, branches).items())


def _spread(ours: str, branch: str) -> tuple[tuple[str, str], ...]:
    """Returns the parallel 1 x 3 and 3 x 1 convolutions that end a branch."""
    return tuple((f"{ours}_{o}_1", f"{branch}.conv{o}") for o in ("1x3", "3x1"))


_REDUCTION_17 = ("3x3_#", "double_3x3_#")
_REDUCTION_8 = ("3x3_#", "7x7_#")
_A = ("1x1_1", "3x3_#", "double_3x3_#", "pool_2")
_B = ("1x1_1", "7x7_#", "double_7x7_#", "pool_2")


def _inception_v3() -> Table:
    c = "features.stage3.unit#"
    return (
        *units(
            *_module("mixed_5~", "features.stage1.unit#-1", "1x1_1", "5x5_#", *_A[2:]),
            *_module("mixed_6a", "features.stage2.unit1", *_REDUCTION_17),
            *_module("mixed_6~", "features.stage2.unit#", *_B),
            *_module("mixed_7a", "features.stage3.unit1", *_REDUCTION_8),
            *_spread("mixed_7~_3x3_2", f"{c}.branches.branch2"),
            *_spread("mixed_7~_double_3x3_3", f"{c}.branches.branch3"),
            *_module("mixed_7~", c, *_A),
            ("stem_#", "features.init_block.conv@"),
        ),
        ("fc", "output.fc"),
    )


def _inception_v4() -> Table:
    stem, c = "features.init_block", "features.stage3.unit#+1"
    return (
        *units(
            ("stem_4_3x3_1", f"{stem}.block1.branches.branch2.conv"),
            ("stem_5_3x3_#", f"{stem}.block2.branches.branch1.conv_list.conv#"),
            ("stem_5_7x7_#", f"{stem}.block2.branches.branch2.conv_list.conv#"),
            ("stem_6_3x3_1", f"{stem}.block3.branches.branch1.conv"),
            ("stem_#", f"{stem}.conv#"),
            *_module("inception_a#", "features.stage1.unit#", *_A),
            *_module("reduction_a1", "features.stage2.unit1", *_REDUCTION_17),
            *_module("inception_b#", "features.stage2.unit#+1", *_B),
            *_module("reduction_b1", "features.stage3.unit1", *_REDUCTION_8),
            *_spread("inception_c#_3x3_2", f"{c}.branches.branch2"),
            *_spread("inception_c#_double_3x3_4", f"{c}.branches.branch3"),
            *_module("inception_c#", c, *_A),
        ),
        ("fc", "output.fc"),
    )


def _inception_resnet(last: str, *head: tuple[str, str]) -> Table:
    """Returns the table of an Inception-ResNet; `last` is the unit of its last block."""
    stages = ("features.stage1.unit#", "features.stage2.unit#+1", "features.stage3.unit#+1")
    stem = "features.init_block"
    return (
        *units(
            *_module("stem_8", f"{stem}.block", "1x1_1", "5x5_#", *_A[2:]),
            ("stem_#", f"{stem}.conv@"),
            *_module("stage1_after_1", "features.stage2.unit1", *_REDUCTION_17),
            *_module(
                "stage2_after_1",
                "features.stage3.unit1",
                *("3x3_#", "other_3x3_#", "double_3x3_#"),
            ),
            ("stage4_after_1", "features.final_conv"),
            *_module("stage1_block#", stages[0], *_A[:3]),
            *_module("stage2_block#", stages[1], *_B[:2]),
            *_module("stage3_block#", stages[2], *_A[:2]),
            *_module("stage4_block1", f"features.stage3.{last}", *_A[:2]),
        ),
        *((f"stage{i}_block#_up", f"{unit}.conv") for i, unit in enumerate(stages, start=1)),
        ("stage4_block1_up", f"features.stage3.{last}.conv"),
        *head,
    )


def _inception_v2() -> Table:
    """Returns the table of BN-Inception, whose chains are not in lists."""
    units_of = {"3~": "stage1.unit#", "4~": "stage2.unit#+1", "5~": "stage3.unit#+1"}
    rows = []
    for ours, unit in (("3c", "stage2.unit1"), ("4e", "stage3.unit1")):
        for number, branch in enumerate(("3x3_#", "double_#"), start=1):
            path = f"features.{unit}.branches.branch{number}.conv#"
            rows.append((f"inception_{ours}_{branch}", path))
    for ours, unit in units_of.items():
        ends = {"1x1_1": "1", "3x3_#": "2.conv#", "double_#": "3.conv#", "pool_2": "4.conv"}
        for branch, end in ends.items():
            rows.append((f"inception_{ours}_{branch}", f"features.{unit}.branches.branch{end}"))
    stem = (
        ("stem_1", "features.init_block.conv1"),
        ("stem_3", "features.init_block.conv2.conv1"),
        ("stem_4", "features.init_block.conv2.conv2"),
    )
    return (*units(*stem, *rows), _FC)


def _nasnet() -> Table:
    rows = [
        *units(("stem", "features.init_block")),
        ("stem_cell2_p_norm", "features.stem2_unit.path.bn"),
        ("stage1_cell1_p_norm", "features.stage1.unit1.path.bn"),
        ("stage#_cell1_p_norm", "features.stage#.unit2.path.bn"),
    ]
    cells = {
        "stem_cell#": "features.stem#_unit",
        "stage1_cell#": "features.stage1.unit#",
        "stage#_cell#": "features.stage#.unit#+1",
        "stage#_reduction": "features.stage#.unit1",
    }
    for ours, unit in cells.items():
        rows += units((f"{ours}_h", f"{unit}.conv1x1"), (f"{ours}_p", f"{unit}.conv1x1_prev"))
        rows.append((f"{ours}_p_even_conv", f"{unit}.path.path1.conv"))
        rows.append((f"{ours}_p_odd_conv", f"{unit}.path.path2.conv"))
        for side in ("left", "right"):
            conv, step = f"{ours}_~_{side}_#", f"{unit}.comb#-1_{side}.conv#"
            rows.append((f"{conv}_conv", f"{step}.conv.dw_conv", f"{step}.conv.pw_conv"))
            rows.append((f"{conv}_norm", f"{step}.bn"))
    return (*rows, ("fc", "output.fc"))


_RESNETS = "resnet18 resnet34 resnet50 resnet101 resnet152 resnet50_v1 resnet101_v1 resnet152_v1"
_VGGS = "vgg11 vgg13 vgg16 vgg19 vgg11_bn vgg13_bn vgg16_bn vgg19_bn"
_LRN = {"radius": 2, "bias": 2.0, "alpha": 2e-5}
_IMAGENET_STEM = units(("stem", "features.init_block"))
_CIFAR_STEM = (("stem_conv", "features.init_block"),)
_DENSE = _densenet(_CIFAR_STEM, number="")
_TORCH_MOBILENET = {"padding": "symmetric", "activation": "relu", "epsilon": 1e-5}
_CAFFE_V2 = {"projections": (("4c", 128), ("4d", 128)), "count_border": True, "epsilon": 1e-5}

RULES = {
    "alexnet_one_tower": Rule(_ALEXNET, options={"lrn": _LRN}),
    "alexnet_owt": Rule(_ALEXNET),
    "zfnet": Rule(_ALEXNET, options={"lrn": _LRN, "pool_first": False}),
    "nin_cifar dsn": Rule(_NIN, options={"pooling": ("max_padded", "average_padded")}),
    _VGGS: Rule(_VGG),
    "inception_v2": Rule(_inception_v2(), options=_CAFFE_V2),
    "inception_v3": Rule(_inception_v3(), epsilon=1e-3, options={"count_border": True}),
    "inception_v4": Rule(_inception_v4(), epsilon=1e-3),
    "inception_resnet_v1": Rule(
        _inception_resnet(
            "unit7",
            ("embedding", "output.fc1"),
            ("embedding_norm", "output.bn"),
            ("fc", "output.fc2"),
        ),
        epsilon=1e-3,
        options={"last_block": True, "embedding": 512},
    ),
    "inception_resnet_v2": Rule(_inception_resnet("unit11", ("fc", "output.fc")), epsilon=1e-3),
    "xception": Rule(_XCEPTION, options={"centred_pools": True, "epsilon": 1e-5}),
    "nasnet_mobile": Rule(_nasnet(), epsilon=1e-3, options={"count_border": False}),
    f"{_RESNETS} resnext50_32x4d resnext101_32x4d resnext101_64x4d": Rule(_RESNET),
    "wide_resnet50_2": Rule(_UNNORMALISED),
    "preresnet50 preresnet101 preresnet152 preresnet200": Rule(
        _PRERESNET, options={"activated": False}
    ),
    "cifar_resnet20 cifar_resnet56 cifar_resnet110": Rule(_CIFAR_RESNET, options={"shortcut": "B"}),
    "resnext29_16x64d": Rule(_CIFAR_RESNET),
    "cifar_preresnet110": Rule(_CIFAR_PRERESNET, options={"shortcut": "B"}),
    "cifar_preresnet164 cifar_preresnet1001": Rule(_CIFAR_PRERESNET, options={"strided": 2}),
    "wrn28_10": Rule(_CIFAR_PRERESNET),
    "densenet121 densenet161 densenet169 densenet201": Rule(_densenet(_IMAGENET_STEM)),
    "densenet_bc100_k12 densenet_bc190_k40 densenet_bc250_k24": Rule(_densenet(_CIFAR_STEM)),
    "densenet40_k12 densenet100_k12": Rule(
        _DENSE, options={"compression": 0.5, "stem_filters": 24}
    ),
    "densenet100_k24": Rule(_DENSE, options={"compression": 0.5, "stem_filters": 48}),
    "dpn68 dpn98 dpn131": Rule(_DPN, epsilon=1e-3),
    "mobilenet_100 mobilenet_075 mobilenet_050 mobilenet_025": Rule(
        _MOBILENET, options=_TORCH_MOBILENET
    ),
    "squeezenet1_0": Rule(_SQUEEZENET, options={"class_padding": 0}),
    "squeezenet1_1": Rule(_SQUEEZENET),
}
