"""Pre-activated residual networks: maps, shared pre-activations, and the wide ones' options."""

import math

import keras
import numpy as np
import pytest

import models

UNIT = {"depths": (1, 1, 1)}
IMAGENET_UNIT = {"depths": (1, 1, 1, 1)}
MAPS = {
    "preresnet50": {
        "stem_conv": (112, 112, 64),
        "stem_pool": (56, 56, 64),
        "stage1_unit1_add": (56, 56, 256),
        "stage2_unit1_conv1": (56, 56, 128),
        "stage2_unit1_add": (28, 28, 512),
        "stage3_unit1_add": (14, 14, 1024),
        "stage4_unit1_add": (7, 7, 2048),
    },
    "cifar_preresnet110": {
        "stage1_unit1_add": (32, 32, 16),
        "stage2_unit1_add": (16, 16, 32),
        "stage3_unit1_add": (8, 8, 64),
    },
    "cifar_preresnet164": {
        "stage1_unit1_add": (32, 32, 64),
        "stage2_unit1_conv1": (16, 16, 32),
        "stage2_unit1_add": (16, 16, 128),
        "stage3_unit1_add": (8, 8, 256),
    },
    "wrn28_10": {
        "stem_conv": (32, 32, 16),
        "stage1_unit1_add": (32, 32, 160),
        "stage2_unit1_add": (16, 16, 320),
        "stage3_unit1_add": (8, 8, 640),
    },
}


def short(name, **options):
    """The network with one unit in each stage."""
    if name.startswith("wrn"):
        return models.build(name, 10, depth=10, **options)
    depths = IMAGENET_UNIT if name.startswith("preresnet") else UNIT
    return models.build(name, 10, **depths, **options)


def source(model, name):
    """Name of the layer that feeds layer `name`."""
    return model.get_layer(name).input._keras_history.operation.name


@pytest.mark.parametrize("name", MAPS)
def test_feature_maps(name):
    model = short(name)
    assert {layer: model.get_layer(layer).output.shape[1:] for layer in MAPS[name]} == MAPS[name]


@pytest.mark.parametrize("name", MAPS)
def test_shortcut_and_residual_share_the_pre_activation(name):
    model = short(name)
    kind = "shortcut" if name == "cifar_preresnet110" else "shortcut_conv"
    assert source(model, f"stage2_unit1_{kind}") == "stage2_unit1_relu1"
    assert source(model, "stage2_unit1_norm1") == "stage1_unit1_add"
    assert source(model, "final_norm").startswith("stage")
    normalised = {source(model, layer.name) for layer in model.layers if "norm" in layer.name}
    assert not any("shortcut" in layer for layer in normalised)


def test_the_stem_is_the_first_units_pre_activation():
    model = short("preresnet50", image_size=32)
    assert source(model, "stage1_unit1_conv1") == "stem_pool"
    assert source(model, "stage1_unit1_shortcut_conv") == "stem_pool"
    with pytest.raises(ValueError, match="No such layer"):
        model.get_layer("stage1_unit1_norm1")


def test_shortcuts_keep_the_raw_sum():
    model = models.build("cifar_preresnet164", 10, depths=(2, 1, 1))
    residual, short = model.get_layer("stage1_unit2_add").input
    assert residual._keras_history.operation.name == "stage1_unit2_conv3"
    assert short._keras_history.operation.name == "stage1_unit1_add"


def test_wide_networks_take_depth_width_and_dropout():
    model = short("wrn16_8", width=1.5, dropout=0.3)
    assert model.get_layer("stage3_unit1_add").output.shape[1:] == (8, 8, 96)
    assert source(model, "stage1_unit1_dropout") == "stage1_unit1_relu2"
    assert source(model, "stage1_unit1_conv2") == "stage1_unit1_dropout"
    with pytest.raises(ValueError, match="wrong depth, expected 6 n .* received 27"):
        models.build("wrn16_8", 10, depth=27)


def test_wide_networks_start_by_their_incoming_connections():
    kernel = short("wrn16_8").get_layer("stage2_unit1_conv1").kernel.numpy()
    assert np.std(kernel) == pytest.approx(math.sqrt(2 / (3 * 3 * 128)), rel=0.02)


def test_the_arithmetic_of_width_one():
    model = models.build("wrn52_1", 10)
    units = 8
    kernels = sum(9 * c * c * (2 * units - 1) for c in (16, 32, 64)) + 9 * 3 * 16
    kernels += 9 * (16 * 16 + 16 * 32 + 32 * 64) + (16 * 32 + 32 * 64)
    normalised = sum(c * (2 * units - 1) for c in (16, 32, 64)) + (16 + 16 + 32) + 64
    expected = kernels + 2 * normalised + 64 * 10 + 10
    assert sum(math.prod(w.shape) for w in model.trainable_weights) == expected == 758_362
    projections = [layer.name for layer in model.layers if layer.name.endswith("shortcut_conv")]
    assert projections == ["stage2_unit1_shortcut_conv", "stage3_unit1_shortcut_conv"]
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in model.layers)
