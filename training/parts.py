"""From a recipe to the parts of a training: network, augmentation, objective, learning rates."""

import dataclasses
import functools
import math
from pathlib import Path

import keras
import numpy as np

import models
from data import pipeline
from data.pipeline import augment, variations
from data.shards.datasets import Dataset
from engine import checkpoints, losses, mixing, optimizers, runs, schedules
from engine.trainer import micro_batches
from models.tools import keras_weights
from training import characters
from training.recipe import Recipe

BATCH_SIZE = 128  # where there are as many images
GROWN = 0.75  # of the epochs: then images of --first_image_size have grown to their full size
_SIZES = 8  # at most, on the way there
VARIED = ("activation", "norm", "pooling", "dropout", "width", "preprocessing")  # of the networks


def network(recipe: Recipe, dataset: Dataset) -> dict:
    """The arguments of `models.build`, and what a checkpoint needs to rebuild the network."""
    return {
        "name": recipe.model,
        "num_classes": dataset.num_classes,
        "image_size": _full_side(recipe),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        **network_options(recipe),
    }


def _full_side(recipe: Recipe) -> int:
    return recipe.image_size or models.image_size(recipe.model)


def network_options(recipe: Recipe) -> dict:
    """The network's own options that were given, and those that weights from elsewhere need.

    Raises:
        ValueError: If there are no such weights for the network.
        FileNotFoundError: If they do not exist.
    """
    given = {name: getattr(recipe, name) for name in VARIED if getattr(recipe, name) is not None}
    if is_ours(recipe.init_from):
        before = origin(recipe).about["network"]
        if before["name"] != recipe.model:
            raise ValueError(
                f"--init_from={recipe.init_from} is {before['name']}, expected {recipe.model}"
            )
        kept = (*VARIED, "mean", "std")
        return {name: before[name] for name in kept if name in before} | given
    return given | (keras_weights.options(recipe.model) if recipe.init_from else {})


def is_ours(source: str | None) -> bool:
    """Whether `--init_from` names a run or a checkpoint of ours: not Keras' weights."""
    return bool(source) and (Path(source).suffix == ".safetensors" or Path(source).is_dir())


@functools.lru_cache(maxsize=1)
def _opened(source: str) -> checkpoints.Checkpoint:
    checkpoint = runs.open_checkpoint(source, "best")[1]
    checkpoints.rebuild(checkpoint, models.build)  # it may be a stranger's: does it fit together?
    keras.utils.clear_session()
    return checkpoint


def origin(recipe: Recipe) -> checkpoints.Checkpoint:
    """The checkpoint that `--init_from` names.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged, or not of a network.
    """
    return _opened(recipe.init_from)


def policy(recipe: Recipe) -> augment.Policy:
    """How training images are varied: the policy's way, and what flags add.

    Raises:
        ValueError: If a flag is out of range, or does not go with the policy.
    """
    found = augment.POLICIES[recipe.augment]
    if recipe.scale:
        if found.window is not augment.random_window:
            raise ValueError(
                f"--scale takes the place of alexnet's cut: expected --augment=alexnet, "
                f"received {recipe.augment}"
            )
        window = augment.scaled_window(*_scale(recipe), _full_side(recipe))
        found = dataclasses.replace(found, window=window)
    vary = _variations(recipe)
    return dataclasses.replace(found, vary=vary) if vary else found


def _scale(recipe: Recipe) -> tuple[float, float]:
    low, high = _numbers(recipe, "scale", 2)
    size = _full_side(recipe)
    if not size <= low <= high:
        raise ValueError(
            f"--scale expects two sides in pixels, from {size} on, received "
            f"{','.join(recipe.scale)}"
        )
    return low, high


def _variations(recipe: Recipe) -> variations.Variations:
    count, magnitude = _numbers(recipe, "randaugment", 2) if recipe.randaugment else (0, 0)
    if count != int(count) or count < 0 or not 0 <= magnitude <= variations.LEVELS:
        raise ValueError(
            f"--randaugment expects a number of operations and 0 to {variations.LEVELS}, such as "
            f"2,9, received {','.join(recipe.randaugment)}"
        )
    names = {field.name for field in dataclasses.fields(variations.Variations)} - {"randaugment"}
    given = {name: getattr(recipe, name) for name in names}
    return variations.Variations(**given, randaugment=(int(count), magnitude))


def _numbers(recipe: Recipe, name: str, count: int) -> list[float]:
    texts = getattr(recipe, name)
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f"--{name} expects {count} numbers, received {','.join(texts)}")
    return numbers


def side(recipe: Recipe, epoch: int) -> int:
    """Side in pixels of an epoch's training images, which `--first_image_size` lets grow.

    M. Tan and Q. Le, arXiv:2104.00298, section 4, without their rising regularisation.

    Args:
        recipe: What is trained.
        epoch: From 0.
    """
    full = _full_side(recipe)
    first, progress = recipe.first_image_size, epoch / (GROWN * recipe.epochs)
    if not first or progress >= 1:
        return full
    unit = max(1, full // _SIZES)
    return first + unit * int((full - first) * progress / unit)


def sides(recipe: Recipe) -> set[int]:
    """All sides that training images have before they are of full size."""
    found = {side(recipe, epoch) for epoch in range(recipe.epochs)}
    return found - {_full_side(recipe)}


def mix(recipe: Recipe) -> mixing.Mixing | None:
    """How images are mixed with each other; None: not, as where one batch is to be learnt."""
    found = mixing.Mixing(recipe.mixup, recipe.cutmix)
    return found if any(found) and not recipe.overfit_batch else None


def objective(recipe: Recipe, dataset: Dataset) -> losses.Objective:
    """What the training makes small."""
    weights = ()
    if recipe.class_weights == "balanced":
        counts = np.maximum(pipeline.class_counts(dataset, "train"), 1)
        weights = tuple((counts.sum() / (len(counts) * counts)).tolist())
    decoupled = optimizers.OPTIMIZERS[recipe.optimizer].decoupled
    return losses.Objective(
        l2=0.0 if decoupled else recipe.weight_decay,
        l1=recipe.l1,
        smoothing=recipe.label_smoothing,
        aux_weight=models.aux_weight(recipe.model),
        class_weights=weights,
    )


def learning_rate(recipe: Recipe) -> float:
    """The base rate of the schedule."""
    return recipe.learning_rate * batch_scale(recipe)


def batch_scale(recipe: Recipe) -> float:
    """Factor of the rate where `--base_batch` says for which batch it is meant.

    P. Goyal et al., arXiv:1706.02677, section 2.1: k times the batch, k times the rate.
    """
    return recipe.batch_size / recipe.base_batch if recipe.base_batch else 1.0


def schedule(recipe: Recipe, steps_per_epoch: int) -> schedules.Schedule:
    """The learning rate of every step."""
    return schedules.Schedule(
        recipe.schedule,
        learning_rate(recipe),
        recipe.epochs * steps_per_epoch,
        warmup_steps=round(recipe.warmup_epochs * steps_per_epoch),
        milestones=milestones(recipe),
        decay=recipe.decay,
        decay_steps=recipe.decay_epochs * steps_per_epoch,
        power=recipe.power,
        plateau=schedules.Plateau(recipe.patience),
    )


def milestones(recipe: Recipe) -> tuple[float, ...]:
    """Where `--schedule=step` decays, as numbers.

    Raises:
        ValueError: If they are not fractions.
    """
    try:
        fractions = tuple(float(text) for text in recipe.milestones)
    except ValueError:
        fractions = (math.nan,)
    if not all(0 < fraction < 1 for fraction in fractions):
        raise ValueError(
            "--milestones expects fractions of --epochs such as 0.5,0.75, "
            f"received {','.join(recipe.milestones)}"
        )
    return fractions


def micro_batch(recipe: Recipe) -> int | None:
    """Images that are computed at a time; None for the whole batch, or if it is yet to be found.

    Raises:
        ValueError: If it is neither a number above 0 nor "auto".
    """
    given = recipe.micro_batch
    if given in (None, "auto"):
        return None
    if not str(given).isdecimal() or int(given) < 1:
        raise ValueError(f"--micro_batch expects a number of images or auto, received {given}")
    return int(given)


def batch_size(recipe: Recipe, images: int) -> int:
    """Images of an update: as many as the flag says, else 128, or all if there are fewer.

    Args:
        recipe: What is trained.
        images: Those of the training.

    Raises:
        ValueError: If the flag says more than there are.
    """
    size = recipe.batch_size or min(BATCH_SIZE, images)
    if size > images:
        raise ValueError(f"--batch_size={size} is more than the {images} training images")
    return size


def resolved(recipe: Recipe, dataset: Dataset) -> Recipe:
    """Fills in what follows from the data and the optimizer where no flag is given.

    Raises:
        ValueError: If the data has not the images that the recipe needs.
    """
    if recipe.early_stopping and not dataset.num_examples("validation"):
        raise ValueError("--early_stopping expects validation images, the data has none")
    rate, augmentation = recipe.learning_rate, recipe.augment
    if rate is None:
        rate = optimizers.OPTIMIZERS[recipe.optimizer].learning_rate
    if augmentation is None:
        augmentation, _ = characters.default_augment(recipe, dataset)
    size = batch_size(recipe, dataset.num_examples("train"))
    return dataclasses.replace(recipe, learning_rate=rate, augment=augmentation, batch_size=size)


def check_batch(recipe: Recipe, images: int, replicas: int) -> None:
    """Finds out whether replicas, or parts, can share the batches of so many training images.

    Raises:
        ValueError: If they do not come out even.
    """
    size = batch_size(recipe, images)
    micro_batches(size, micro_batch(recipe), replicas, pairs=bool(mix(recipe)))


def check(recipe: Recipe, replicas: int) -> None:
    """Finds values that are wrong whatever the data are.

    Raises:
        ValueError: If a flag's value is out of range.
        FileNotFoundError: If the file or folder of `--init_from` does not exist.
    """
    if recipe.seed >= 2**32:
        raise ValueError(f"--seed expects a number below {2**32}, received {recipe.seed}")
    milestones(recipe)
    _variations(recipe)
    if recipe.scale:
        _scale(recipe)
    if recipe.augment:
        policy(recipe)
    full = _full_side(recipe)
    if (recipe.first_image_size or 0) > full:
        raise ValueError(
            f"--first_image_size expects at most the {full} pixels of the last images, received "
            f"{recipe.first_image_size}"
        )
    size = micro_batch(recipe)
    if batch := recipe.batch_size or min(size or 0, BATCH_SIZE):  # the smallest that may be
        micro_batches(batch, size, replicas, pairs=bool(mix(recipe)))
    _check_origin(recipe)
    network_options(recipe)


def _check_origin(recipe: Recipe) -> None:
    source = recipe.init_from
    if source not in (None, keras_weights.DOWNLOAD) and not Path(source).exists():
        raise FileNotFoundError(f"--init_from expects keras, a run or a file, received {source}")
    if source and recipe.preprocessing:
        raise ValueError(
            f"--preprocessing={recipe.preprocessing} does not go with --init_from, expected that "
            "with which the weights were trained"
        )
    for name, neutral in (("freeze", "none"), ("old_rate", 1.0)):
        if not source and getattr(recipe, name) != neutral:
            raise ValueError(
                f"--{name}={getattr(recipe, name)} is about weights from elsewhere: add --init_from"
            )
