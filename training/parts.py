"""Translates a recipe into the parts of a training: network, augmentation, loss, schedule."""

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
from engine.gradients import micro_batches
from models.tools import published
from training import characters
from training.recipe import Recipe

BATCH_SIZE = 128  # default, if there are as many images
GROWN = 0.75  # fraction of the epochs in which images grow from --first_image_size to full size
_SIZES = 8  # the images grow in steps of 1 / _SIZES of the full side
# Network options that are flags.
VARIED = ("activation", "norm", "pooling", "dropout", "width", "shortcut", "preprocessing")


def network(recipe: Recipe, dataset: Dataset) -> dict:
    """Returns the arguments of `models.build`, which checkpoints store to rebuild the network."""
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
    """Returns the network options set by flags and those required by the pretrained weights.

    Raises:
        ValueError: If the weights of `--init_from` are not of this network, or a flag changes an
            option that they need.
        FileNotFoundError: If `--init_from` does not exist.
    """
    given = {name: getattr(recipe, name) for name in VARIED if getattr(recipe, name) is not None}
    if is_ours(recipe.init_from):
        before = origin(recipe).about["network"]
        if before["name"] != recipe.model:
            raise ValueError(
                f"--init_from={recipe.init_from} is {before['name']}, expected {recipe.model}"
            )
        own = ("name", "num_classes", "image_size", "channels")
        return {name: value for name, value in before.items() if name not in own} | given
    if not recipe.init_from:
        return given
    weights = published.find(recipe.model, recipe.init_from)
    if weights.file and not Path(weights.file).is_file():
        raise FileNotFoundError(f"no weights file, received --init_from={recipe.init_from}")
    theirs = weights.options
    for name in given.keys() & theirs.keys():
        if given[name] != theirs[name]:
            raise ValueError(
                f"--{name}={given[name]} does not go with --init_from={recipe.init_from}, whose "
                f"network has {name} {theirs[name]}"
            )
    return given | theirs


def is_ours(source: str | None) -> bool:
    """Whether `--init_from` names a run or checkpoint of this program, not published weights."""
    if not source or source.partition(":")[0] in published.SOURCES:
        return False
    return Path(source).is_dir() or checkpoints.is_checkpoint(Path(source))


@functools.lru_cache(maxsize=1)
def _opened(source: str) -> checkpoints.Checkpoint:
    checkpoint = runs.open_checkpoint(source, "best")[1]
    checkpoints.rebuild(checkpoint, models.build)  # untrusted: check that it builds
    keras.utils.clear_session()
    return checkpoint


def origin(recipe: Recipe) -> checkpoints.Checkpoint:
    """Returns the checkpoint that `--init_from` names.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged or does not describe a network.
    """
    return _opened(recipe.init_from)


def policy(recipe: Recipe) -> augment.Policy:
    """Returns the augmentation policy of `--augment`, extended by the other augmentation flags.

    Raises:
        ValueError: If a flag is out of range or incompatible with the policy.
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
    """Returns the side of an epoch's training images in pixels: it grows from `first_image_size`.

    M. Tan and Q. Le, arXiv:2104.00298, section 4, without their increasing regularisation.

    Args:
        recipe: Settings that decide the trained weights.
        epoch: Index of the epoch, from 0.
    """
    full = _full_side(recipe)
    first, progress = recipe.first_image_size, epoch / (GROWN * recipe.epochs)
    if not first or progress >= 1:
        return full
    unit = max(1, full // _SIZES)
    return first + unit * int((full - first) * progress / unit)


def sides(recipe: Recipe) -> set[int]:
    """Returns all sides that training images have before they reach full size, in pixels."""
    found = {side(recipe, epoch) for epoch in range(recipe.epochs)}
    return found - {_full_side(recipe)}


def mix(recipe: Recipe) -> mixing.Mixing | None:
    """Returns the settings of mixup and CutMix; None if off, as always with `--overfit_batch`."""
    found = mixing.Mixing(recipe.mixup, recipe.cutmix)
    return found if any(found) and not recipe.overfit_batch else None


def objective(recipe: Recipe, dataset: Dataset) -> losses.Objective:
    """Returns the objective: the loss to minimise."""
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
    """Returns the base learning rate of the schedule."""
    return recipe.learning_rate * batch_scale(recipe)


def batch_scale(recipe: Recipe) -> float:
    """Returns the factor of the learning rate that `--base_batch` implies (default: 1).

    P. Goyal et al., arXiv:1706.02677, section 2.1: the rate is proportional to the batch size.
    """
    return recipe.batch_size / recipe.base_batch if recipe.base_batch else 1.0


def schedule(recipe: Recipe, steps_per_epoch: int) -> schedules.Schedule:
    """Returns the learning-rate schedule."""
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
    """Returns the fractions of the training at which `--schedule=step` decays.

    Raises:
        ValueError: If a milestone is not a number in (0, 1).
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
    """Returns the images computed at a time; None for the whole batch or "auto".

    Raises:
        ValueError: If the flag is neither a positive integer nor "auto".
    """
    given = recipe.micro_batch
    if given in (None, "auto"):
        return None
    if not str(given).isdecimal() or int(given) < 1:
        raise ValueError(f"--micro_batch expects a number of images or auto, received {given}")
    return int(given)


def batch_size(recipe: Recipe, images: int) -> int:
    """Returns the images per update (default: 128, or all images if there are fewer).

    Args:
        recipe: Settings that decide the trained weights.
        images: Number of training images.

    Raises:
        ValueError: If the batch size exceeds the number of training images.
    """
    size = recipe.batch_size or min(BATCH_SIZE, images)
    if size > images:
        raise ValueError(f"--batch_size={size} is more than the {images} training images")
    return size


def resolved(recipe: Recipe, dataset: Dataset) -> Recipe:
    """Fills in the defaults that depend on the data or the optimizer.

    Raises:
        ValueError: If the data lacks images that the recipe needs.
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
    """Checks that a batch divides evenly into replicas and micro batches.

    Raises:
        ValueError: If the batch does not divide evenly.
    """
    size = batch_size(recipe, images)
    micro_batches(size, micro_batch(recipe), replicas, pairs=bool(mix(recipe)))


def check(recipe: Recipe, replicas: int) -> None:
    """Checks all flags that can be checked without the data.

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
    if batch := recipe.batch_size or min(size or 0, BATCH_SIZE):  # the smallest possible
        micro_batches(batch, size, replicas, pairs=bool(mix(recipe)))
    _check_origin(recipe)
    network_options(recipe)
    if recipe.head_epochs >= recipe.epochs:
        raise ValueError(
            f"--head_epochs expects fewer than the {recipe.epochs} of --epochs, received "
            f"{recipe.head_epochs}: the pretrained layers would never learn"
        )


def _check_origin(recipe: Recipe) -> None:
    source = recipe.init_from
    if source and recipe.preprocessing:
        raise ValueError(
            f"--preprocessing={recipe.preprocessing} does not go with --init_from, expected that "
            "with which the weights were trained"
        )
    for name, neutral in (("freeze", "none"), ("old_rate", 1.0), ("head_epochs", 0.0)):
        if not source and getattr(recipe, name) != neutral:
            raise ValueError(
                f"--{name}={getattr(recipe, name)} is about weights from elsewhere: add --init_from"
            )
