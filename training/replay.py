"""Which stored images a training step sees, and which window of each it cuts out."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from data import pipeline
from data.pipeline import augment, batches, order, pixels
from data.shards import records
from data.shards.datasets import Dataset


class Origin(NamedTuple):
    """Stored image and crop behind an image of a batch.

    Attributes:
        filename: Name of the image file, relative to the source of the data.
        label: Class, from 0.
        stored: Image as stored in the shards, uint8 [H, W, 3].
        window: Top, left, height, width of the window cut out, in stored pixels.
        mirrored: Whether the window was mirrored.
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
    """Returns the origins of the images of a step's batch in `pipeline.train_batches`, in order.

    Args:
        dataset: Data set of the training.
        policy: Augmentation policy.
        size: Side of the batch's images in pixels.
        batch_size: Examples per optimizer update.
        seed: Seed of the run, at least 0.
        step: Optimizer updates done before this step.
    """
    shards = dataset.shards("train")
    blocks = order.training_blocks(
        shards, batch_size=batch_size, seed=seed, step=step, steps=step + 1
    )
    draw, found = pipeline.draw_fn(dataset, policy, seed), []
    for block, columns in zip(blocks, batches.block_dataset(blocks, batch_size), strict=True):
        places, draws = draw(columns)
        stored = [
            serialized
            for index in block.shards
            for serialized in tf.data.TFRecordDataset(shards[index].path).as_numpy_iterator()
        ]
        mirror = policy.mirror & pipeline.is_mirrored(draws).numpy()
        for place, drawn, mirrored in zip(places.numpy(), draws, mirror, strict=True):
            record = records.parse(tf.constant(stored[place]), filename=True)
            image = pixels.from_record(record)
            where = policy.window(*image.shape[:2], size, drawn).numpy().tolist()
            name = record["filename"].numpy().decode(errors="backslashreplace")
            label = int(record["label"]) - dataset.label_offset
            found.append(Origin(name, label, image, tuple(where), bool(mirrored)))
    return found
