"""Tests a trained network, reports the figures and writes them into the run folder."""

import csv
import dataclasses
import functools
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from data.pipeline import views
from engine import summaries
from engine.evaluator import Evaluator, averaged
from inference import loading, testsets, whole_images
from report import plots, scores
from runtime import files

FOLDER = "test"  # subfolder of the run folder for all files except test.json
MISTAKES = 24  # most confident wrong predictions, kept as pictures
PAIRS = 5  # most confused pairs of classes, printed on the console
_THUMBNAIL = 256  # pixels of the longer side


@dataclasses.dataclass(frozen=True)
class TestSettings:
    """Settings of a test.

    Attributes:
        split: Name of the split in test.json.
        data: Path of the images; None for the data of the run.
        crops: Views per image, a key of `views.VIEWS`.
        dense: Whether the network is applied convolutionally to whole images.
        batch_size: Images per batch and replica.
        threads: Number of CPU threads.
        replicas: Number of replicas.
        is_own_validation: Whether the test repeats the validation of training, with the same
            images and views; a temperature is fitted only then.
    """

    split: str
    data: str | None
    crops: int
    dense: bool
    batch_size: int
    threads: int
    replicas: int
    is_own_validation: bool


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Results of a test.

    Attributes:
        predictions: Predictions for all images.
        images_per_second: Throughput after the first batch, reading included.
        temperature: Divisor of the logits that calibrates the network; 1 if unknown.
    """

    predictions: scores.Predictions
    images_per_second: float
    temperature: float


def test(
    networks: Sequence[loading.Trained],
    sizes: Sequence[int],
    images: testsets.TestSet,
    settings: TestSettings,
    strategy: tf.distribute.Strategy,
) -> Outcome:
    """Tests a network at one or several image sizes, averaging the probabilities over the sizes.

    Args:
        networks: The network, built for each of the sizes.
        sizes: Sides of the views, or shorter sides of whole images, in pixels.
        images: Labelled images.
        settings: Settings of the test.
        strategy: Strategy in whose scope the networks were built.

    Raises:
        ValueError: If no image could be read.
    """
    members, speed = [], _Throughput()
    for network, size in zip(networks, sizes, strict=True):
        if settings.dense:
            results = _predict_whole_images(
                network, images.whole(size), mirrored=settings.crops == 2
            )
        else:
            batches = images.batches(
                size=size,
                crops=settings.crops,
                batch_size=settings.batch_size,
                threads=settings.threads,
                replicas=settings.replicas,
            )
            weights = views.weights(settings.crops)
            results = Evaluator(strategy, network.model, weights).predictions(batches)
        columns = [np.concatenate(column) for column in zip(*speed.timed(results), strict=True)]
        if not columns:
            raise ValueError(f"no image of {images.name} could be read")
        members.append(scores.Predictions(*columns, images.filenames(), network.class_names))
    predictions = scores.ensemble(members) if len(members) > 1 else members[0]
    first = networks[0]
    fits_temperature = settings.is_own_validation and not predictions.is_right.all()
    is_one_view = settings.crops == 1 and len(networks) == 1 and not settings.dense
    temperature = first.temperature if is_one_view else 1.0  # it was fitted to single views
    if fits_temperature:
        temperature = scores.temperature(predictions)
    return Outcome(predictions, speed.images_per_second, temperature)


def _predict_whole_images(
    network: loading.Trained, images: Iterable[tuple[np.ndarray, int]], *, mirrored: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the log probabilities [1, K] and the label [1] of each image."""
    model = whole_images.dense(network.model)

    @functools.partial(tf.function, autograph=False, reduce_retracing=True)
    def predict(both):
        logits = model(tf.cast(both, tf.float32), training=False)["logits"]
        return averaged(logits, weights)

    weights = views.weights(2 if mirrored else 1)
    for image, label in images:
        both = np.stack([image, image[:, ::-1]][: len(weights)])
        yield predict(tf.constant(both)).numpy(), np.int32([label])


class _Throughput:
    """Measures throughput, except that of first batches, which include compilation."""

    def __init__(self) -> None:
        self._first, self._images, self._seconds = 0.0, 0, 0.0

    def timed(self, results: Iterable) -> Iterator:
        """Yields the results (predictions [n, K], labels [n]) and measures the time they take."""
        began = time.perf_counter()
        for number, result in enumerate(results):
            passed = time.perf_counter() - began
            if number:
                self._images, self._seconds = self._images + len(result[1]), self._seconds + passed
            else:
                self._first += len(result[1]) / passed
            yield result
            began = time.perf_counter()

    @property
    def images_per_second(self) -> float:
        """Throughput after the first batch, or of the first batch if there is no other."""
        return self._images / self._seconds if self._images else self._first


def compute_figures(
    network: loading.Trained, outcome: Outcome, settings: TestSettings, sizes: Sequence[int]
) -> dict:
    """Computes the content of test.json."""
    predictions = outcome.predictions
    top1, top5 = (scores.fraction(predictions.in_top(k)) for k in (1, 5))
    *_, mean = scores.per_class(predictions)
    return {
        "top1_accuracy": top1.value,
        "top5_accuracy": top5.value,
        "examples": len(predictions.labels),
        "crops": settings.crops,
        "dense": settings.dense,
        "checkpoint": network.name,
        "split": settings.split,
        "data": settings.data,
        "image_size": list(sizes) if len(sizes) > 1 else sizes[0],
        "top1_interval": [top1.low, top1.high],
        "top5_interval": [top5.low, top5.high],
        "loss": scores.loss(predictions),
        "mean_precision": mean["precision"],
        "mean_recall": mean["recall"],
        "mean_f1": mean["f1"],
        "calibration_error": scores.calibration_error(predictions),
        "temperature": outcome.temperature,
        "calibrated_error": scores.calibration_error(predictions.at(outcome.temperature)),
        "images_per_second": outcome.images_per_second,
        "digest": network.digest,
        "command": sys.argv,
    }


def lines(figures: dict, predictions: scores.Predictions) -> Iterator[str]:
    """Yields the lines for the console; scripts parse the last one."""
    intervals = [
        f"{name} {100 * low:.2f} to {100 * high:.2f} %"
        for name, (low, high) in (
            ("top-1", figures["top1_interval"]),
            ("top-5", figures["top5_interval"]),
        )
    ]
    yield f"95 % intervals: {', '.join(intervals)}"
    yield (
        f"mean over the classes: precision {100 * figures['mean_precision']:.2f} %, recall "
        f"{100 * figures['mean_recall']:.2f} %, F1 {100 * figures['mean_f1']:.2f} %"
    )
    calibrated, temperature = "", figures["temperature"]
    if temperature != 1:
        error = 100 * figures["calibrated_error"]
        calibrated = f"; with temperature {temperature:.3f}: {error:.2f} %"
    yield f"calibration error {100 * figures['calibration_error']:.2f} %{calibrated}"
    if pairs := scores.confusions(predictions, PAIRS):
        confused = ", ".join(f"{label} as {guess} ({count})" for label, guess, count in pairs)
        yield f"most confused: {confused}"
    yield f"{figures['images_per_second']:,.0f} images/s"
    yield accuracies(figures)


def accuracies(figures: dict) -> str:
    """Formats the line with both accuracies."""
    return (
        f"top-1 {100 * figures['top1_accuracy']:.2f} %  "
        f"top-5 {100 * figures['top5_accuracy']:.2f} %  (n = {figures['examples']})"
    )


def compared(names: Sequence[str], outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yields a line for each pair of networks and one for their ensemble.

    Networks that were tested on different images are not compared; a single line says so.
    """
    predictions = [outcome.predictions for outcome in outcomes]
    try:
        ensemble = scores.ensemble(predictions)
    except ValueError as error:
        yield f"not compared: {error}"
        return
    for second in range(1, len(names)):
        for first in range(second):
            comparison = scores.compare(predictions[first], predictions[second])
            yield (
                f"{names[first]} against {names[second]}: {comparison.only_first} images only the "
                f"first gets right, {comparison.only_second} only the second; "
                f"p = {comparison.p_value:.3g} (McNemar)"
            )
    top1, top5 = (scores.fraction(ensemble.in_top(k)) for k in (1, 5))
    figures = {"top1_accuracy": top1.value, "top5_accuracy": top5.value}
    yield f"ensemble of {len(names)}: {accuracies({**figures, 'examples': len(ensemble.labels)})}"


def write(
    network: loading.Trained, figures: dict, outcome: Outcome, images: testsets.TestSet
) -> None:
    """Writes the results of a test into the folder of the network's run.

    Args:
        network: Network that was tested, which belongs to a run.
        figures: Figures for test.json.
        outcome: Predictions and temperature.
        images: Images that were tested on, for pictures of the mistakes.

    Raises:
        OSError: If a file cannot be written.
    """
    predictions, folder = outcome.predictions, network.folder
    subfolder = folder / FOLDER
    subfolder.mkdir(exist_ok=True)
    files.replace(subfolder / "predictions.npz", functools.partial(scores.save, predictions))
    _write_csv(subfolder / "predictions.csv", *_table(_rows(predictions)))
    _write_csv(subfolder / "classes.csv", *_table(scores.per_class(predictions)))
    matrix = scores.confusion(predictions)
    names = predictions.class_names
    rows = ([name, *row] for name, row in zip(names, matrix, strict=True))
    _write_csv(subfolder / "confusion_matrix.csv", ["label", *names], rows)
    before = scores.reliability(predictions)
    after = scores.reliability(predictions.at(outcome.temperature))
    charts = {
        "confusion_matrix": plots.confusion(matrix, names),
        "reliability": plots.reliability(before, after if outcome.temperature != 1 else None),
    }
    for name, picture in charts.items():
        (subfolder / f"{name}.png").write_bytes(picture)
    _write_mistakes(subfolder / "mistakes", predictions, images)
    _write_summaries(folder, figures, charts, network.step)
    files.write(folder / "test.json", f"{json.dumps(figures, indent=2)}\n".encode())


def write_temperature(folder: Path, figures: dict) -> None:
    """Writes the temperature to the file that `loading.open_network` reads."""
    keys = ("temperature", "digest", "split", "examples", "calibration_error", "calibrated_error")
    text = json.dumps({name: figures[name] for name in keys}, indent=2)
    files.write(folder / loading.CALIBRATION, f"{text}\n".encode())


def _rows(predictions: scores.Predictions) -> Iterator[dict]:
    names = predictions.class_names
    columns = (
        predictions.filenames,
        predictions.labels,
        predictions.predicted,
        predictions.confidence,
    )
    for filename, label, predicted, confidence in zip(*columns, strict=True):
        yield {
            "filename": filename,
            "label": names[label],
            "prediction": names[predicted],
            "probability": f"{confidence:.6f}",
        }


def _table(rows: Iterable[dict]) -> tuple[list, list]:
    """Converts rows to a header and lists of cells."""
    rows = list(rows)
    return list(rows[0]), [list(row.values()) for row in rows]


def _write_csv(path: Path, header: Sequence, rows: Iterable[Sequence]) -> None:
    with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        csv.writer(file).writerows([header, *rows])


def _write_mistakes(
    folder: Path, predictions: scores.Predictions, images: testsets.TestSet
) -> None:
    """Writes pictures of the most confident wrong predictions, and a list of them as JSON."""
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.jpg"):
        path.unlink()
    positions = scores.mistakes(predictions, MISTAKES)
    rows = list(_rows(predictions))
    entries = []
    for number, (position, picture) in enumerate(
        zip(positions, images.pictures(positions), strict=True)
    ):
        name = f"{number:02d}.jpg"
        (folder / name).write_bytes(testsets.thumbnail(picture, _THUMBNAIL))
        entries.append({"picture": name, **rows[position]})
    (folder / "mistakes.json").write_text(json.dumps(entries, indent=1) + "\n")


def _write_summaries(folder: Path, figures: dict, charts: dict[str, bytes], step: int) -> None:
    board = summaries.Summaries(folder)
    names = ("top1_accuracy", "top5_accuracy", "loss", "calibration_error")
    board.scalars(FOLDER, {name: figures[name] for name in names}, step)
    mistakes = sorted((folder / FOLDER / "mistakes").glob("*.jpg"))
    mistake_pictures = {f"mistakes/{path.stem}": path.read_bytes() for path in mistakes}
    board.pictures(FOLDER, charts | mistake_pictures, step)
    board.flush()
