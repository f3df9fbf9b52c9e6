import keras
import numpy as np
import pytest

from training.warnings import Doubts

LABELS = np.arange(8, dtype=np.int32) % 4
IMAGES = np.zeros((8, 4, 4, 3), np.uint8)
IMAGES[range(8), 0, LABELS] = 255  # a bright pixel for each class


def network(bias=0.0, activation="relu"):
    """Three filters, then the bright pixel decides."""
    images = keras.Input((4, 4, 3), name="images")
    constant = keras.initializers.Constant
    start = {"kernel_initializer": constant(0.01), "bias_initializer": constant(bias)}
    x = keras.layers.Conv2D(3, 1, name="conv", **start)(images)
    x = keras.layers.Activation(activation, name="activation")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    model = keras.Model(images, {"logits": keras.layers.Dense(4, name="fc")(x)})
    kernel = np.zeros((48, 4), np.float32)
    kernel[[0, 3, 6, 9], range(4)] = 1
    model.get_layer("fc").kernel.assign(kernel)
    return model


def raised(model, loss=0.5, labels=LABELS):
    return Doubts(model).raised(loss, IMAGES, labels)


def test_nothing_is_said_of_a_network_that_learns():
    assert raised(network()) == []


def test_a_loss_near_that_of_guessing():
    (line,) = raised(network(), loss=1.38)
    assert line.startswith("the loss, 1.380, is near ln(4) = 1.386, that of guessing")
    assert raised(network(), loss=1.2) == []


@pytest.mark.parametrize("activation, count", [("relu", 2), ("tanh", 1)])
def test_dead_units_and_a_constant_answer(activation, count):
    """With a bias of -100 no unit is ever positive, so only the last bias decides."""
    model = network(-100.0, activation)
    model.get_layer("fc").bias.assign([0.0, 0.0, 1e3, 0.0])
    lines = raised(model)
    assert len(lines) == count
    assert lines[-1].startswith("all of 8 training images are taken for class 2")
    if activation == "relu":
        assert lines[0].startswith("3 of 3 units of the first layer are 0 for every image")


def test_one_class_of_an_unbalanced_sample_is_nothing_strange():
    model = network()
    model.get_layer("fc").bias.assign([1e3, 0.0, 0.0, 0.0])
    assert len(raised(model)) == 1
    assert raised(model, labels=np.zeros(8, np.int32)) == []


def test_everything_is_said_once():
    doubts = Doubts(network())
    assert len(doubts.raised(1.38, IMAGES, LABELS)) == 1
    assert doubts.raised(1.38, IMAGES, LABELS) == []
