"""Warnings about a network that does not learn, with advice."""

import math

import keras
import numpy as np
import tensorflow as tf

MIN_STEPS = 200  # steps before the first warning
GUESSING = 0.95  # fraction of random guessing's loss that triggers a warning
DEAD = 0.5  # fraction of dead units in the first layer that triggers a warning
LARGEST_CLASS = 0.9  # share of a class above which predicting it for all images is plausible


class Doubts:
    """Checks a network on a sample of images; gives each warning once."""

    def __init__(self, model: keras.Model) -> None:
        """Takes a functional model from images to {"logits": [B, K]}."""
        outputs = {"logits": model.output["logits"]}
        first = next(filter(_is_relu, model.layers), None)
        if first is not None:
            outputs["units"] = first.output
        probe = keras.Model(model.inputs, outputs)
        self._probe = tf.function(lambda images: probe(images, training=False), autograph=False)
        self._said: set[str] = set()
        self._network, self._variables = model, model.trainable_variables
        self._gradients = tf.function(self._gradients_graph, autograph=False)

    def gradients(self, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Computes the gradients of the images' mean cross entropy, by path of the weight.

        Args:
            images: uint8 [B, S, S, 3].
            labels: int32 [B].
        """
        found = self._gradients(tf.cast(images, tf.float32), labels)
        return {v.path: g.numpy() for v, g in zip(self._variables, found, strict=True)}

    def _gradients_graph(self, images: tf.Tensor, labels: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            logits = self._network(images, training=False)["logits"]
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        values = [variable.value for variable in self._variables]
        return tape.gradient(loss, values, unconnected_gradients="zero")

    def raised(self, loss: float, images: np.ndarray, labels: np.ndarray) -> list[str]:
        """Returns the warnings that apply and have not been given before.

        Args:
            loss: Mean cross entropy of the epoch so far, in nats.
            images: Sample of training images, uint8 [B, S, S, 3].
            labels: int32 [B].
        """
        outputs = self._probe(tf.cast(images, tf.float32))
        found = {
            "guessing": _guessing(loss, outputs["logits"].shape[-1]),
            "dead": _dead(outputs["units"].numpy()) if "units" in outputs else "",
            "one class": _one_class(outputs["logits"].numpy().argmax(axis=-1), labels),
        }
        new = {kind: text for kind, text in found.items() if text and kind not in self._said}
        self._said |= new.keys()
        return list(new.values())


def _is_relu(layer: keras.Layer) -> bool:
    activation = getattr(layer, "activation", None)
    return isinstance(layer, keras.layers.ReLU) or activation is keras.activations.relu


def _guessing(loss: float, classes: int) -> str:
    chance = math.log(classes)
    if classes < 2 or loss < GUESSING * chance:
        return ""
    return (
        f"the loss, {loss:.3f}, is near ln({classes}) = {chance:.3f}, that of guessing: try "
        "another --learning_rate; --overfit_batch shows whether the network can learn at all"
    )


def _dead(units: np.ndarray) -> str:
    alive = (units > 0).reshape([-1, units.shape[-1]]).any(axis=0)
    if alive.mean() > 1 - DEAD:
        return ""
    return (
        f"{(~alive).sum()} of {len(alive)} units of the first layer are 0 for every image: "
        "try a smaller --learning_rate from the start"
    )


def _one_class(predicted: np.ndarray, labels: np.ndarray) -> str:
    share = np.bincount(labels).max() / len(labels)
    if len(set(predicted.tolist())) > 1 or share > LARGEST_CLASS:
        return ""
    return (
        f"all of {len(labels)} training images are taken for class {predicted[0]}: "
        "try a smaller --learning_rate, and look at the images with --show_step=0"
    )
