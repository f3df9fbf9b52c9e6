"""The input pipeline cut off after each of its stages, to measure the time that each one takes."""

import tensorflow as tf

from data.pipeline import augment, batches, encoded, order, train
from data.pipeline.reader import no_autograph
from data.shards.datasets import Dataset


def input_stages(
    dataset: Dataset,
    policy: augment.Policy,
    *,
    size: int,
    batch_size: int,
    seed: int,
    steps: int,
    threads: int,
    cache: str = "none",
) -> dict[str, tf.data.Dataset]:
    """Returns the pipeline of `pipeline.train_batches` up to and including each of its stages.

    Args:
        dataset: The data set.
        policy: Augmentation policy.
        size: Side of the images in pixels.
        batch_size: Examples per optimizer step.
        seed: Seed of the run, at least 0.
        steps: Number of optimizer steps to read batches for.
        threads: Size of the pipeline's thread pool.
        cache: One of `decoded.CACHES`.

    Returns:
        Data sets by the names read, decode (only if images are decoded), augment and batch. Each
        element is the number of images since the previous element, int32 [].
    """
    blocks = order.training_blocks(
        dataset.shards("train"), batch_size=batch_size, seed=seed, step=0, steps=steps
    )
    reader = train.open_reader(dataset, policy, size, cache, threads)
    draw = train.draw_fn(dataset, policy, seed)
    planned = train.plan_blocks(reader, blocks, batches.Share(0, 1, batch_size), draw)
    options = {"size": size, "batch_size": batch_size, "threads": threads}
    whole = train.train_batches(dataset, policy, seed=seed, steps=steps, cache=cache, **options)

    # Each element depends on the stage's output: TensorFlow would leave out unused operations.
    stages = {"read": planned.map(no_autograph(lambda columns: columns["label"]))}
    if isinstance(reader, encoded.Encoded):

        @no_autograph
        def decode(columns):
            images, windows = reader.decode(columns)
            return windows[:, 0, 0] + tf.add_n([tf.size(image) for image in images])

        stages["decode"] = reader.map_calls(planned, decode, batch_size, threads)
    cropped = reader.crop(planned, batch_size, threads)
    stages["augment"] = cropped.map(no_autograph(lambda images, columns: images[:, 0, 0, 0, 0]))
    stages["batch"] = whole.map(no_autograph(lambda images, labels, weights: labels))
    count = no_autograph(lambda rows: tf.shape(rows)[0])
    return {
        name: stage.map(count).with_options(batches.options(threads))
        for name, stage in stages.items()
    }
