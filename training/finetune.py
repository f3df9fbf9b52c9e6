"""Starts a training from another one's weights: what is taken over, frozen, or learns slowly."""

from collections.abc import Iterable, Sequence

import keras

from engine import checkpoints
from models.tools import graphs


def take_over(
    model: keras.Model, checkpoint: checkpoints.Checkpoint, class_names: Sequence[str]
) -> list[str]:
    """Gives a network the weights of a checkpoint of the same network.

    Args:
        model: Perhaps with other classes, or for images of another size.
        checkpoint: Its average is taken where it has one.
        class_names: What the network is to tell apart. If they are others than the checkpoint's,
            the classifiers stay as they are, whatever their shapes.

    Returns:
        The names of the layers that keep their own weights: they are new.

    Raises:
        ValueError: If nothing fits.
    """
    tensors = checkpoints.weights_in_use(checkpoint)
    others = list(class_names) != checkpoint.about.get("class_names")
    new = {layer.name for layer in graphs.classifiers(model)} if others else set()
    for layer in _with_weights(model):
        found = [tensors.get(weight.path) for weight in layer.weights]
        fits = all(
            tensor is not None and tensor.shape == tuple(weight.shape)
            for tensor, weight in zip(found, layer.weights, strict=True)
        )
        if fits and layer.name not in new:
            layer.set_weights(found)
        else:
            new.add(layer.name)
    if len(new) == len(_with_weights(model)):
        raise ValueError(f"nothing of checkpoint {checkpoint.path} fits the network {model.name}")
    return sorted(new)


def freeze(model: keras.Model, what: str, new: Iterable[str]) -> None:
    """Keeps layers as they are; batch normalisation among them works as in testing.

    Args:
        model: Its new layers always learn.
        what: "none", "all", or "stage:N" for everything up to the end of the N-th stage. Where a
            network's layers are not named after stages, one ends where the maps get smaller.
        new: Names of the layers that do not have weights from elsewhere.

    Raises:
        ValueError: If `what` is none of these.
    """
    for layer in _frozen(model, what):
        if layer.name not in new:
            layer.trainable = False


def _frozen(model: keras.Model, what: str) -> list[keras.Layer]:
    if what == "none":
        return []
    if what == "all":
        return list(model.layers)
    kind, _, number = what.partition(":")
    ends = graphs.stage_ends(model)
    if kind != "stage" or not number.isdecimal() or not 1 <= int(number) <= len(ends):
        raise ValueError(
            f"--freeze expects none, all or stage:N with N from 1 to {len(ends)}, received {what}"
        )
    return model.layers[: ends[int(number) - 1] + 1]


def factors(model: keras.Model, rate: float, new: Iterable[str]) -> dict[str, float]:
    """Factors of the learning rates: `rate` for all variables, by path, but those of new layers."""
    return {
        variable.path: rate
        for layer in _with_weights(model)
        for variable in layer.trainable_variables
        if layer.name not in new
    }


def _with_weights(model: keras.Model) -> list[keras.Layer]:
    return [layer for layer in model.layers if layer.weights]
