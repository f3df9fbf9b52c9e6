"""ResNet and its kin: maps, strides, widths, plain networks, ResNeXt's groups."""

import math

import keras
import numpy as np
import pytest

import models

SHORT = {"depths": (1, 1, 1, 1)}
BOTTLENECK = {
    "stem_conv": (112, 112, 64),
    "stem_pool": (56, 56, 64),
    "stage1_block1_relu": (56, 56, 256),
    "stage2_block1_relu": (28, 28, 512),
    "stage3_block1_relu": (14, 14, 1024),
    "stage4_block1_relu": (7, 7, 2048),
}
MAPS = {
    "resnet18": {
        "stem_conv": (112, 112, 64),
        "stage1_block1_relu": (56, 56, 64),
        "stage2_block1_relu": (28, 28, 128),
        "stage3_block1_relu": (14, 14, 256),
        "stage4_block1_relu": (7, 7, 512),
    },
    "resnet50": BOTTLENECK
    | {"stage2_block1_conv1": (56, 56, 128), "stage2_block1_conv2": (28, 28, 128)},
    "resnet50_v1": BOTTLENECK
    | {"stage2_block1_conv1": (28, 28, 128), "stage2_block1_conv2": (28, 28, 128)},
    "wide_resnet50_2": BOTTLENECK
    | {"stage2_block1_conv1": (56, 56, 256), "stage2_block1_conv2": (28, 28, 256)},
    "resnext50_32x4d": BOTTLENECK
    | {"stage2_block1_conv1": (56, 56, 256), "stage4_block1_conv2": (7, 7, 1024)},
    "resnext101_64x4d": {"stage1_block1_conv2": (56, 56, 256)},
    "resnext29_8x64d": {
        "stem_relu": (32, 32, 64),
        "stage1_block3_conv2": (32, 32, 512),
        "stage1_block3_relu": (32, 32, 256),
        "stage2_block3_relu": (16, 16, 512),
        "stage3_block3_relu": (8, 8, 1024),
    },
    "cifar_plain20": {
        "stage1_block3_relu": (32, 32, 16),
        "stage2_block3_relu": (16, 16, 32),
        "stage3_block3_relu": (8, 8, 64),
    },
}


@pytest.mark.parametrize("name", MAPS)
def test_feature_maps(name):
    short = SHORT if models.image_size(name) == 224 else {}
    model = models.build(name, 10, **short)
    assert {layer: model.get_layer(layer).output.shape[1:] for layer in MAPS[name]} == MAPS[name]


def test_plain_networks_only_lack_the_shortcuts():
    plain, residual = (models.build(f"cifar_{kind}20", 10) for kind in ("plain", "resnet"))
    assert [w.path for w in plain.weights] == [w.path for w in residual.weights]
    missing = {layer.name for layer in residual.layers} - {layer.name for layer in plain.layers}
    blocks = [f"stage{stage}_block{block}" for stage in (1, 2, 3) for block in (1, 2, 3)]
    assert missing == {f"{block}_add" for block in blocks} | {
        "stage2_block1_shortcut",
        "stage3_block1_shortcut",
    }


def test_biases_and_epsilon_are_options():
    model = models.build("resnet50_v1", 10, image_size=32, **SHORT, use_bias=True, epsilon=1.001e-5)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            assert layer.use_bias, layer.name
        if isinstance(layer, keras.layers.BatchNormalization):
            assert layer.epsilon == 1.001e-5, layer.name


def test_groups_start_like_the_whole():
    model = models.build("resnext50_32x4d", 10, image_size=32, **SHORT)
    layer = model.get_layer("stage3_block1_conv2")
    assert (layer.groups, layer.kernel.shape) == (32, (3, 3, 16, 512))
    assert np.std(layer.kernel.numpy()) == pytest.approx(math.sqrt(2 / (3 * 3 * 512)), rel=0.02)


def test_shortcuts_without_projection_have_no_parameters():
    layer = models.resnet.SubsampleAndPad(6, 2, name="shortcut")
    x = np.arange(5 * 5 * 2, dtype="float32").reshape(1, 5, 5, 2)
    y = np.asarray(layer(x))
    assert y.shape == (1, 3, 3, 6) and not layer.weights
    np.testing.assert_array_equal(y[..., :2], x[:, ::2, ::2])
    assert not y[..., 2:].any()


def test_layers_of_equal_shape_start_differently():
    model = models.build("cifar_resnet20", 10)
    first, second = (model.get_layer(f"stage1_block1_conv{i}").kernel.numpy() for i in (1, 2))
    assert not np.array_equal(first, second)
    assert np.std(first) == pytest.approx(math.sqrt(2 / (3 * 3 * 16)), rel=0.1)
