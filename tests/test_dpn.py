"""Dual path networks: maps, groups, and which path gets what."""

import keras
import numpy as np
import pytest

import models

MAPS = {
    "dpn92": {
        "stem_conv": (112, 112, 64),
        "stem_pool": (56, 56, 64),
        "stage1_block1_conv2": (56, 56, 96),
        "stage1_block3_concat": (56, 56, 256 + 5 * 16),
        "stage2_block4_concat": (28, 28, 704),
        "stage3_block20_concat": (14, 14, 1552),
        "stage4_block3_concat": (7, 7, 2688),
    },
    "dpn68": {
        "stem_conv": (112, 112, 10),
        "stage1_block1_dense": (56, 56, 3 * 16),
        "stage4_block3_concat": (7, 7, 832),
    },
}


@pytest.mark.parametrize("name", MAPS)
def test_feature_maps(name):
    model = models.build(name, 10)
    assert {layer: model.get_layer(layer).output.shape[1:] for layer in MAPS[name]} == MAPS[name]
    grouped = {each.groups for each in model.layers if each.name.endswith("block1_conv2")}
    assert grouped == {32}


def test_the_first_channels_are_added_and_the_last_appended():
    model = models.build("dpn68", 10, image_size=32, depths=(1, 1, 1, 1))
    names = ("project_conv", "conv3", "add", "dense", "concat")
    wanted = [model.get_layer(f"stage1_block1_{name}").output for name in names]
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    values = keras.Model(model.input, wanted)(images)
    projected, grown, added, dense, both = (np.asarray(each) for each in values)
    np.testing.assert_allclose(added, projected[..., :64] + grown[..., :64], rtol=1e-5)
    np.testing.assert_array_equal(dense[..., :32], projected[..., 64:])
    np.testing.assert_array_equal(dense[..., 32:], grown[..., 64:])
    np.testing.assert_array_equal(both, np.concatenate([added, dense], axis=-1))


def test_colours_are_the_authors():
    normalize = models.build("dpn68", 2, image_size=32, depths=(1, 1, 1, 1), std=(9, 9, 9)).layers[
        1
    ]
    assert normalize.mean.tolist() == [124, 117, 104]
    assert normalize.std == pytest.approx(1 / 0.0167)
