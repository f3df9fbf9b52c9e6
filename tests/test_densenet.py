"""DenseNet: maps, order, stems, transitions, dropout."""

import keras
import numpy as np
import pytest

import models

MAPS = {
    "densenet121": {
        "stem_conv": (112, 112, 64),
        "stem_pool": (56, 56, 64),
        "block1_layer6_concat": (56, 56, 256),
        "transition1_pool": (28, 28, 128),
        "block2_layer12_concat": (28, 28, 512),
        "transition2_pool": (14, 14, 256),
        "block3_layer24_concat": (14, 14, 1024),
        "transition3_pool": (7, 7, 512),
        "block4_layer16_concat": (7, 7, 1024),
        "final_relu": (7, 7, 1024),
    },
    "densenet40_k12": {
        "stem_conv": (32, 32, 16),
        "block1_layer12_concat": (32, 32, 160),
        "transition1_pool": (16, 16, 160),
        "block2_layer12_concat": (16, 16, 304),
        "block3_layer12_concat": (8, 8, 448),
    },
    "densenet_bc100_k12": {
        "stem_conv": (32, 32, 24),
        "block1_layer16_conv1": (32, 32, 48),
        "block1_layer16_concat": (32, 32, 216),
        "transition1_pool": (16, 16, 108),
        "block2_layer16_concat": (16, 16, 300),
        "block3_layer16_concat": (8, 8, 342),
    },
}


@pytest.mark.parametrize("name", MAPS)
def test_feature_maps(name):
    model = models.build(name, 10)
    assert {layer: model.get_layer(layer).output.shape[1:] for layer in MAPS[name]} == MAPS[name]


def test_layers_append_to_what_they_saw():
    model = models.build("densenet40_k12", 10, depths=(1, 1, 1))
    stem, both = (model.get_layer(name).output for name in ("stem_conv", "block1_layer1_concat"))
    images = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype("float32")
    stem, both = (np.asarray(each) for each in keras.Model(model.input, [stem, both])(images))
    np.testing.assert_array_equal(both[..., :16], stem)


def test_dropout_follows_every_convolution_but_the_stem():
    model = models.build("densenet_bc100_k12", 10, depths=(1, 2), dropout=0.2)
    dropped = [each.name for each in model.layers if isinstance(each, keras.layers.Dropout)]
    grown = [(1, 1), (2, 1), (2, 2)]
    expected = [f"block{b}_layer{i}_dropout{number}" for b, i in grown for number in (1, 2)]
    assert sorted(dropped) == sorted([*expected, "transition1_dropout"])
    feeding = model.get_layer("transition1_pool").input._keras_history.operation.name
    assert feeding == "transition1_dropout"
