"""Loads a trained network and its metadata from a run, or published weights."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

import keras
import tensorflow as tf

import models
from data.images import decode
from data.images.resized import Resized
from data.shards import copies
from data.sources import imagenet
from engine import checkpoints, runs
from models.tools import published
from runtime import console
from runtime.flags import flag

CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck".split()
CALIBRATION = "calibration.json"  # in the run folder: {"temperature": T, "digest": ...}


@dataclasses.dataclass(frozen=True)
class Weights:
    """Flags that select a network's weights: a checkpoint, or published ones."""

    checkpoint: str = flag(
        "best", "Checkpoint of the run: best, last, a step, or a file.", heading="Network"
    )
    model: str | None = flag(None, "Network to use with the weights of --init_from, without a run.")
    init_from: str | None = flag(
        None,
        "Weights of --model: a source (keras, timm, torchvision, pytorchcv), SOURCE:TAG as in "
        "python -m models --weights, or a file; SOURCE:FILE says whose it is.",
    )


@dataclasses.dataclass(frozen=True)
class Origin:
    """The data set that a network was trained on.

    Attributes:
        data: Value of `--data`.
        val_data: Value of `--val_data`.
        expected: State of the data at training time; None accepts any state.
    """

    data: str
    val_data: str | None = None
    expected: copies.Expected | None = None


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network and its metadata.

    Attributes:
        model: Model from float32 images in 0..255 to {"logits": [B, K]}.
        class_names: Names of the K classes.
        storage: Storage format of the training images, which new images are brought to; for
            published weights how their source resizes images.
        origin: Training data; None for published weights.
        image_size: Side of the input in training, in pixels.
        name: Path of the checkpoint, or source of the published weights.
        folder: Run folder, which results are written to; None if there is no run.
        step: Number of optimizer updates; None for published weights.
        digest: sha256 of the checkpoint's tensors; None for published weights.
        temperature: Divisor of the logits before the softmax, as fitted by test.py to this
            checkpoint (default: 1).
    """

    model: keras.Model
    class_names: list[str]
    storage: decode.Storage | Resized
    origin: Origin | None
    image_size: int
    name: str
    folder: Path | None
    step: int | None = None
    digest: str | None = None
    temperature: float = 1.0


def open_network(
    path: str | None,
    weights: Weights = Weights(),
    *,
    image_size: int | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> Trained:
    """Opens a checkpoint, or a network with published weights.

    Args:
        path: Run or checkpoint, see `runs.open_checkpoint`.
        weights: Checkpoint of the run, see `runs.open_checkpoint`; or both a `model` and
            `init_from`, see `published.split`.
        image_size: Side of the input in pixels (default: as trained).
        strategy: Strategy in whose scope the model is built (default: the current one).

    Raises:
        FileNotFoundError: If the run, the checkpoint or the file does not exist.
        ValueError: If the file is damaged or does not fit its network, or both a run and published
            weights are chosen.
        OSError: If a download fails.
        RuntimeError: If Keras' download fails.
    """
    with (strategy or tf.distribute.get_strategy()).scope():
        if weights.model is None and weights.init_from is None:
            return _from_run(*runs.open_checkpoint(path, weights.checkpoint), image_size)
        if weights.model is None or weights.init_from is None:
            raise ValueError("expected both --model and --init_from, received only one of them")
        if path or weights.checkpoint != Weights().checkpoint:
            raise ValueError(
                "expected a run or checkpoint, or --model and --init_from, received both: "
                f"{path or f'--checkpoint={weights.checkpoint}'} and --model={weights.model}"
            )
        for source in published.SOURCES:
            console.refuse_ambiguous(weights.init_from, source, "--init_from=")
        return _published(weights.model, weights.init_from, image_size)


def _from_run(folder: Path, checkpoint: checkpoints.Checkpoint, image_size: int | None) -> Trained:
    model = checkpoints.rebuild(checkpoint, models.build, image_size)
    about = checkpoint.about
    try:
        class_names = list(about["class_names"])
        if list(map(str, class_names)) != class_names:
            raise TypeError("class_names are not texts")
        if len(class_names) != model.output["logits"].shape[-1]:
            raise ValueError(f"{len(class_names)} class_names")
        return Trained(
            model,
            class_names,
            decode.Storage(**about["storage"]),
            _origin(folder, about),
            about["network"]["image_size"],
            str(checkpoint.path),
            folder if runs.Run(folder).exists else None,
            int(about["step"]),
            about["sha256"],
            _temperature(folder, about["sha256"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"checkpoint {checkpoint.path} lacks information about its training data: {error!r}"
        ) from error


def _origin(folder: Path, about: Mapping) -> Origin:
    """Returns the training data of a checkpoint.

    The run's settings come first, because a resumed run may read the same data from a new path.
    """
    run = runs.Run(folder)
    if run.exists:
        settings = run.settings()
        flags, data = settings["flags"], settings["data"]
        expected = copies.Expected(data["fingerprint"], data["folder"])
    else:
        flags, expected = about["flags"], copies.Expected(about["data_fingerprint"])
    return Origin(flags["data"], flags["val_data"], expected)


def _temperature(folder: Path, digest: str) -> float:
    path = folder / CALIBRATION
    if not path.is_file():
        return 1.0
    try:
        calibration = json.loads(path.read_text())
        temperature = float(calibration["temperature"]) if calibration["digest"] == digest else 1.0
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature {temperature}")
        return temperature
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error!r}; remove it") from error


def _published(name: str, source: str, image_size: int | None) -> Trained:
    models.image_size(name)  # rejects an unknown network
    weights = published.find(name, source)
    theirs, classes = Resized(**vars(weights.row.preprocessing)), weights.num_classes
    resized = theirs.at(image_size or theirs.image_size)
    model = models.build(name, classes, image_size=resized.image_size, **weights.options)
    weights.load(model)
    return Trained(
        model,
        _class_names(weights),
        resized,
        None,
        theirs.image_size,
        f"{name} with weights from {weights}",
        None,
    )


def _class_names(weights: published.Published) -> list[str]:
    """Returns the names of ImageNet's or CIFAR-10's classes, otherwise numbers, as SVHN's are."""
    count, said = weights.num_classes, Path(weights.file or weights.row.tag).name
    for names in (list(imagenet.class_names()), CIFAR10):
        if count == len(names) and "svhn" not in said:
            return names
    return list(map(str, range(count)))
