"""Computes accuracy, calibration and confusions from predictions on labelled images.

Uses scikit-learn and SciPy where they have the figure. Sources: calibration error and temperature
are from C. Guo et al., arXiv:1706.04599, sections 2 and 4.2; the interval is Wilson's (1927); two
networks are compared by McNemar's exact test (1947).
"""

import dataclasses
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats
import sklearn.metrics

BINS = 15  # bins of confidence
_TEMPERATURES = (0.05, 20.0)  # bounds of the search


class Interval(NamedTuple):
    """A fraction with the bounds of its 95 % confidence interval."""

    value: float
    low: float
    high: float


class Bin(NamedTuple):
    """Images whose top predictions have similar probabilities.

    Attributes:
        examples: Number of images.
        confidence: Mean probability of the top predictions; 0 in an empty bin.
        accuracy: Fraction of correct predictions; 0 in an empty bin.
    """

    examples: int
    confidence: float
    accuracy: float


class Comparison(NamedTuple):
    """A comparison of two networks on the same images.

    Attributes:
        only_first: Number of images that only the first network classifies correctly.
        only_second: Number of images that only the second network classifies correctly.
        p_value: Probability, by McNemar's exact test, of a difference at least as large if both
            networks are equally accurate.
    """

    only_first: int
    only_second: int
    p_value: float


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Predictions of a network for labelled images.

    Attributes:
        log_probabilities: Logarithms of the class probabilities, float32 [N, K].
        labels: Labels, int32 [N] in 0..K - 1.
        filenames: File names of the N images.
        class_names: Names of the K classes.
    """

    log_probabilities: np.ndarray
    labels: np.ndarray
    filenames: Sequence[str]
    class_names: Sequence[str]

    @property
    def predicted(self) -> np.ndarray:
        """The likeliest class of every image, int64 [N]."""
        return self.log_probabilities.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """The probability of the likeliest class, float64 [N]."""
        return np.exp(self.log_probabilities.max(axis=1).astype(np.float64))

    @property
    def is_right(self) -> np.ndarray:
        """Whether the likeliest class is the label, bool [N]."""
        return self.predicted == self.labels

    def in_top(self, k: int) -> np.ndarray:
        """Whether fewer than k classes are likelier than the label, bool [N].

        Of equally likely ones, the first counts as the likelier, as in `predicted`.
        """
        labels = self.labels[:, np.newaxis]
        own = np.take_along_axis(self.log_probabilities, labels, axis=1)
        is_before = np.arange(self.log_probabilities.shape[1]) < labels
        is_likelier = (self.log_probabilities > own) | ((self.log_probabilities == own) & is_before)
        return is_likelier.sum(axis=1) < k

    def at(self, temperature: float) -> "Predictions":
        """Returns the predictions with the logits divided by a temperature."""
        scaled = self.log_probabilities / np.float32(temperature)
        return dataclasses.replace(
            self, log_probabilities=scipy.special.log_softmax(scaled, axis=1)
        )


def save(predictions: Predictions, path: Path) -> None:
    """Writes predictions as an npz file, which `load` reads.

    Raises:
        OSError: If the file cannot be written.
    """
    columns = {field.name: getattr(predictions, field.name) for field in _FIELDS}
    columns["filenames"] = np.array(columns["filenames"], np.str_)
    columns["class_names"] = np.array(columns["class_names"], np.str_)
    with open(path, "wb") as file:
        np.savez_compressed(file, **columns)


def load(path: Path) -> Predictions:
    """Reads predictions that `save` wrote.

    Raises:
        ValueError: If the file is damaged.
        OSError: If the file cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            columns = {field.name: file[field.name] for field in _FIELDS}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error!r}; test.py writes it anew") from error
    names = {name: columns[name].tolist() for name in ("filenames", "class_names")}
    return Predictions(**{**columns, **names})


_FIELDS = dataclasses.fields(Predictions)


def fraction(hits: np.ndarray) -> Interval:
    """Returns the fraction of true elements in bool [N], with its 95 % confidence interval."""
    interval = scipy.stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return Interval(float(hits.mean()), float(interval.low), float(interval.high))


def confusion(predictions: Predictions) -> np.ndarray:
    """Returns the confusion matrix, int64 [K, K], with a row per label."""
    classes = range(len(predictions.class_names))
    return sklearn.metrics.confusion_matrix(
        predictions.labels, predictions.predicted, labels=classes
    )


def per_class(predictions: Predictions) -> list[dict]:
    """Returns a row per class: class, examples, precision, recall, f1 (fractions; 0 if undefined).

    The last row holds the means over the classes that occur.
    """
    columns = sklearn.metrics.precision_recall_fscore_support(
        predictions.labels,
        predictions.predicted,
        labels=range(len(predictions.class_names)),
        zero_division=0.0,
    )
    rows = [
        {"class": name, "examples": int(count), "precision": p, "recall": r, "f1": f}
        for name, p, r, f, count in zip(predictions.class_names, *columns, strict=True)
    ]
    seen = [row for row in rows if row["examples"]]
    means = {name: float(np.mean([row[name] for row in seen])) for name in _PER_CLASS}
    return [*rows, {"class": "(mean)", "examples": len(predictions.labels), **means}]


_PER_CLASS = ("precision", "recall", "f1")


def confusions(predictions: Predictions, count: int) -> list[tuple[str, str, int]]:
    """Returns the most confused pairs of classes: label, prediction, count."""
    matrix = confusion(predictions)
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:count]
    pairs = zip(*np.unravel_index(order, matrix.shape), strict=True)
    names = predictions.class_names
    return [(names[i], names[j], int(matrix[i, j])) for i, j in pairs if matrix[i, j]]


def mistakes(predictions: Predictions, count: int) -> list[int]:
    """Returns the indices of the most confident wrong predictions."""
    wrong = np.flatnonzero(~predictions.is_right)
    order = np.argsort(-predictions.confidence[wrong], kind="stable")[:count]
    return wrong[order].tolist()


def reliability(predictions: Predictions) -> list[Bin]:
    """Returns confidence and accuracy of the top predictions in `BINS` equal bins of confidence."""
    confidence, right = predictions.confidence, predictions.is_right
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return [
        Bin(len(inside), float(confidence[inside].mean()), float(right[inside].mean()))
        if len(inside := np.flatnonzero(bins == number))
        else Bin(0, 0.0, 0.0)
        for number in range(BINS)
    ]


def calibration_error(predictions: Predictions) -> float:
    """Returns the expected calibration error (ECE), a fraction."""
    gaps = [
        each.examples * abs(each.confidence - each.accuracy) for each in reliability(predictions)
    ]
    return sum(gaps) / len(predictions.labels)


def loss(predictions: Predictions) -> float:
    """Returns the mean cross entropy in nats."""
    label_column = np.take_along_axis(
        predictions.log_probabilities, predictions.labels[:, np.newaxis], 1
    )
    return -float(label_column.mean(dtype=np.float64))


def temperature(predictions: Predictions) -> float:
    """Fits the divisor of the logits that gives the lowest loss on these images."""
    minimum = scipy.optimize.minimize_scalar(
        lambda log: loss(predictions.at(np.exp(log))),
        bounds=np.log(_TEMPERATURES),
        method="bounded",
    )
    return float(np.exp(minimum.x))


def ensemble(members: Sequence[Predictions]) -> Predictions:
    """Averages the probabilities of the members.

    Raises:
        ValueError: If the members were tested on different images.
    """
    first, *others = members
    for other in others:
        require_same(first, other)
    stacked = np.stack([member.log_probabilities for member in members])
    mean = scipy.special.logsumexp(stacked, axis=0) - np.log(len(members))
    return dataclasses.replace(first, log_probabilities=mean.astype(np.float32))


def compare(first: Predictions, second: Predictions) -> Comparison:
    """Compares two networks on the same images.

    Raises:
        ValueError: If the networks were tested on different images.
    """
    require_same(first, second)
    counts = [
        int((a & ~b).sum())
        for a, b in ((first.is_right, second.is_right), (second.is_right, first.is_right))
    ]
    differ = sum(counts)
    p_value = scipy.stats.binomtest(counts[0], differ).pvalue if differ else 1.0
    return Comparison(*counts, float(p_value))


def require_same(first: Predictions, second: Predictions) -> None:
    """Raises ValueError if two predictions differ in images, labels or classes."""
    same = (
        list(first.class_names) == list(second.class_names)
        and list(first.filenames) == list(second.filenames)
        and np.array_equal(first.labels, second.labels)
    )
    if not same:
        raise ValueError(
            "the runs were tested on different images: expected the same, in the same order"
        )
