"""Trainings that are killed, or stopped with any settings, and resumed."""

import random
import signal
import time
from collections import Counter
from pathlib import Path

from data.pipeline import augment, decoded
from engine import optimizers, schedules
from tests.stress import forked

# Dropout, momentum, plateau, checkpoints within epochs: 55 steps, 14 checkpoints.
TRAINING = ("--data=digits", "--epochs=5", "--dropout=0.5", "--model=lenet5")
TRAINING += ("--checkpoint_steps=4", "--schedule=plateau", "--batch_size=128")
SETTINGS = {  # all that a checkpoint must restore, or that changes what is computed
    "model": ("lenet5", "cifarnet", "cifar_resnet20"),
    "optimizer": tuple(optimizers.OPTIMIZERS),
    "schedule": tuple(schedules.SCHEDULES),
    "augment": tuple(augment.POLICIES),
    "precision": ("float32", "mixed_bfloat16"),
    "cache": decoded.CACHES,
    "warmup_epochs": (0, 1),
    "weight_decay": (0, 5e-4),
    "checkpoint_steps": (5, 7, 1000),
    "patience": (1, 5),
    "micro_batch": (8, 16),
    "early_stopping": (1, 50),
    "ema": (0, 0.9),
    "clip_norm": (0.5, 1e6),
    "label_smoothing": (0, 0.1),
    "l1": (0, 1e-5),
    "class_weights": ("none", "balanced"),
    "mixup": (0, 0.3),
    "cutmix": (0, 1),
    "randaugment": ("0,0", "2,5"),
    "erase": (0, 0.5),
    "rotate": (0, 15),
}
MOST_KILLS = 5  # of one training


def kills(count: int, folder: Path, seed: int) -> Counter:
    """Trains again and again, killing at random moments, and compares with a training left alone.

    Args:
        count: Kills, at least.
        folder: For the runs.
        seed: Of the moments.

    Returns:
        "kills", "trainings", and what went wrong: "different", "cannot resume".
    """
    choose, counts = random.Random(seed), Counter()
    began = time.monotonic()
    _, whole = forked.trained(folder / "whole", TRAINING)
    expected, longest = forked.DONE.search(whole).groups(), time.monotonic() - began
    while counts["kills"] < count:
        run_dir = folder / f"run-{counts['trainings']}"
        for _ in range(choose.randint(1, MOST_KILLS)):
            code, _ = forked.trained(run_dir, TRAINING, after=choose.uniform(0, longest))
            counts["kills"] += code == -signal.SIGKILL
        code, output = forked.trained(run_dir, TRAINING)
        done = forked.DONE.search(output)
        counts["trainings"] += 1
        counts["cannot resume"] += code != 0
        counts["different"] += code == 0 and done.groups() != expected
    return counts


def any_settings(count: int, folder: Path, seed: int) -> Counter:
    """Stops trainings with random settings at random steps, resumes, and compares.

    Args:
        count: Settings to draw.
        folder: For the runs.
        seed: Of the settings and steps.

    Returns:
        "trainings", "not finite" (those that fail by themselves, which are not resumed), and what
        went wrong: "different", "cannot resume".
    """
    choose, counts = random.Random(seed), Counter()
    for number in range(count):
        words = [f"--{name}={choose.choice(values)}" for name, values in SETTINGS.items()]
        words += ["--data=digits", "--batch_size=16", "--epochs=2", f"--seed={number}"]
        end, steps = "--max_steps=110", choose.sample(range(1, 110), 2)  # an epoch has 101
        whole, stopped = folder / f"whole-{number}", folder / f"stopped-{number}"
        fails, expected = forked.trained(whole, [*words, end])
        if fails:  # some of these settings let the loss grow without end
            counts["not finite"] += 1
            continue
        for step in sorted(steps):
            forked.trained(stopped, [*words, f"--max_steps={step}"])
        code, output = forked.trained(stopped, [*words, end])
        counts["trainings"] += 1
        counts["cannot resume"] += code != 0
        same = forked.DONE.findall(output) == forked.DONE.findall(expected) != []
        counts["different"] += code == 0 and not same
        if not same:
            print("wrong:", *words, f"stopped at {steps}", flush=True)
    return counts
