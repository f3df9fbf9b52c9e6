"""The Inception networks, Xception and NASNet: maps, modules, heads."""

import math

import keras
import numpy as np
import pytest
from outlines import outline

import models
from models import (
    inception_resnet,
    inception_tables,
    inception_v1,
    inception_v4,
    nasnet,
    ops,
    xception,
)

# Every kind of module once: what the full networks repeat has equal shapes.
SHORT_V4 = tuple((name, table, 1) for name, table, _ in inception_v4.FIGURE_9)
SHORT_V1, SHORT_V2 = (
    tuple((1, *stage[1:]) for stage in stages)
    for stages in (inception_resnet.STAGES_V1, inception_resnet.STAGES_V2)
)
SHORT = {
    "googlenet": {"aux_heads": True},
    "googlenet_bn": {"aux_heads": True},
    "inception_v2": {},
    "inception_v3": {"aux_heads": True},
    "inception_v4": {"modules": SHORT_V4},
    "inception_resnet_v1": {"stages": SHORT_V1},
    "inception_resnet_v2": {"stages": SHORT_V2},
    "xception": {"middle": xception.MIDDLE[:1]},
    "nasnet_mobile": {"cells": 1},
}

STEM_V3 = {
    "stem_1_relu": (149, 149, 32),
    "stem_2_relu": (147, 147, 32),
    "stem_3_relu": (147, 147, 64),
    "stem_4_max": (73, 73, 64),
    "stem_5_relu": (73, 73, 80),
    "stem_6_relu": (71, 71, 192),
}
GOOGLENET = {
    "conv1_relu": (112, 112, 64),
    "pool1": (56, 56, 64),
    "conv2_relu": (56, 56, 192),
    "pool2": (28, 28, 192),
    "inception_3a_concat": (28, 28, 256),
    "inception_3b_concat": (28, 28, 480),
    "pool_3b": (14, 14, 480),
    "inception_4a_concat": (14, 14, 512),
    "inception_4b_concat": (14, 14, 512),
    "inception_4c_concat": (14, 14, 512),
    "inception_4d_concat": (14, 14, 528),
    "inception_4e_concat": (14, 14, 832),
    "pool_4e": (7, 7, 832),
    "inception_5a_concat": (7, 7, 832),
    "inception_5b_concat": (7, 7, 1024),
    "aux1_pool": (4, 4, 512),
    "aux2_pool": (4, 4, 528),
}
MAPS = {
    "googlenet": GOOGLENET | {"norm1": (56, 56, 64), "norm2": (56, 56, 192)},
    "googlenet_bn": GOOGLENET | {"conv2_norm": (56, 56, 192)},
    "inception_v2": {
        "stem_1_relu": (112, 112, 64),
        "stem_2_max": (56, 56, 64),
        "stem_4_relu": (56, 56, 192),
        "stem_5_max": (28, 28, 192),
        "inception_3a_concat": (28, 28, 256),
        "inception_3b_concat": (28, 28, 320),
        "inception_3c_concat": (14, 14, 576),
        "inception_4a_concat": (14, 14, 576),
        "inception_4b_concat": (14, 14, 576),
        "inception_4c_concat": (14, 14, 576),
        "inception_4d_concat": (14, 14, 576),
        "inception_4e_concat": (7, 7, 1024),
        "inception_5a_concat": (7, 7, 1024),
        "inception_5b_concat": (7, 7, 1024),
    },
    "inception_v3": STEM_V3
    | {
        "stem_7_max": (35, 35, 192),
        "mixed_5b_concat": (35, 35, 256),
        "mixed_5c_concat": (35, 35, 288),
        "mixed_5d_concat": (35, 35, 288),
        **{f"mixed_6{letter}_concat": (17, 17, 768) for letter in "abcde"},
        "mixed_7a_concat": (8, 8, 1280),
        "mixed_7b_concat": (8, 8, 2048),
        "mixed_7c_concat": (8, 8, 2048),
        "aux1_pool": (5, 5, 768),
        "aux1_2_relu": (1, 1, 768),
    },
    "inception_v4": {
        "stem_1_relu": (149, 149, 32),
        "stem_2_relu": (147, 147, 32),
        "stem_3_relu": (147, 147, 64),
        "stem_4_concat": (73, 73, 160),
        "stem_5_concat": (71, 71, 192),
        "stem_6_concat": (35, 35, 384),
        "inception_a1_concat": (35, 35, 384),
        "reduction_a1_concat": (17, 17, 1024),
        "inception_b1_concat": (17, 17, 1024),
        "reduction_b1_concat": (8, 8, 1536),
        "inception_c1_concat": (8, 8, 1536),
    },
    "inception_resnet_v1": STEM_V3
    | {
        "stem_7_relu": (35, 35, 256),
        "stage1_block1_concat": (35, 35, 96),
        "stage1_block1_relu": (35, 35, 256),
        "stage1_after_1_concat": (17, 17, 896),
        "stage2_block1_relu": (17, 17, 896),
        "stage2_after_1_concat": (8, 8, 1792),
        "stage3_block1_relu": (8, 8, 1792),
    },
    "inception_resnet_v2": STEM_V3
    | {
        "stem_7_max": (35, 35, 192),
        "stem_8_concat": (35, 35, 320),
        "stage1_block1_relu": (35, 35, 320),
        "stage1_after_1_concat": (17, 17, 1088),
        "stage2_block1_relu": (17, 17, 1088),
        "stage2_after_1_concat": (8, 8, 2080),
        "stage3_block1_relu": (8, 8, 2080),
        "stage4_block1_add": (8, 8, 2080),
        "stage4_after_1_relu": (8, 8, 1536),
    },
    "xception": {
        "block1_1_relu": (149, 149, 32),
        "block1_2_relu": (147, 147, 64),
        "block2_add": (74, 74, 128),
        "block3_add": (37, 37, 256),
        "block4_add": (19, 19, 728),
        "block5_add": (19, 19, 728),
        "block6_add": (10, 10, 1024),
        "block7_1_relu": (10, 10, 1536),
        "block7_2_relu": (10, 10, 2048),
    },
    "nasnet_mobile": {
        "stem_norm": (111, 111, 32),
        "stem_cell1_concat": (56, 56, 44),
        "stem_cell2_concat": (28, 28, 88),
        "stage1_cell1_concat": (28, 28, 264),
        "stage2_reduction_concat": (14, 14, 352),
        "stage2_cell1_concat": (14, 14, 528),
        "stage3_cell1_concat": (7, 7, 1056),
    },
}


def run(graph, x):
    """What a function of a symbolic tensor makes of an array."""
    image = keras.Input(x.shape[1:])
    return np.asarray(keras.Model(image, graph(image))(x))


def plain(x, filters, kernel_size, stride=1, padding="same", *, name):
    """A convolution that adds up its window, in place of the networks' own."""
    zeros = inception_tables.border(kernel_size, padding)
    return ops.conv(
        x, filters, kernel_size, stride=stride, padding=zeros, kernel_initializer="ones", name=name
    )


@pytest.mark.parametrize("name", MAPS)
def test_feature_maps(name):
    model = outline(name, 10, **SHORT[name])
    expected = MAPS[name]
    assert {key: model.get_layer(key).output.shape[1:] for key in expected} == expected


def test_a_module_concatenates_its_branches_in_order():
    table = {"one": ((2, 1),), "split": ((1, 1), {"wide": ((1, (1, 3)),), "high": ((1, (3, 1)),)})}
    x = np.zeros((1, 3, 4, 1), "float32")
    x[0, 1, 1] = 1
    y = run(lambda x: inception_tables.module(x, table, conv=plain, name="m"), x)[0]
    assert y.shape == (3, 4, 4)
    np.testing.assert_array_equal(y[..., 0], x[0, ..., 0])
    np.testing.assert_array_equal(y[1, :, 2], [1, 1, 1, 0])
    np.testing.assert_array_equal(y[:, 1, 3], [1, 1, 1])
    assert y[..., 2].sum() == y[..., 3].sum() == 3


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ((1, 3, 2), [[10, 24], [51, 90]]),  # one zero on each side
        ((1, 3, 2, inception_tables.VALID), [[45]]),
        (("max", 3, 2), [[10, 11], [14, 15]]),  # the last windows are cut off
        (("max", 3, 2, inception_tables.VALID), [[10]]),
    ],
)
def test_strided_steps_sample_as_in_caffe(step, expected):
    x = np.arange(16, dtype="float32").reshape(1, 4, 4, 1)
    y = run(lambda x: inception_tables.chain(x, (step,), conv=plain, name="c"), x)
    np.testing.assert_array_equal(y[0, ..., 0], expected)


@pytest.mark.parametrize("length", range(1, 10))
def test_branches_of_a_reduction_fit_together(length):
    table = {"3x3": ((2, 3, 2),), "7x7": ((2, 7, 2),), "pool": (("max", 3, 2),)}
    x = np.ones((1, length, length, 1), "float32")
    y = run(lambda x: inception_tables.module(x, table, conv=plain, name="m"), x)
    assert y.shape == (1, (length + 1) // 2, (length + 1) // 2, 5)


def test_average_pools_count_the_pixels_of_the_image_only():
    ones = np.ones((1, 5, 5, 2), "float32")
    y = run(lambda x: inception_tables.chain(x, (("average", 3),), conv=plain, name="c"), ones)
    np.testing.assert_allclose(y, ones)


def test_googlenet_starts_as_in_caffe():
    model = models.build("googlenet", 10, image_size=64, aux_heads=True)
    for name, fan_in in (("conv1_conv", 147), ("inception_4a_3x3_2_conv", 864)):
        layer = model.get_layer(name)
        assert np.all(layer.bias.numpy() == np.float32(0.2))
        limit = math.sqrt(3 / fan_in)
        assert 0.98 * limit < abs(layer.kernel.numpy()).max() <= limit
    assert [layer.name for layer in model.layers if "norm" in layer.name] == [
        "normalize",
        "norm1",
        "norm2",
    ]
    norm = model.get_layer("norm1")
    assert (norm.radius, norm.bias, norm.alpha) == (2, 1.0, 2e-5)
    assert norm.input is model.get_layer("pool1").output
    rates = {name: model.get_layer(name).rate for name in ("drop", "aux1_drop", "aux2_drop")}
    assert rates == {"drop": 0.4, "aux1_drop": 0.7, "aux2_drop": 0.7}


def test_googlenet_norms():
    def kinds(norm):
        model = outline("googlenet", 10, image_size=32, norm=norm)
        return {type(layer).__name__ for layer in model.layers}

    batch, lrn = "BatchNorm", "LocalResponseNorm"
    assert {batch, lrn}.isdisjoint(kinds("none"))
    assert batch in kinds("batch") and lrn not in kinds("batch")
    with pytest.raises(ValueError, match="unknown norm, expected one of .*, received 'layer'"):
        kinds("layer")


def test_heads_only_add():
    without, with_heads = (
        outline("googlenet_bn", 10, image_size=64, aux_heads=heads) for heads in (False, True)
    )
    assert list(without.output) == ["logits"]
    assert sorted(with_heads.output) == ["aux1", "aux2", "logits"]
    added = {v.path for v in with_heads.weights} - {v.path for v in without.weights}
    assert added and all(path.startswith("aux") for path in added)
    assert len(with_heads.weights) == len(without.weights) + len(added)


def test_weights_of_the_heads():
    weights = {name: models.aux_weight(name) for name in MAPS}
    assert {name: weight for name, weight in weights.items() if weight} == {
        "googlenet": 0.3,
        "googlenet_bn": 0.3,
        "inception_v3": 0.4,
    }


def test_heads_hang_on_the_papers_modules():
    model = outline("googlenet", 10, image_size=64, aux_heads=True)
    for key, head in inception_v1.HEADS.items():
        source = model.get_layer(f"inception_{key}_concat").output
        assert model.get_layer(f"{head}_pool").input is source


@pytest.mark.parametrize("name", ["inception_v4", "inception_resnet_v2"])
def test_normalisation_can_do_without_gamma(name):
    model = outline(name, 10, image_size=75, scale=False, **SHORT[name])
    assert not any(v.path.endswith("gamma") for v in model.weights)
    assert all(layer.epsilon == 1e-3 for layer in model.layers if hasattr(layer, "epsilon"))


def test_pools_of_inception_v2():
    model = outline("inception_v2", 10, image_size=32)
    kinds = {
        key: "max" if f"inception_{key}_pool_1_max" in {y.name for y in model.layers} else "average"
        for key in ("3a", "3c", "4d", "4e", "5a", "5b")
    }
    assert [key for key, kind in kinds.items() if kind == "max"] == ["3c", "4e", "5b"]


def test_residuals_are_scaled_before_they_are_added():
    def block(x, factor):
        table = {"1x1": ((3, 1),)}
        return inception_resnet._block(x, table, factor, conv=plain, name="b")

    keras.utils.set_random_seed(1)
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 2)).astype("float32")
    image = keras.Input(x.shape[1:])
    scaled = keras.Model(image, block(image, 0.25))
    whole = keras.Model(image, block(image, None))
    whole.set_weights(scaled.get_weights())
    residual = np.asarray(whole(x)) - x
    assert (np.asarray(whole(x)) < 0).any() and np.ptp(residual) > 0.1
    np.testing.assert_allclose(scaled(x), np.maximum(x + 0.25 * residual, 0), rtol=1e-5, atol=1e-6)


def test_factors_of_the_stages():
    model = outline("inception_resnet_v2", 10, image_size=75, stages=SHORT_V2)
    factors = [model.get_layer(f"stage{i}_block1_scale").scale for i in (1, 2, 3)]
    names = {layer.name for layer in model.layers}
    assert factors == [0.17, 0.10, 0.20]
    assert not names & {"stage4_block1_scale", "stage4_block1_relu"}


def test_separable_convolutions_keep_the_variance():
    keras.utils.set_random_seed(1)
    x = np.random.default_rng(1).normal(size=(1, 32, 32, 64)).astype("float32")
    y = run(lambda x: ops.separable(x, 64, 3, name="s"), x)
    assert np.var(y[:, 1:-1, 1:-1]) == pytest.approx(2, rel=0.3)


def test_first_block_of_xception_is_not_rectified_twice():
    model = outline("xception", 10, image_size=71, **SHORT["xception"])
    rectified = [layer.name for layer in model.layers if layer.name.endswith("_relu")]
    assert "block2_1_relu" not in rectified and "block3_1_relu" in rectified
    assert model.get_layer("block2_1_conv").input is model.get_layer("block1_2_relu").output


def test_nasnet_halves_maps_without_losing_pixels():
    x = np.arange(16, dtype="float32").reshape(1, 4, 4, 1)
    image = keras.Input(x.shape[1:])
    model = keras.Model(image, nasnet._halve(image, 2, "p"))
    model.set_weights([np.ones_like(w) for w in model.get_weights()])
    y = np.asarray(model(x))[0]
    np.testing.assert_array_equal(y[..., 0], [[0, 2], [8, 10]])
    np.testing.assert_array_equal(y[..., 1], [[5, 7], [13, 15]])


@pytest.mark.parametrize(("length", "first"), [(4, -1), (5, 0)])
def test_strided_pools_of_nasnet_see_a_border_of_zeros(length, first):
    x = np.full((1, length, length, 1), -1, "float32")
    y = run(lambda x: nasnet._operation(x, "max", 3, 1, stride=2, name="m"), x)[0, ..., 0]
    assert y.shape == ((length + 1) // 2,) * 2
    assert y[0, 0] == first and y[-1, -1] == 0


def test_cells_of_nasnet_read_what_exists():
    for table in (nasnet.NORMAL, nasnet.REDUCTION):
        known = {"h", "p"}
        for block, pair in table.items():
            assert {source for _, _, source in pair} <= known
            known.add(block)
