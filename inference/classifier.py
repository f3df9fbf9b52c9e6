"""Classifies images and videos with a trained network, with heat maps and features on request."""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf

from data import pipeline
from data.images import video, workers
from data.images.decode import Stored
from data.pipeline import ahead, views
from data.sources import sources
from engine.evaluator import averaged, outputs
from inference import grad_cam, loading
from models.tools import graphs
from report import overlay

BATCH_SIZE = 64  # views
_AHEAD = 2  # batches
_CHUNK_SIZE = 8  # images that a process decodes at a time

Image = sources.Example | sources.Upload


@dataclasses.dataclass(frozen=True)
class Answer:
    """A network's answer to an image or video frame, or the error if it could not be read.

    Attributes:
        image: Name of the image or video.
        frame: Number of the frame; None for images.
        seconds: Time of the frame from the beginning of the video; None for images.
        error: Reason why the image could not be read; then the following attributes are None.
        views: Input of the network, uint8 [V, S, S, 3].
        probabilities: Class probabilities, float32 [K].
        features: Input of the network's classifier, float32 [D], averaged over the views.
        heat: Grad-CAM of the central view for the top class, float32 [h, w] in 0..1.
    """

    image: str
    frame: int | None = None
    seconds: float | None = None
    error: str | None = None
    views: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    features: np.ndarray | None = None
    heat: np.ndarray | None = None

    @property
    def label(self) -> int:
        """The likeliest class."""
        return int(self.probabilities.argmax())

    @property
    def view(self) -> np.ndarray:
        """The central view, uint8 [S, S, 3]."""
        return self.views[views.centre(len(self.views))]


class Classifier:
    """A network and its pool of decoding processes, which end when the context is left."""

    def __init__(
        self,
        network: loading.Trained,
        *,
        processes: int,
        crops: int = 1,
        top_k: int = 5,
        threshold: float | None = None,
        every: int | None = None,
        explains: bool = False,
        features: bool = False,
    ) -> None:
        """Builds the prediction function and starts the decoding processes.

        Args:
            network: Trained network.
            processes: Number of decoding processes.
            crops: Views per image, a key of `views.VIEWS`.
            top_k: Number of classes per image.
            threshold: Probability of the top class below which an answer is marked as unsure
                (default: no marks).
            every: Classify every Nth frame of a video (default: one per second).
            explains: Whether to compute heat maps.
            features: Whether to return the input of the network's classifier.
        """
        self._network, self._crops, self._top_k = network, crops, top_k
        self._threshold, self._every = threshold, every
        self._model, self._cam_model = network.model, None
        logits = {"logits": network.model.output["logits"]}
        if features:
            classifier_input = graphs.classifier_input(network.model)
            self._model = keras.Model(network.model.input, {**logits, "features": classifier_input})
        if explains:
            maps = graphs.last_maps(network.model)
            self._cam_model = keras.Model(network.model.input, {**logits, "maps": maps})
        size = network.model.input_shape[1]
        signature = tf.TensorSpec([None, len(views.VIEWS[crops]), size, size, 3], tf.uint8)
        self._predict = tf.function(
            self._predict_graph, input_signature=[signature], autograph=False
        )
        self._batch_size = max(1, BATCH_SIZE // crops)
        self._closed = False
        self._pool = workers.WorkerPool(processes, chunk_size=_CHUNK_SIZE)

    def __enter__(self) -> "Classifier":
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Ends the decoding processes."""
        self._closed = True
        self._pool.close()

    @property
    def network(self) -> loading.Trained:
        """The trained network."""
        return self._network

    def answers(self, images: Iterable[Image | None]) -> Iterator[Answer]:
        """Yields an answer for every image and every selected video frame, in order.

        Untrusted image files are decoded in separate processes, as in a conversion, while the
        network computes.

        Args:
            images: Images, and None while the next image is not available yet. The first None
                flushes the incomplete batch; later ones allow this generator to be closed.
        """
        with contextlib.closing(ahead.ahead(self._batches(images), _AHEAD)) as batches:
            for answers, view_batch in batches:
                yield from self._predicted(answers, view_batch)

    def _batches(
        self, images: Iterable[Image | None]
    ) -> Iterator[tuple[list[Answer], np.ndarray | None]]:
        """Yields answers without predictions, and the views of the readable images among them."""
        images = iter(images)
        for first in images:
            if self._closed:
                return
            if first is None:
                continue
            available = itertools.takewhile(lambda image: image is not None, images)
            decoded = self._decoded(itertools.chain([first], available))
            while batch := list(itertools.islice(decoded, self._batch_size)):
                stored = [each for _, each in batch if each]
                yield [answer for answer, _ in batch], self._views(stored)

    def _decoded(self, images: Iterable[Image]) -> Iterator[tuple[Answer, Stored | None]]:
        storage = self._network.storage
        for are_videos, group in itertools.groupby(images, video.is_video):
            if are_videos:
                for image in group:
                    for frame in video.frames(image.path, storage, self._every):
                        if self._closed:  # decoding an unwanted rest of a video may take minutes
                            return
                        yield _frame_answer(image.name, frame)
            else:
                originals, inputs = itertools.tee(group)
                for stored, image in zip(
                    self._pool.prepared(inputs, storage), originals, strict=True
                ):
                    yield _image_answer(Answer(image.name), stored)

    def _views(self, stored: list[Stored]) -> np.ndarray | None:
        """Returns a batch, padded to few different sizes because a device compiles for each.

        Returns:
            uint8 [B, V, S, S, 3], where B is a power of two and copies of the last image fill the
            end, or None for no images.
        """
        if not stored:
            return None
        missing = (1 << (len(stored) - 1).bit_length()) - len(stored)
        size = self._network.model.input_shape[1]
        return pipeline.views_of(stored + stored[-1:] * missing, size=size, crops=self._crops)

    def _predicted(self, answers: list[Answer], view_batch: np.ndarray | None) -> Iterator[Answer]:
        if view_batch is None:
            yield from answers
            return
        columns = {"views": view_batch, **self.predict(view_batch)}
        rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
        for answer in answers:
            yield answer if answer.error else dataclasses.replace(answer, **next(rows))

    def predict(self, view_batch: np.ndarray) -> dict[str, np.ndarray]:
        """Maps views uint8 [B, V, S, S, 3] to batches of the attributes of `Answer`, by name."""
        return {name: column.numpy() for name, column in self._predict(view_batch).items()}

    def _predict_graph(self, view_batch: tf.Tensor) -> dict[str, tf.Tensor]:
        weights = views.weights(self._crops)
        heads = outputs(self._model, view_batch)
        logits = tf.cast(heads["logits"], tf.float32)
        columns = {"probabilities": tf.exp(averaged(logits, weights, self._network.temperature))}
        if "features" in heads:
            flat = [tf.shape(view_batch)[0], len(weights), np.prod(heads["features"].shape[1:])]
            features = tf.reshape(tf.cast(heads["features"], tf.float32), flat)
            columns["features"] = tf.tensordot(features, tf.constant(weights), [[1], [0]])
        if self._cam_model:
            centre = tf.cast(view_batch[:, views.centre(self._crops)], tf.float32)
            labels = tf.argmax(columns["probabilities"], axis=-1)
            columns["heat"] = grad_cam.grad_cam(self._cam_model, centre, labels)
        return columns

    def described(self, answer: Answer) -> dict:
        """Converts an answer to JSON: `{"image", "predictions"}` or `{"image", "error"}`.

        Videos add "frame" and "seconds", and a threshold adds "unsure".
        """
        result = {"image": answer.image}
        if answer.frame is not None:
            result |= {"frame": answer.frame, "seconds": answer.seconds}
        if answer.error:
            return result | {"error": answer.error}
        best = np.argsort(-answer.probabilities, kind="stable")[: self._top_k]
        result["predictions"] = [
            {"class": self.name_of(label), "probability": float(answer.probabilities[label])}
            for label in best
        ]
        if self._threshold is not None:
            result["unsure"] = bool(answer.probabilities[answer.label] < self._threshold)
        return result

    def name_of(self, label: int) -> str:
        """Returns the name of a class."""
        return self._network.class_names[label]


def explanation(answer: Answer) -> bytes:
    """Returns a PNG of the central view, overlaid with the heat map of the top class."""
    return overlay.png(overlay.overlay(answer.view, answer.heat))


def _frame_answer(name: str, frame: video.Frame | workers.Rejected) -> tuple[Answer, Stored | None]:
    if isinstance(frame, workers.Rejected):
        return Answer(name, error=frame.reason), None
    return Answer(name, frame.number, frame.seconds), frame.stored


def _image_answer(
    answer: Answer, stored: Stored | workers.Rejected
) -> tuple[Answer, Stored | None]:
    if isinstance(stored, workers.Rejected):
        return dataclasses.replace(answer, error=stored.reason), None
    return answer, stored
