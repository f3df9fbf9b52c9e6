"""timm's modules, by our layers. Source: the state dicts of timm 1.0.31."""

from models.sources import torchvision
from models.sources.rows import Rule, units
from models.tools.state_dicts import Table

_VGG = (
    *torchvision.VGG_MAPS,
    ("fc6", "pre_logits.fc1"),
    ("fc7", "pre_logits.fc2"),
    ("fc8", "head.fc"),
)
_PRERESNET = (
    ("stem_conv", "stem.conv"),
    ("stem_norm", "stages.0.blocks.0.norm1"),
    ("stage#_unit#_norm#", "stages.#-1.blocks.#-1.norm#"),
    ("stage#_unit#_conv#", "stages.#-1.blocks.#-1.conv#"),
    ("stage#_unit#_shortcut_conv", "stages.#-1.blocks.#-1.downsample.conv"),
    ("final_norm", "norm"),
    ("fc", "head.fc"),
)
_DPN = (
    *units(
        ("stem", "features.conv1_1"),
        ("stage1_block#_project", "features.conv2_#.c1x1_w_s1"),
        ("stage#_block#_project", "features.conv#+1_#.c1x1_w_s2"),
    ),
    ("stage#_block#_norm1", "features.conv#+1_#.c1x1_a.bn"),
    ("stage#_block#_conv1", "features.conv#+1_#.c1x1_a.conv"),
    ("stage#_block#_norm2", "features.conv#+1_#.c3x3_b.bn"),
    ("stage#_block#_conv2", "features.conv#+1_#.c3x3_b.conv"),
    ("stage#_block#_norm3", "features.conv#+1_#.c1x1_c.bn"),
    ("stage#_block#_conv3", "features.conv#+1_#.c1x1_c.conv"),
    ("final_norm", "features.conv5_bn_ac.bn"),
    ("fc", "classifier"),
)
_MOBILENET = (
    ("stem", "conv_stem"),
    ("stem_norm", "bn1"),
    ("block#_depthwise", "blocks.@.@.conv_dw"),
    ("block#_depthwise_norm", "blocks.@.@.bn1"),
    ("block#_pointwise", "blocks.@.@.conv_pw"),
    ("block#_pointwise_norm", "blocks.@.@.bn2"),
    ("fc", "classifier"),
)
_XCEPTION = (
    ("block1_#_conv", "conv#"),
    ("block1_#_norm", "bn#"),
    ("block14_1_conv", "conv3.conv1", "conv3.pointwise"),
    ("block14_1_norm", "bn3"),
    ("block14_2_conv", "conv4.conv1", "conv4.pointwise"),
    ("block14_2_norm", "bn4"),
    ("block#_shortcut_conv", "block#-1.skip"),
    ("block#_shortcut_norm", "block#-1.skipbn"),
    ("block#_#_conv", "block@.rep.@.conv1", "block@.rep.@.pointwise"),
    ("block#_#_norm", "block@.rep.@"),
    ("fc", "fc"),
)


def _inception_v4() -> Table:
    return (
        *units(
            ("stem_4_3x3_1", "features.3.conv"),
            ("stem_5_3x3_#", "features.4.branch0.#-1"),
            ("stem_5_7x7_#", "features.4.branch1.#-1"),
            ("stem_6_3x3_1", "features.5.conv"),
            ("stem_#", "features.#-1"),
            ("inception_a#_1x1_1", "features.#+5.branch0"),
            ("inception_a#_3x3_#", "features.#+5.branch1.#-1"),
            ("inception_a#_double_3x3_#", "features.#+5.branch2.#-1"),
            ("inception_a#_pool_2", "features.#+5.branch3.1"),
            ("reduction_a1_3x3_1", "features.10.branch0"),
            ("reduction_a1_double_3x3_#", "features.10.branch1.#-1"),
            ("inception_b#_1x1_1", "features.#+10.branch0"),
            ("inception_b#_7x7_#", "features.#+10.branch1.#-1"),
            ("inception_b#_double_7x7_#", "features.#+10.branch2.#-1"),
            ("inception_b#_pool_2", "features.#+10.branch3.1"),
            ("reduction_b1_3x3_#", "features.18.branch0.#-1"),
            ("reduction_b1_7x7_#", "features.18.branch1.#-1"),
            ("inception_c#_1x1_1", "features.#+18.branch0"),
            ("inception_c#_3x3_1", "features.#+18.branch1_0"),
            ("inception_c#_3x3_2_1x3_1", "features.#+18.branch1_1a"),
            ("inception_c#_3x3_2_3x1_1", "features.#+18.branch1_1b"),
            ("inception_c#_double_3x3_4_1x3_1", "features.#+18.branch2_3a"),
            ("inception_c#_double_3x3_4_3x1_1", "features.#+18.branch2_3b"),
            ("inception_c#_double_3x3_#", "features.#+18.branch2_#-1"),
            ("inception_c#_pool_2", "features.#+18.branch3.1"),
        ),
        ("fc", "last_linear"),
    )


def _inception_resnet_v2() -> Table:
    stem = ("1a", "2a", "2b", None, "3b", "4a")  # a pool between
    inside = (("1x1_1", "branch0"), ("7x7_#", "branch1.#-1"), ("3x3_#", "branch1.#-1"))
    inside_a = (*inside[:1], ("3x3_#", "branch1.#-1"), ("double_3x3_#", "branch2.#-1"))
    return (
        *units(
            *((f"stem_{i}", f"conv2d_{name}") for i, name in enumerate(stem, start=1) if name),
            ("stem_8_1x1_1", "mixed_5b.branch0"),
            ("stem_8_5x5_#", "mixed_5b.branch1.#-1"),
            ("stem_8_double_3x3_#", "mixed_5b.branch2.#-1"),
            ("stem_8_pool_2", "mixed_5b.branch3.1"),
            ("stage1_after_1_3x3_1", "mixed_6a.branch0"),
            ("stage1_after_1_double_3x3_#", "mixed_6a.branch1.#-1"),
            ("stage2_after_1_3x3_#", "mixed_7a.branch0.#-1"),
            ("stage2_after_1_other_3x3_#", "mixed_7a.branch1.#-1"),
            ("stage2_after_1_double_3x3_#", "mixed_7a.branch2.#-1"),
            ("stage4_after_1", "conv2d_7b"),
            *((f"stage1_block#_{ours}", f"repeat.#-1.{theirs}") for ours, theirs in inside_a),
            *((f"stage4_block1_{ours}", f"block8.{theirs}") for ours, theirs in inside),
            *((f"stage#_block#_{ours}", f"repeat_#-1.#-1.{theirs}") for ours, theirs in inside),
        ),
        ("stage1_block#_up", "repeat.#-1.conv2d"),
        ("stage4_block1_up", "block8.conv2d"),
        ("stage#_block#_up", "repeat_#-1.#-1.conv2d"),
        ("fc", "classif"),
    )


_TORCH_MOBILENET = {"padding": "symmetric", "epsilon": 1e-5}
_POOLED_STEM = {"activated": True, "pool_first": True}

RULES = {
    f"{torchvision.RESNETS} resnext50_32x4d resnext101_32x4d resnext101_64x4d": Rule(
        torchvision.RESNET
    ),
    torchvision.DENSENETS: Rule(torchvision.DENSENET),
    torchvision.VGGS: Rule(_VGG),
    "preresnet50 preresnet101": Rule(_PRERESNET, options=_POOLED_STEM),
    "dpn68 dpn92 dpn98 dpn107 dpn131": Rule(_DPN, epsilon=1e-3),
    "mobilenet_100": Rule(_MOBILENET, options=_TORCH_MOBILENET),
    "inception_v3": Rule(torchvision.inception_v3(), epsilon=1e-3, options={"count_border": True}),
    "inception_v4": Rule(_inception_v4(), epsilon=1e-3),
    "inception_resnet_v2": Rule(_inception_resnet_v2(), epsilon=1e-3),
    "xception": Rule(_XCEPTION, options={"centred_pools": True, "epsilon": 1e-5}),
}
