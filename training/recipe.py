"""The flags of train.py as two frozen dataclasses: the recipe, and how to run it.

Each field also holds what `--resume`, the workers of a cluster and the comparison of runs need to
know about the flag (`runtime.flags.Meaning`).
"""

import dataclasses
import functools

import models
from data.pipeline import augment, decoded
from engine import devices, optimizers, schedules
from models import initializers, registry
from runtime import flags
from runtime.cores import cores

flag = flags.flag
_running = functools.partial(flags.flag, resumable=True, repeats=True)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings that decide the trained weights, together with library versions and the device."""

    data: str = flag(
        "digits",
        "Images to train on: digits, tfds:NAME, or the path of images, archives or shards.",
        heading="Data and network",
        resumable=True,  # the data may move; its fingerprint is compared
        of_worker=True,
    )
    val_data: str | None = flag(
        None, "A separate folder of validation images.", resumable=True, of_worker=True
    )
    model: str | None = flag(
        None,
        "The network (default: lenet5 for digits, else alexnet).",
        choices=tuple(models.names()),
    )
    image_size: int | None = flag(
        None, "Side of the crops in pixels (default: the network's).", low=1
    )
    first_image_size: int | None = flag(
        None,
        "Side of the first epochs' images in pixels; they grow to --image_size.",
        low=1,
    )
    activation: str | None = flag(
        None, f"Activation function of {models.owners('activation')} (default: the paper's)."
    )
    norm: str | None = flag(
        None,
        f"Normalisation ({', '.join(registry.NORMS)}) of {models.owners('norm')} "
        "(default: the paper's).",
    )
    pooling: str | None = flag(
        None, f"Pooling of {models.owners('pooling')} (default: the paper's)."
    )
    dropout: float | None = flag(
        None,
        f"Dropout rate of {models.owners('dropout')} (default: the paper's).",
        low=0.0,
        high=1.0,
    )
    width: float | None = flag(
        None,
        f"Multiplier of the channels of {models.owners('width')} (default: the paper's).",
        low=0.0,
    )
    shortcut: str | None = flag(
        None,
        f"Shortcuts (A, B, C) of {models.owners('shortcut')}, or of their residual networks "
        "(default: the paper's).",
    )
    preprocessing: str | None = flag(
        None,
        "How the network normalises images (default: the paper's).",
        choices=tuple(models.PREPROCESSINGS),
    )
    init: str | None = flag(
        None,
        "Initialiser of the kernels (default: the paper's).",
        choices=tuple(initializers.INITIALIZERS),
    )

    batch_size: int | None = flag(
        None,
        "Examples per update, over all replicas (default: 128, or all images if fewer).",
        heading="Batches and epochs",
        low=1,
    )
    epochs: int = flag(90, "Passes over the training images.", low=1)
    micro_batch: str | None = flag(
        None,
        "Images computed at a time, over all replicas, or auto: as many as fit in memory "
        "(default: the batch).",
    )
    early_stopping: int | None = flag(
        None, "Stop after N epochs without a better validation accuracy.", low=1
    )
    seed: int = flag(0, "Everything random is a function of it.", low=0, repeats=True)
    overfit_batch: bool = flag(False, "Train on the first batch alone, to check the network.")

    optimizer: str = flag(
        "momentum",
        "How weights are updated.",
        heading="Optimizer and loss",
        choices=tuple(optimizers.OPTIMIZERS),
    )
    learning_rate: float | None = flag(
        None, "Before any decay (default: the optimizer's).", low=1e-12
    )
    base_batch: int | None = flag(
        None, "Scale the learning rate by batch_size / this (default: do not scale).", low=1
    )
    momentum: float = flag(0.9, "Decay of the running mean of gradients.", low=0.0, high=1.0)
    weight_decay: float = flag(5e-4, "lambda of the L2 loss lambda / 2 |w|^2.", low=0.0)
    l1: float = flag(0.0, "lambda of the L1 loss lambda |w|.", low=0.0)
    label_smoothing: float = flag(
        0.0, "Fraction of each target spread over all classes.", low=0.0, high=0.999
    )
    class_weights: str = flag(
        "none", "balanced: rare classes count more.", choices=("none", "balanced")
    )
    clip_norm: float | None = flag(
        None, "Shorten gradients that are longer than this (default: do not).", low=1e-12
    )
    ema: float = flag(
        0.0,
        "Decay of a moving average of the weights, such as 0.999; 0 for none.",
        low=0.0,
        high=0.999999,
    )
    lookahead: int | None = flag(
        None,
        "Every N updates, go back towards the weights' slow average, further as training goes on.",
        low=1,
    )
    norm_bias_rate: float = flag(
        1.0, "Learning-rate multiplier of BatchNorm's biases, such as 64.", low=0.0
    )

    schedule: str = flag(
        "plateau",
        "How the learning rate falls.",
        heading="Learning-rate schedule",
        choices=tuple(schedules.SCHEDULES),
    )
    milestones: list[str] = flag(["0.5", "0.75"], "Where step decays, as fractions of --epochs.")
    decay: float = flag(
        0.1, "Factor of one decay of step, plateau or exponential.", low=1e-12, high=1.0
    )
    decay_epochs: float = flag(2.0, "Epochs in which exponential decays once.", low=1e-12)
    power: float = flag(1.0, "Exponent of polynomial.", low=0.0)
    patience: int = flag(5, "Epochs without improvement before plateau decays.", low=1)
    warmup_epochs: float = flag(
        0.0, "Epochs in which the learning rate rises linearly from 0.", low=0
    )

    augment: str | None = flag(
        None,
        "Augmentation policy (default: by network and data).",
        heading="Augmentation",
        choices=tuple(augment.POLICIES),
    )
    scale: list[str] | None = flag(
        None,
        "Resize the shorter side to a random length from LOW to HIGH pixels before cropping, as "
        "in 256,480; replaces the crop of --augment=alexnet.",
    )
    rotate: float = flag(0.0, "Largest rotation in degrees.", low=0.0, high=180.0)
    translate: float = flag(0.0, "Largest shift as a fraction of the side.", low=0.0, high=1.0)
    shear: float = flag(0.0, "Largest shear in degrees.", low=0.0, high=80.0)
    elastic: float = flag(
        0.0, "Typical elastic displacement as a fraction of the side.", low=0.0, high=1.0
    )
    randaugment: list[str] | None = flag(
        None, "NUMBER,MAGNITUDE of RandAugment's operations, such as 2,9."
    )
    jitter: float = flag(
        0.0,
        "Largest change of brightness, contrast and saturation, as a fraction.",
        low=0.0,
        high=1.0,
    )
    channel_shift: float = flag(
        0.0, "Largest number of levels, of 255, added to each channel.", low=0.0, high=255.0
    )
    erase: float = flag(0.0, "Probability that a rectangle is erased.", low=0.0, high=1.0)
    mixup: float = flag(0.0, "alpha of mixup: pairs of images are blended; 0 for none.", low=0.0)
    cutmix: float = flag(
        0.0, "alpha of CutMix: a part of an image replaces that of another; 0 for none.", low=0.0
    )

    init_from: str | None = flag(
        None,
        "Start from weights: a run, a source (keras, timm, torchvision, pytorchcv), SOURCE:TAG as "
        "python -m models --weights lists them, or a file; SOURCE:FILE says whose it is.",
        heading="Fine-tuning",
    )
    freeze: str = flag(
        "none", "Layers with weights from --init_from that do not learn: none, all or stage:N."
    )
    old_rate: float = flag(
        1.0, "Learning-rate multiplier of the pretrained layers.", low=0.0, high=1.0
    )
    head_epochs: float = flag(
        0.0, "First epochs, in which only the layers without pretrained weights learn.", low=0.0
    )

    precision: str = flag(
        "auto",
        "Number format of the computation (auto: the fastest that is safe on this device).",
        heading="Numerics",
        choices=tuple(devices.PRECISIONS),
    )
    xla: str = flag(
        "auto", "Compile the step with XLA (auto: on one GPU).", choices=("auto", "on", "off")
    )
    deterministic: str = flag(
        "auto",
        "Use deterministic kernels only, so that equal runs have equal weights (auto: on GPUs).",
        choices=("auto", "on", "off"),
    )


@dataclasses.dataclass(frozen=True)
class Running:
    """Settings of the run: folder, checkpoints, machine, and tasks instead of training."""

    run_dir: str | None = _running(
        None,
        "Folder that everything is written to (default: runs/DATA-MODEL).",
        heading="Run folder and checkpoints",
        of_worker=True,
    )
    resume: bool = _running(False, "Go on with the newest run, or with that of --run_dir.")
    checkpoint_steps: int | None = _running(
        None, "Save every N steps too (default: at the end of each epoch only).", low=1
    )
    keep: int = _running(2, "Number of checkpoints kept besides the best.", low=1)
    max_steps: int | None = _running(
        None, "Stop after N optimizer updates in all.", low=1, repeats=False
    )
    on_nan: str = _running(
        "stop",
        "Where the loss is not finite (rollback: go back once, with a tenth of the rate).",
        choices=("stop", "rollback"),
        repeats=False,
    )
    histograms: bool = _running(
        False, "Histograms of weights and gradients for TensorBoard, every epoch."
    )

    threads: int = _running(cores(), "CPU threads.", heading="Machine", low=1, of_worker=True)
    devices: str = _running(
        "all", "Number of GPUs or of parts of the CPU, or GPUs as in 0,2.", of_worker=True
    )
    cluster_timeout: float = _running(300.0, "Seconds to wait for the other workers.", low=1)
    cache: str = _running(
        "auto",
        "Decode all images to memory first (auto: if they are small).",
        choices=tuple(decoded.CACHES),
        of_worker=True,
    )
    verify: bool = _running(
        False, "Compare the shards' sha256, which reads every byte.", of_worker=True
    )
    profile: int | None = _running(
        None, "Record what the device does in N steps, for TensorBoard.", low=1, of_worker=True
    )
    log_device_placement: bool = _running(False, "Print the device of every operation.")

    seeds: int = flag(
        1,
        "Train N times, with --seed and the numbers after it, and compare the runs.",
        heading="Instead of one training",
        low=1,
        repeats=True,
    )
    meter: bool = _running(False, "Measure where the time goes; train nothing.", alone=True)
    json: bool = _running(False, "Print what --meter measures as one line of JSON.")
    find_lr: bool = flag(
        False,
        "Try rising learning rates and propose one; train nothing.",
        alone=True,
        repeats=True,
    )
    show_step: int | None = _running(
        None, "Draw the images of a step; train nothing.", low=0, alone=True
    )
