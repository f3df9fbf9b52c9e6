"""Which stored images a training step sees, and what it cuts out of them."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from data import pipeline
from data.pipeline import augment, order, pixels
from data.shards import records
from data.shards.datasets import Dataset


class Origin(NamedTuple):
    """Where an image of a batch comes from.

    Attributes:
        filename: Of the image, relative to the source of the data.
        label: Its class, from 0.
        stored: uint8 [H, W, 3], as it was converted.
        window: Top, left, height, width of what was cut out, in stored pixels.
        mirrored: Whether it was mirrored then.
    """

    filename: str
    label: int
    stored: np.ndarray
    window: tuple[int, int, int, int]
    mirrored: bool


def origins(
    dataset: Dataset,
    policy: augment.Policy,
    *,
    size: int,
    batch_size: int,
    seed: int,
    step: int,
) -> list[Origin]:
    """The origins of the batch that `pipeline.train_batches` gives for a step, in its order.

    Args:
        dataset: As for `train_batches`, like the others.
        policy: How images are varied.
        size: Side of the images in pixels.
        batch_size: Examples per optimizer step.
        seed: Not negative.
        step: Optimizer updates done before it.
    """
    shards = dataset.shards("train")
    blocks = order.training_blocks(
        shards, batch_size=batch_size, seed=seed, step=step, steps=step + 1
    )
    found = []
    for block in blocks:
        places, draws = pipeline.drawn(block._asdict())
        stored = [
            serialized
            for index in block.shards
            for serialized in tf.data.TFRecordDataset(shards[index].path).as_numpy_iterator()
        ]
        mirror = policy.mirror & pipeline.is_mirrored(draws).numpy()
        for place, drawn, mirrored in zip(places.numpy(), draws, mirror, strict=True):
            record = records.parse(tf.constant(stored[place]), filename=True)
            image = pixels.of_record(record)
            where = policy.window(*image.shape[:2], size, drawn).numpy().tolist()
            name = record["filename"].numpy().decode(errors="backslashreplace")
            label = int(record["label"]) - dataset.label_offset
            found.append(Origin(name, label, image, tuple(where), bool(mirrored)))
    return found
