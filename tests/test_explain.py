"""Grad-CAM: where the answer is known, and where the maps of every family are found."""

import cv2
import keras
import numpy as np
import pytest
import reduced
import tensorflow as tf

from inference import grad_cam
from models.tools import graphs
from report import overlay


def known():
    """Bright places speak for class 0, dark ones for class 1."""
    images = keras.Input((8, 8, 3), name="images")
    maps = keras.layers.Conv2D(2, 1, activation="relu", name="conv")(images)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(maps)
    logits = keras.layers.Dense(3, name="logits")(pooled)
    model = keras.Model(images, {"logits": logits})
    model.get_layer("conv").set_weights(
        [np.full((1, 1, 3, 2), (1 / 3, -1 / 3)), np.array([0, 255])]
    )
    model.get_layer("logits").set_weights([np.array([[1, -1, -1], [-1, 1, -1]]), np.zeros(3)])
    return model


def explained(model, images, labels):
    outputs = {"logits": model.output["logits"], "maps": graphs.last_maps(model)}
    network = keras.Model(model.input, outputs)
    return grad_cam.grad_cam(network, tf.constant(images), tf.constant(labels)).numpy()


def corner():
    image = np.zeros((8, 8, 3), np.float32)
    image[:2, 6:] = 255
    return image


def test_the_places_of_a_class_light_up():
    heat = explained(known(), [corner()] * 3, [0, 1, 2])
    bright = corner()[..., 0] / 255
    np.testing.assert_allclose(heat[0], bright, atol=1e-6)
    np.testing.assert_allclose(heat[1], 1 - bright, atol=1e-6)
    np.testing.assert_array_equal(heat[2], 0)  # nothing speaks for it


def test_it_is_equation_1_and_2_of_the_paper():
    """Against the derivative by finite differences of the network after its maps."""
    keras.utils.set_random_seed(0)
    images = keras.Input((6, 6, 3), name="images")
    maps = keras.layers.Conv2D(4, 3, name="conv")(images)
    x = keras.layers.Dense(5, activation="tanh", name="fc1")(keras.layers.Flatten()(maps))
    model = keras.Model(images, {"logits": keras.layers.Dense(2, name="fc2")(x)})
    image = np.random.default_rng(0).normal(size=(1, 6, 6, 3)).astype(np.float32)
    head = keras.Model(maps, model.output["logits"])
    values = keras.Model(images, maps)(image).numpy()
    gradient = np.zeros_like(values)
    for place in np.ndindex(values.shape):
        shift = np.zeros_like(values)
        shift[place] = 1e-2
        gradient[place] = (head(values + shift)[0, 1] - head(values - shift)[0, 1]) / 2e-2
    expected = np.maximum((gradient.mean((1, 2), keepdims=True) * values).sum(-1), 0)
    assert graphs.last_maps(model) is maps and expected.max() > 0
    (heat,) = explained(model, image, [1])
    np.testing.assert_allclose(heat, expected[0] / expected.max(), atol=2e-3)


NAMES = ("lenet5", "nin_cifar", "vgg11", "googlenet", "cifar_resnet20", "dpn68", "squeezenet1_1")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_goes_past_the_maps_of_a_network(name):
    model = reduced.build(name)
    maps = graphs.last_maps(model)
    assert len(maps.shape) == 4
    keras.Model(maps, model.output["logits"])  # or Keras says that something is not connected
    assert None not in graphs.classifier_input(model).shape[1:]


def test_whole_networks_have_maps_of_several_pixels():
    shapes = {name: graphs.last_maps(build).shape[1:] for name, build in whole().items()}
    assert shapes == {"resnet18": (7, 7, 512), "mobilenet_025": (7, 7, 256), "alexnet": (6, 6, 256)}


def whole():
    import models

    return {name: models.build(name, 10) for name in ("resnet18", "mobilenet_025", "alexnet")}


def test_a_picture_keeps_its_colours_where_nothing_counts():
    view = np.full((32, 32, 3), (10, 200, 90), np.uint8)
    heat = np.zeros((4, 4), np.float32)
    heat[0, 3] = 1
    picture = overlay.overlay(view, heat)
    assert picture.shape == (224, 224, 3)
    assert (picture[100:, :100] == view[0, 0]).all()
    red, green, blue = (picture[10, 213] - view[0, 0].astype(float)).tolist()
    assert red > 40 and green < -40 and blue < 0
    decoded = cv2.imdecode(np.frombuffer(overlay.png(picture), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decoded[..., ::-1], picture)


def test_pictures_have_names_of_their_own(tmp_path):
    names = ["a/x.jpg", "b/x.jpg", "../é?*\n'.png", "x" * 300, "..", ""]
    paths = [overlay.path_for(tmp_path, *each) for each in enumerate(names)]
    paths.append(overlay.path_for(tmp_path, 9, "film.mp4", 25))
    for path in paths:
        path.write_bytes(b"")
    assert len(set(tmp_path.iterdir())) == len(names) + 1
    assert (tmp_path / "00009-film-frame25.png").exists()
