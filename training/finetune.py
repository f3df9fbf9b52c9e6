"""Fine-tuning: loads pretrained weights, freezes layers and slows their learning down."""

from collections.abc import Collection, Iterable, Sequence

import keras

from data.shards.datasets import Dataset
from engine import checkpoints, optimizers
from models.tools import graphs, published
from training import characters, parts
from training.recipe import Recipe

DEFAULTS = {"epochs": 30, "batch_size": 32, "schedule": "cosine", "old_rate": 0.1}
RATE = 0.3  # of the optimizer's rate: higher ones can silence the class maps of a SqueezeNet
HEAD = 10  # the new layers learn alone in the first of so many parts of the training


def has_other_classes(recipe: Recipe, dataset: Dataset) -> bool:
    """Whether the classes of a new training are not those of the weights of `--init_from`.

    Raises:
        ValueError: If the weights are damaged or of another network.
        OSError: If their download fails.
    """
    if parts.is_ours(recipe.init_from):
        return parts.origin(recipe).about.get("class_names") != list(dataset.class_names)
    return published.find(recipe.model, recipe.init_from).num_classes != dataset.num_classes


def defaults(recipe: Recipe, dataset: Dataset, given: Collection[str]) -> dict[str, object]:
    """Returns the defaults with which pretrained layers learn other classes.

    They also replace those of `recipes/MODEL.flags`, which are for training from scratch.

    Args:
        recipe: Settings that decide the trained weights.
        dataset: Training and validation images.
        given: Names of the flags that were set, which are left out.
    """
    found = {
        **DEFAULTS,
        "batch_size": min(DEFAULTS["batch_size"], dataset.num_examples("train")),
        "learning_rate": RATE * optimizers.OPTIMIZERS[recipe.optimizer].learning_rate,
        "augment": characters.default_augment(recipe, dataset, tuned=True)[0],
        "head_epochs": (recipe.epochs if "epochs" in given else DEFAULTS["epochs"]) / HEAD,
    }
    if recipe.freeze == "all":  # nothing old learns
        del found["old_rate"], found["head_epochs"]
    if "micro_batch" in given:  # chosen for a part of the usual batch
        del found["batch_size"]
    return {name: value for name, value in found.items() if name not in given}


def take_over(
    model: keras.Model, checkpoint: checkpoints.Checkpoint, class_names: Sequence[str]
) -> list[str]:
    """Loads the weights of a checkpoint of the same network.

    Args:
        model: Network, possibly with other classes or another image size than the checkpoint's.
        checkpoint: Checkpoint to load, with its moving average if it has one.
        class_names: Classes of the new training. If they differ from the checkpoint's, the
            classifier layers keep their initial weights, even if the shapes match.

    Returns:
        The names of the new layers, which keep their initial weights.

    Raises:
        ValueError: If no layer matches.
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
    """Freezes layers; frozen batch normalisation runs in inference mode.

    Args:
        model: Network to freeze in place.
        what: "none", "all", or "stage:N" for all layers up to the end of the N-th stage. If the
            layers are not named after stages, a stage ends where the feature maps get smaller.
        new: Names of the layers without pretrained weights, which are never frozen.

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
    """Returns the multiplier `rate` for each variable of the pretrained layers, by path."""
    return {
        variable.path: rate
        for layer in _with_weights(model)
        for variable in layer.trainable_variables
        if layer.name not in new
    }


def _with_weights(model: keras.Model) -> list[keras.Layer]:
    return [layer for layer in model.layers if layer.weights]
