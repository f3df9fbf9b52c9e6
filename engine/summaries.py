"""TensorBoard event files of a run: curves, pictures, flags and the graph."""

import contextlib
import functools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from runtime import files


class Summaries:
    """Writes the event files of a run's `train/` and `validation/` folders."""

    def __init__(self, folder: Path) -> None:
        """Sets the folder; writers open on first use, so a run that fails early leaves no files."""
        self._folder = folder
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def _writer(self, split: str) -> tf.summary.SummaryWriter:
        if split not in self._writers:
            self._writers[split] = tf.summary.create_file_writer(str(self._folder / split))
        return self._writers[split]

    def scalars(self, split: str, values: Mapping[str, float], step: int) -> None:
        """Adds a point to the curve of each value."""
        with self._writer(split).as_default(step):
            for name, value in values.items():
                tf.summary.scalar(name, value)

    def flags(self, flags: Mapping) -> None:
        """Writes the flags as a table and for the HParams plugin, which compares runs."""
        with self._writer("").as_default(0):  # the root folder stands for the whole run
            hparams.hparams({name: _plain(value) for name, value in flags.items()})
        rows = [f"| {name} | {value} |" for name, value in sorted(flags.items())]
        with self._writer("train").as_default(0):
            tf.summary.text("flags", "\n".join(["| flag | value |", "|---|---|", *rows]))

    def graph(self, model: keras.Model) -> None:
        """Writes the graph of the network for one image."""
        shape = (1, *model.input_shape[1:])

        @tf.function(autograph=False)
        def network(images):
            return model(images, training=False)

        concrete = network.get_concrete_function(tf.TensorSpec(shape, tf.float32))
        with self._writer("train").as_default(0):
            tf.summary.graph(concrete.graph)

    def images(self, name: str, images: np.ndarray, step: int) -> None:
        """Writes a batch of images as one picture.

        Args:
            name: Name of the picture.
            images: uint8 [N, H, W, C].
            step: Optimizer updates done.
        """
        with self._writer("train").as_default(step):
            tf.summary.image(name, grid(images)[np.newaxis])

    def pictures(self, split: str, pictures: Mapping[str, bytes], step: int) -> None:
        """Writes PNG or JPEG pictures by name."""
        with self._writer(split).as_default(step):
            for name, picture in pictures.items():
                image = tf.io.decode_image(picture, channels=3, expand_animations=False)
                tf.summary.image(name, image[tf.newaxis])

    def histograms(self, kind: str, values: Mapping[str, np.ndarray], step: int) -> None:
        """Writes a histogram of each array."""
        with self._writer("train").as_default(step):
            for name, array in values.items():
                tf.summary.histogram(f"{kind}/{name}", array)

    def filters(self, model: keras.Model, step: int) -> None:
        """Writes the first layer's filters, one picture per tower."""
        with self._writer("train").as_default(step):
            for name, picture in pictures_of_filters(model).items():
                tf.summary.image(name, picture[np.newaxis])

    def keep(self, step: int) -> None:
        """Drops the events after a step, which a resumed run writes again.

        Args:
            step: Last step to keep, in optimizer updates; -1 for none.
        """
        for writer in self._writers.values():  # flushes them; the next use begins new files
            writer.close()
        self._writers.clear()
        for path in self._folder.glob("*/events.out.tfevents.*"):
            events = list(_events(path))
            kept = [
                event for event in events if _is_up_to(tf.compat.v1.Event.FromString(event), step)
            ]
            if len(kept) < len(events):
                files.replace(path, functools.partial(_write_events, kept))

    def flush(self) -> None:
        """Flushes all events to disk, where TensorBoard sees them."""
        for writer in self._writers.values():
            writer.flush()


class Silent(Summaries):
    """Writes nothing, because another process does."""

    def _writer(self, split: str) -> tf.summary.SummaryWriter:
        return tf.summary.create_noop_writer()

    def keep(self, step: int) -> None:
        """Drops nothing."""


def _plain(value: object) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float) else str(value)


def _events(path: Path) -> Iterator[bytes]:
    """Yields the complete records of an event file; a killed process may have cut off the last."""
    with contextlib.suppress(tf.errors.DataLossError):
        yield from tf.data.TFRecordDataset(str(path)).as_numpy_iterator()


def _is_up_to(event: tf.compat.v1.Event, step: int) -> bool:
    """Whether an event belongs to `step` or earlier; the header of a file always does."""
    return event.step <= step or event.HasField("file_version")


def _write_events(events: list[bytes], path: Path) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for event in events:
            writer.write(event)


def pictures_of_filters(model: keras.Model) -> dict[str, np.ndarray]:
    """Draws the first layer's filters, uint8 [H, W, C], by the names of `first_filters`."""
    grids = {}
    for name, kernel in first_filters(model).items():
        low, high = kernel.min(), kernel.max()
        scaled = 255 * (kernel - low) / max(high - low, 1e-12)
        pictures = np.moveaxis(scaled.astype(np.uint8), -1, 0)
        zoom = max(1, 48 // kernel.shape[0])
        grids[name] = grid(pictures.repeat(zoom, axis=1).repeat(zoom, axis=2))
    return grids


def first_filters(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns the kernels of the first convolution, split by the groups of the second.

    Returns:
        float32 [k, k, C, N] by name: "filters", or "filters/tower1", "filters/tower2", ... if
        the second convolution is grouped (AlexNet). Empty if there is no convolution.
    """
    layers = [layer for layer in model.layers if len(getattr(layer, "kernel", _NONE).shape) == 4]
    if not layers:
        return {}
    kernel = layers[0].kernel.numpy()
    towers = getattr(layers[1], "groups", 1) if len(layers) > 1 else 1
    if towers == 1:
        return {"filters": kernel}
    parts = np.split(kernel, towers, axis=-1)
    return {f"filters/tower{number}": part for number, part in enumerate(parts, 1)}


_NONE = np.zeros(())


def grid(images: np.ndarray) -> np.ndarray:
    """Arranges images in a nearly square grid, one black pixel apart.

    Args:
        images: uint8 [N, H, W, C].

    Returns:
        uint8 [rows * (H + 1), columns * (W + 1), C].
    """
    count, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = np.zeros((rows * columns, height + 1, width + 1, channels), np.uint8)
    sheet[:count, :height, :width] = images
    sheet = sheet.reshape(rows, columns, height + 1, width + 1, channels)
    return sheet.swapaxes(1, 2).reshape(rows * (height + 1), columns * (width + 1), channels)
