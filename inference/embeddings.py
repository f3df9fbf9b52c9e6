"""Writes the features of images, the input of the network's classifier, to an .npz file."""

import dataclasses
import functools
import os
from pathlib import Path

import numpy as np

from inference.classifier import Answer
from runtime import files


class Embeddings:
    """Collects the features of images and writes them to one file at the end."""

    def __init__(self, path: str | os.PathLike, class_names: list[str]) -> None:
        """Checks that the file can be written.

        Args:
            path: Path of the .npz file, which is created or replaced.
            class_names: Names of all classes.

        Raises:
            FileNotFoundError: If the folder of the file does not exist.
            PermissionError: If the file cannot be written there.
        """
        self._path, self._class_names = Path(path), class_names
        self._answers: list[Answer] = []
        if not self._path.parent.is_dir():
            raise FileNotFoundError(f"--features: there is no folder {self._path.parent}")
        if self._path.is_dir() or not os.access(self._path.parent, os.W_OK):
            raise PermissionError(f"--features: {self._path} cannot be written")

    def add(self, answer: Answer) -> None:
        """Adds the features and the prediction of an answer, unless the image was unreadable."""
        if not answer.error:
            self._answers.append(dataclasses.replace(answer, views=None, heat=None))

    def write(self) -> None:
        """Writes the file atomically.

        Raises:
            OSError: If the file cannot be written.
        """
        files.replace(self._path, self._save)

    def _save(self, path: Path) -> None:
        answers = self._answers
        stacked = functools.partial(np.array, dtype=np.float32)
        with open(path, "wb") as file:
            np.savez(
                file,
                features=stacked([answer.features for answer in answers]),
                probabilities=stacked([answer.probabilities for answer in answers]),
                images=np.array([answer.image for answer in answers], dtype=np.str_),
                frames=np.array(
                    [-1 if answer.frame is None else answer.frame for answer in answers], np.int64
                ),
                predictions=np.array([self._class_names[answer.label] for answer in answers]),
                class_names=np.array(self._class_names),
            )
