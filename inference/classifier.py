"""A trained network that names what is in images and videos, explains itself and makes features."""

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
_TOGETHER = 8  # images that one process decodes before another gets some
_CENTRE = {1: 0, 2: 0, 5: 4, 10: 4}  # of the views, by their number

Image = sources.Example | sources.Upload


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a network says of an image, or why it says nothing.

    Attributes:
        image: Its name.
        frame: Its number, of a video.
        seconds: Since the beginning, of a video.
        error: Why there is nothing below.
        views: uint8 [V, S, S, 3], what the network saw.
        probabilities: float32 [K].
        features: float32 [D], what its classifier got, the mean over the views.
        heat: float32 [h, w] in 0..1, which places of the central view speak for the first class.
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
        return self.views[_CENTRE[len(self.views)]]


class Classifier:
    """A network and the processes that decode for it; they end when it is left as a context."""

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
        """Starts the processes.

        Args:
            network: Names the images.
            processes: How many decode.
            crops: Views of each image, a key of `views.VIEWS`.
            top_k: How many classes to name.
            threshold: Probability below which the network is called unsure; None for never.
            every: Of so many frames of a video the first; None for one frame of every second.
            explains: Whether to say why.
            features: Whether to keep what the network's classifier gets.
        """
        self._network, self._crops, self._top_k = network, crops, top_k
        self._threshold, self._every = threshold, every
        self._model, self._explained = network.model, None
        logits = {"logits": network.model.output["logits"]}
        if features:
            before = graphs.classifier_input(network.model)
            self._model = keras.Model(network.model.input, {**logits, "features": before})
        if explains:
            maps = graphs.last_maps(network.model)
            self._explained = keras.Model(network.model.input, {**logits, "maps": maps})
        size = network.model.input_shape[1]
        seen = tf.TensorSpec([None, len(views.VIEWS[crops]), size, size, 3], tf.uint8)
        self._predict = tf.function(self._predict_graph, input_signature=[seen], autograph=False)
        self._batch_size = max(1, BATCH_SIZE // crops)
        self._closed = False
        self._crew = workers.Crew(processes, together=_TOGETHER)

    def __enter__(self) -> "Classifier":
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Ends the processes."""
        self._closed = True
        self._crew.close()

    @property
    def network(self) -> loading.Trained:
        """Which names the images."""
        return self._network

    def answers(self, images: Iterable[Image | None]) -> Iterator[Answer]:
        """An answer for every image, and for some frames of every video, in order.

        Strangers' files are decoded in processes of their own, as in a conversion, while the
        network works.

        Args:
            images: May keep one waiting: a None, where the next one is not there yet, has those
                before it answered meanwhile; further ones let the waiting end when this is left.
        """
        with contextlib.closing(ahead.ahead(self._batches(images), _AHEAD)) as batches:
            for answers, seen in batches:
                yield from self._answered(answers, seen)

    def _batches(
        self, images: Iterable[Image | None]
    ) -> Iterator[tuple[list[Answer], np.ndarray | None]]:
        """Answers without what the network says, and the views of those that are readable."""
        images = iter(images)
        for first in images:
            if self._closed:
                return
            if first is None:
                continue
            burst = itertools.takewhile(lambda image: image is not None, images)
            shown = self._shown(itertools.chain([first], burst))
            while some := list(itertools.islice(shown, self._batch_size)):
                stored = [each for _, each in some if each]
                yield [answer for answer, _ in some], self._views(stored)

    def _shown(self, images: Iterable[Image]) -> Iterator[tuple[Answer, Stored | None]]:
        storage = self._network.storage
        for moving, group in itertools.groupby(images, video.is_video):
            if moving:
                for image in group:
                    for frame in video.frames(image.path, storage, self._every):
                        if self._closed:  # nobody waits for the rest, which may take minutes
                            return
                        yield _of_frame(image.name, frame)
            else:
                named, read = itertools.tee(group)
                for stored, image in zip(self._crew.prepared(read, storage), named, strict=True):
                    yield _begun(Answer(image.name), stored)

    def _views(self, stored: list[Stored]) -> np.ndarray | None:
        """One batch; of its sizes there are few, because a device prepares itself for each.

        Returns:
            uint8 [B, V, S, S, 3], B a power of two, copies of the last one at the end; None of
            none.
        """
        if not stored:
            return None
        missing = (1 << (len(stored) - 1).bit_length()) - len(stored)
        size = self._network.model.input_shape[1]
        return pipeline.views_of(stored + stored[-1:] * missing, size=size, crops=self._crops)

    def _answered(self, answers: list[Answer], seen: np.ndarray | None) -> Iterator[Answer]:
        if seen is None:
            yield from answers
            return
        found = {"views": seen, **self.predict(seen)}
        rows = (dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True))
        for answer in answers:
            yield answer if answer.error else dataclasses.replace(answer, **next(rows))

    def predict(self, seen: np.ndarray) -> dict[str, np.ndarray]:
        """The columns of the answers, by their names, from views uint8 [B, V, S, S, 3]."""
        return {name: column.numpy() for name, column in self._predict(seen).items()}

    def _predict_graph(self, seen: tf.Tensor) -> dict[str, tf.Tensor]:
        count = seen.shape[1]
        heads = outputs(self._model, seen)
        logits = tf.cast(heads["logits"], tf.float32)
        found = {"probabilities": tf.exp(averaged(logits, count, self._network.temperature))}
        if "features" in heads:
            flat = [tf.shape(seen)[0], count, np.prod(heads["features"].shape[1:])]
            features = tf.reshape(tf.cast(heads["features"], tf.float32), flat)
            found["features"] = tf.reduce_mean(features, axis=1)
        if self._explained:
            centre = tf.cast(seen[:, _CENTRE[count]], tf.float32)
            labels = tf.argmax(found["probabilities"], axis=-1)
            found["heat"] = grad_cam.grad_cam(self._explained, centre, labels)
        return found

    def described(self, answer: Answer) -> dict:
        """The answer for programs: `{"image", "predictions"}` or `{"image", "error"}`, and more.

        That is "frame" and "seconds" of videos, and "unsure" with a threshold.
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
        """The name of a class."""
        return self._network.class_names[label]


def explanation(answer: Answer) -> bytes:
    """A PNG of what speaks for the answer's first class, on what the network saw."""
    return overlay.png(overlay.overlay(answer.view, answer.heat))


def _of_frame(name: str, frame: video.Frame | workers.Rejected) -> tuple[Answer, Stored | None]:
    if isinstance(frame, workers.Rejected):
        return Answer(name, error=frame.reason), None
    return Answer(name, frame.number, frame.seconds), frame.stored


def _begun(answer: Answer, stored: Stored | workers.Rejected) -> tuple[Answer, Stored | None]:
    if isinstance(stored, workers.Rejected):
        return dataclasses.replace(answer, error=stored.reason), None
    return answer, stored
