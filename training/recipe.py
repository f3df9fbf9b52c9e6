"""From flags to the parts of a training: network, objective, variations, learning rates."""

import dataclasses
import functools
import math
import os
import string
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np

import models
from data.pipeline import augment, pipeline, variations
from data.shards.datasets import Dataset
from data.sources import sources
from engine import checkpoints, losses, mixing, optimizers, runs, schedules, steps
from models.tools import keras_weights

BATCH_SIZE = 128  # where there are as many images
GROWN = 0.75  # of the epochs: then images of --first_image_size have grown to their full size
ALPHABETS = (string.digits, string.ascii_lowercase, string.ascii_uppercase)
CHARACTERS = {  # data sets of TFDS
    *("mnist", "emnist", "kmnist", "qmnist", "binarized_mnist", "mnist_corrupted"),
    *("omniglot", "svhn_cropped", "cmaterdb", "binary_alpha_digits"),
}
_SIZES = 8  # at most, on the way there
PATHS = {  # flags that may be paths: and when
    "data": sources.is_path,
    "val_data": sources.is_path,
    "run_dir": sources.is_path,
    "init_from": lambda source: source != keras_weights.DOWNLOAD,
}
VARIED = ("activation", "norm", "pooling", "dropout", "width", "preprocessing")  # of the networks


def recorded(options: SimpleNamespace) -> dict:
    """The flags as a run keeps them: paths are from the root, for it outlives the folder."""
    given = vars(options)
    paths = (name for name, is_path in PATHS.items() if given[name] and is_path(given[name]))
    return given | {name: os.path.abspath(given[name]) for name in paths}


def typed(options: SimpleNamespace, begun: Mapping) -> dict[str, str]:
    """The paths as they were typed, where a run keeps others.

    Args:
        options: The flags.
        begun: What run.json says of a run that goes on; nothing of a new one.
    """
    kept, before = recorded(options), begun.get("typed", {})
    own = {name: vars(options)[name] for name in PATHS if vars(options)[name] != kept[name]}
    return {name: before[name] for name in before if kept[name] == begun["flags"][name]} | own


def network(options: SimpleNamespace, dataset: Dataset) -> dict:
    """The arguments of `models.build`, and what a checkpoint needs to rebuild the network."""
    return {
        "name": options.model,
        "num_classes": dataset.num_classes,
        "image_size": _full_side(options),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        **network_options(options),
    }


def _full_side(options: SimpleNamespace) -> int:
    return options.image_size or models.image_size(options.model)


def network_options(options: SimpleNamespace) -> dict:
    """The network's own options that were given, and those that weights from elsewhere need.

    Raises:
        ValueError: If there are no such weights for the network.
        FileNotFoundError: If they do not exist.
    """
    given = {name: vars(options)[name] for name in VARIED if vars(options)[name] is not None}
    if is_ours(options.init_from):
        before = origin(options).about["network"]
        if before["name"] != options.model:
            raise ValueError(
                f"--init_from={options.init_from} is {before['name']}, expected {options.model}"
            )
        kept = (*VARIED, "mean", "std")
        return {name: before[name] for name in kept if name in before} | given
    return given | (keras_weights.options(options.model) if options.init_from else {})


def is_ours(source: str | None) -> bool:
    """Whether `--init_from` names a run or a checkpoint of ours: not Keras' weights."""
    return bool(source) and (Path(source).suffix == ".safetensors" or Path(source).is_dir())


@functools.lru_cache(maxsize=1)
def _opened(source: str) -> checkpoints.Checkpoint:
    checkpoint = runs.open_checkpoint(source, "best")[1]
    checkpoints.rebuild(checkpoint, models.build)  # it may be a stranger's: does it fit together?
    keras.utils.clear_session()
    return checkpoint


def origin(options: SimpleNamespace) -> checkpoints.Checkpoint:
    """The checkpoint that `--init_from` names.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged, or not of a network.
    """
    return _opened(options.init_from)


def default_augment(options: SimpleNamespace, dataset: Dataset) -> tuple[str, str]:
    """The augmentation policy of a network for its data, and why it is that."""
    if is_of_characters(options.data, dataset):
        return "digits", "characters are not mirrored"
    return models.policy(options.model), f"of {options.model}"


def is_of_characters(data: str, dataset: Dataset) -> bool:
    """Whether the images of a data set are characters, which have another meaning when mirrored.

    Digits or letters as class names do not say that: photographs may be numbered too.
    """
    name = data.partition("/")[0]  # of a data set of TFDS, without its configuration
    if data == "digits" or name in {f"tfds:{known}" for known in CHARACTERS}:
        return True
    names = set(dataset.class_names)
    alphabets = [set(alphabet) for alphabet in ALPHABETS]
    known = set().union(*(alphabet for alphabet in alphabets if alphabet <= names))
    return dataset.small_grey and bool(names) and names == known


def policy(options: SimpleNamespace) -> augment.Policy:
    """How training images are varied: the policy's way, and what flags add.

    Raises:
        ValueError: If a flag is out of range, or does not go with the policy.
    """
    found = augment.POLICIES[options.augment]
    if options.scale:
        if found.window is not augment.random_window:
            raise ValueError(
                f"--scale takes the place of alexnet's cut: expected --augment=alexnet, "
                f"received {options.augment}"
            )
        window = augment.scaled_window(*_scale(options), _full_side(options))
        found = dataclasses.replace(found, window=window)
    vary = _variations(options)
    return dataclasses.replace(found, vary=vary) if vary else found


def _scale(options: SimpleNamespace) -> tuple[float, float]:
    low, high = _numbers(options, "scale", 2)
    size = _full_side(options)
    if not size <= low <= high:
        raise ValueError(
            f"--scale expects two sides in pixels, from {size} on, received "
            f"{','.join(options.scale)}"
        )
    return low, high


def _variations(options: SimpleNamespace) -> variations.Variations:
    count, magnitude = _numbers(options, "randaugment", 2) if options.randaugment else (0, 0)
    if count != int(count) or count < 0 or not 0 <= magnitude <= variations.LEVELS:
        raise ValueError(
            f"--randaugment expects a number of operations and 0 to {variations.LEVELS}, such as "
            f"2,9, received {','.join(options.randaugment)}"
        )
    names = {field.name for field in dataclasses.fields(variations.Variations)} - {"randaugment"}
    given = {name: vars(options)[name] for name in names}
    return variations.Variations(**given, randaugment=(int(count), magnitude))


def _numbers(options: SimpleNamespace, name: str, count: int) -> list[float]:
    texts = vars(options)[name]
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f"--{name} expects {count} numbers, received {','.join(texts)}")
    return numbers


def side(options: SimpleNamespace, epoch: int) -> int:
    """Side in pixels of an epoch's training images, which `--first_image_size` lets grow.

    M. Tan and Q. Le, arXiv:2104.00298, section 4, without their rising regularisation.

    Args:
        options: The flags.
        epoch: From 0.
    """
    full = _full_side(options)
    first, progress = options.first_image_size, epoch / (GROWN * options.epochs)
    if not first or progress >= 1:
        return full
    unit = max(1, full // _SIZES)
    return first + unit * int((full - first) * progress / unit)


def sides(options: SimpleNamespace) -> set[int]:
    """All sides that training images have before they are of full size."""
    found = {side(options, epoch) for epoch in range(options.epochs)}
    return found - {_full_side(options)}


def mix(options: SimpleNamespace) -> mixing.Mixing | None:
    """How images are mixed with each other; None: not, as where one batch is to be learnt."""
    found = mixing.Mixing(options.mixup, options.cutmix)
    return found if any(found) and not options.overfit_batch else None


def objective(options: SimpleNamespace, dataset: Dataset) -> losses.Objective:
    """What the training makes small."""
    weights = ()
    if options.class_weights == "balanced":
        counts = np.maximum(pipeline.class_counts(dataset, "train"), 1)
        weights = tuple((counts.sum() / (len(counts) * counts)).tolist())
    decoupled = optimizers.OPTIMIZERS[options.optimizer].decoupled
    return losses.Objective(
        l2=0.0 if decoupled else options.weight_decay,
        l1=options.l1,
        smoothing=options.label_smoothing,
        aux_weight=models.aux_weight(options.model),
        class_weights=weights,
    )


def learning_rate(options: SimpleNamespace) -> float:
    """The base rate of the schedule."""
    return options.learning_rate * batch_scale(options)


def batch_scale(options: SimpleNamespace) -> float:
    """Factor of the rate where `--base_batch` says for which batch it is meant.

    P. Goyal et al., arXiv:1706.02677, section 2.1: k times the batch, k times the rate.
    """
    return options.batch_size / options.base_batch if options.base_batch else 1.0


def schedule(options: SimpleNamespace, steps_per_epoch: int) -> schedules.Schedule:
    """The learning rate of every step."""
    return schedules.Schedule(
        options.schedule,
        learning_rate(options),
        options.epochs * steps_per_epoch,
        warmup_steps=round(options.warmup_epochs * steps_per_epoch),
        milestones=milestones(options),
        decay=options.decay,
        decay_steps=options.decay_epochs * steps_per_epoch,
        power=options.power,
        plateau=schedules.Plateau(options.patience),
    )


def milestones(options: SimpleNamespace) -> tuple[float, ...]:
    """Where `--schedule=step` decays, as numbers.

    Raises:
        ValueError: If they are not fractions.
    """
    try:
        fractions = tuple(float(text) for text in options.milestones)
    except ValueError:
        fractions = (math.nan,)
    if not all(0 < fraction < 1 for fraction in fractions):
        raise ValueError(
            "--milestones expects fractions of --epochs such as 0.5,0.75, "
            f"received {','.join(options.milestones)}"
        )
    return fractions


def micro_batch(options: SimpleNamespace) -> int | None:
    """Images that are computed at a time; None for the whole batch, or if it is yet to be found.

    Raises:
        ValueError: If it is neither a number above 0 nor "auto".
    """
    given = options.micro_batch
    if given in (None, "auto"):
        return None
    if not str(given).isdecimal() or int(given) < 1:
        raise ValueError(f"--micro_batch expects a number of images or auto, received {given}")
    return int(given)


def batch_size(options: SimpleNamespace, images: int) -> int:
    """Images of an update: as many as the flag says, else 128, or all if there are fewer.

    Args:
        options: The flags.
        images: Those of the training.

    Raises:
        ValueError: If the flag says more than there are.
    """
    size = options.batch_size or min(BATCH_SIZE, images)
    if size > images:
        raise ValueError(f"--batch_size={size} is more than the {images} training images")
    return size


def check_batch(options: SimpleNamespace, images: int, replicas: int) -> None:
    """Finds out whether replicas, or parts, can share the batches of so many training images.

    Raises:
        ValueError: If they do not come out even.
    """
    size = batch_size(options, images)
    steps.parts(size, micro_batch(options), replicas, pairs=bool(mix(options)))


def check(options: SimpleNamespace, replicas: int) -> None:
    """Finds values that are wrong whatever the data are.

    Raises:
        ValueError: If a flag's value is out of range.
        FileNotFoundError: If the file or folder of `--init_from` does not exist.
    """
    for name, value in vars(options).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"--{name} expects a finite number, received {value}")
    if options.seed >= 2**32:
        raise ValueError(f"--seed expects a number below {2**32}, received {options.seed}")
    milestones(options)
    _variations(options)
    if options.scale:
        _scale(options)
    if options.augment:
        policy(options)
    full = _full_side(options)
    if (options.first_image_size or 0) > full:
        raise ValueError(
            f"--first_image_size expects at most the {full} pixels of the last images, received "
            f"{options.first_image_size}"
        )
    size = micro_batch(options)
    if batch := options.batch_size or min(size or 0, BATCH_SIZE):  # the smallest that may be
        steps.parts(batch, size, replicas, pairs=bool(mix(options)))
    _check_origin(options)
    network_options(options)


def _check_origin(options: SimpleNamespace) -> None:
    source = options.init_from
    if source not in (None, keras_weights.DOWNLOAD) and not Path(source).exists():
        raise FileNotFoundError(f"--init_from expects keras, a run or a file, received {source}")
    if source and options.preprocessing:
        raise ValueError(
            f"--preprocessing={options.preprocessing} does not go with --init_from, expected that "
            "with which the weights were trained"
        )
    for name, neutral in (("freeze", "none"), ("old_rate", 1.0)):
        if not source and vars(options)[name] != neutral:
            raise ValueError(
                f"--{name}={vars(options)[name]} is about weights from elsewhere: add --init_from"
            )
