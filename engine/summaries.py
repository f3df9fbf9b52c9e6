"""What TensorBoard shows of a run: curves, pictures, flags and the graph."""

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
        """Opens both writers lazily: a run that fails early leaves no event files."""
        self._folder = folder
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def _writer(self, split: str) -> tf.summary.SummaryWriter:
        if split not in self._writers:
            self._writers[split] = tf.summary.create_file_writer(str(self._folder / split))
        return self._writers[split]

    def scalars(self, split: str, values: Mapping[str, float], step: int) -> None:
        """Adds a point to the curve of each name."""
        with self._writer(split).as_default(step):
            for name, value in values.items():
                tf.summary.scalar(name, value)

    def flags(self, flags: Mapping) -> None:
        """Shows the settings as a table, and for HParams, which puts runs side by side."""
        with self._writer("").as_default(0):  # of the whole run: its curves are in folders below
            hparams.hparams({name: _plain(value) for name, value in flags.items()})
        rows = [f"| {name} | {value} |" for name, value in sorted(flags.items())]
        with self._writer("train").as_default(0):
            tf.summary.text("flags", "\n".join(["| flag | value |", "|---|---|", *rows]))

    def graph(self, model: keras.Model) -> None:
        """Shows the network, as it runs on one image."""
        shape = (1, *model.input_shape[1:])

        @tf.function(autograph=False)
        def network(images):
            return model(images, training=False)

        concrete = network.get_concrete_function(tf.TensorSpec(shape, tf.float32))
        with self._writer("train").as_default(0):
            tf.summary.graph(concrete.graph)

    def images(self, name: str, images: np.ndarray, step: int) -> None:
        """Shows a batch as one picture.

        Args:
            name: The picture's.
            images: uint8 [N, H, W, C].
            step: Optimizer updates done.
        """
        with self._writer("train").as_default(step):
            tf.summary.image(name, grid(images)[np.newaxis])

    def pictures(self, split: str, pictures: Mapping[str, bytes], step: int) -> None:
        """Shows PNG or JPEG files under their names."""
        with self._writer(split).as_default(step):
            for name, picture in pictures.items():
                image = tf.io.decode_image(picture, channels=3, expand_animations=False)
                tf.summary.image(name, image[tf.newaxis])

    def histograms(self, kind: str, values: Mapping[str, np.ndarray], step: int) -> None:
        """Shows how numbers are distributed: those of each name."""
        with self._writer("train").as_default(step):
            for name, array in values.items():
                tf.summary.histogram(f"{kind}/{name}", array)

    def filters(self, model: keras.Model, step: int) -> None:
        """Shows the first layer's filters; those that feed different towers apart."""
        with self._writer("train").as_default(step):
            for name, picture in pictures_of_filters(model).items():
                tf.summary.image(name, picture[np.newaxis])

    def keep(self, step: int) -> None:
        """Drops what was added after a step, by a process that was killed: it comes again.

        Args:
            step: The last one to keep, in optimizer updates; -1 for none.
        """
        for writer in self._writers.values():  # what they hold is written; they begin new files
            writer.close()
        self._writers.clear()
        for path in self._folder.glob("*/events.out.tfevents.*"):
            events = list(_events(path))
            kept = [event for event in events if _is_of(tf.compat.v1.Event.FromString(event), step)]
            if len(kept) < len(events):
                files.replace(path, functools.partial(_write_events, kept))

    def flush(self) -> None:
        """Makes what was added visible to TensorBoard."""
        for writer in self._writers.values():
            writer.flush()


class Silent(Summaries):
    """Writes nothing: another process does."""

    def _writer(self, split: str) -> tf.summary.SummaryWriter:
        return tf.summary.create_noop_writer()

    def keep(self, step: int) -> None:
        """Drops nothing."""


def _plain(value: object) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float) else str(value)


def _events(path: Path) -> Iterator[bytes]:
    """The whole records of an event file; a process that was killed may have cut off the last."""
    with contextlib.suppress(tf.errors.DataLossError):
        yield from tf.data.TFRecordDataset(str(path)).as_numpy_iterator()


def _is_of(event: tf.compat.v1.Event, step: int) -> bool:
    """Whether an event is from a step or before it; what begins a file always is."""
    return event.step <= step or event.HasField("file_version")


def _write_events(events: list[bytes], path: Path) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for event in events:
            writer.write(event)


def pictures_of_filters(model: keras.Model) -> dict[str, np.ndarray]:
    """The first layer's filters as pictures, uint8 [H, W, C], by the names of `first_filters`."""
    found = {}
    for name, kernel in first_filters(model).items():
        low, high = kernel.min(), kernel.max()
        scaled = 255 * (kernel - low) / max(high - low, 1e-12)
        pictures = np.moveaxis(scaled.astype(np.uint8), -1, 0)
        zoom = max(1, 48 // kernel.shape[0])
        found[name] = grid(pictures.repeat(zoom, axis=1).repeat(zoom, axis=2))
    return found


def first_filters(model: keras.Model) -> dict[str, np.ndarray]:
    """The kernels of the first convolution, divided as the second one divides its input.

    Returns:
        float32 [k, k, C, N] by name: "filters", or "filters/tower1", "filters/tower2", ... where
        the second convolution is grouped and so sees them apart (AlexNet). Empty without one.
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
    """Lays images out in rows, as near to a square as they go, one pixel of black between them.

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
