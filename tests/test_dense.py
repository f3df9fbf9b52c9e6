"""Networks as convolutions over whole images."""

import keras
import numpy as np
import pytest

import models
from inference.whole_images import dense


@pytest.fixture(autouse=True)
def session():
    yield
    keras.utils.clear_session()


def images(*shape):
    return np.random.default_rng(0).uniform(0, 255, [*shape, 3]).astype("float32")


@pytest.mark.parametrize(
    "name, size",
    [
        ("lenet5", 32),
        ("alexnet", 67),
        ("vgg11", 32),
        ("googlenet", 64),
        ("cifar_resnet20", 32),
        ("mobilenet_025", 32),
        ("nin_cifar", 32),
    ],
)
def test_at_its_own_size_a_network_says_the_same(name, size):
    model = models.build(name, 5, image_size=size)
    seen = images(2, size, size)
    np.testing.assert_allclose(
        dense(model)(seen)["logits"], model(seen)["logits"], rtol=1e-4, atol=1e-4
    )


def test_on_larger_images_it_is_the_mean_over_all_places():
    """LeNet-5 pads nowhere: every place of the maps is a crop, 4 pixels further."""
    model = models.build("lenet5", 5)
    whole = images(1, 40, 36)
    crops = [whole[:, top : top + 32, left : left + 32] for top in (0, 4, 8) for left in (0, 4)]
    expected = np.mean([model(crop)["logits"] for crop in crops], axis=0)
    np.testing.assert_allclose(dense(model)(whole)["logits"], expected, rtol=1e-4, atol=1e-4)


def test_a_network_that_needs_its_own_size_is_refused():
    model = models.build("lenet5", 5, preprocessing="mean_image")
    with pytest.raises(ValueError, match="lenet5 cannot see whole images"):
        dense(model)
