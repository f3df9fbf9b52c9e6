"""Writes a network that was trained on JAX as a checkpoint, which test.py and others open."""

import argparse
import dataclasses
from pathlib import Path

import jax
import numpy as np

from benchmarks.in_memory import training
from benchmarks.in_memory.images import Images
from engine import checkpoints


def save(
    path: Path,
    trained: training.Trained,
    options: argparse.Namespace,
    precision: str,
    images: Images,
) -> None:
    """Writes the weights for inference; no training can go on from the file.

    Args:
        path: File to write, in an existing folder.
        trained: The network.
        options: Flags of its training.
        precision: Number format of the training's computation.
        images: The images of the training.

    Raises:
        OSError: If it cannot be written.
        ValueError: If a weight is not finite.
    """
    named = checkpoints.named_variables(trained.model)
    tensors = {name: np.array(variable.value) for name, variable in named.items()}
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise ValueError("the trained weights are not finite: try a smaller --learning_rate")
    about = {
        "step": trained.step,
        "flags": {
            **vars(options),
            "augment": training.policy(options),
            "precision": precision,
            "data": images.data,
            "val_data": images.val_data,
            "run_dir": str(path.parent),
        },
        "network": trained.network,
        "class_names": list(images.class_names),
        "storage": dataclasses.asdict(images.storage),
        "data_fingerprint": images.fingerprint,
        "versions": checkpoints.versions(),
        "device": {"devices": [jax.devices()[0].device_kind], "replicas": 1},
    }
    checkpoints.write(path, tensors, about)
