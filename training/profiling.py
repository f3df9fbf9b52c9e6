"""Profiles of training steps for TensorBoard's profiler."""

from collections.abc import Callable
from pathlib import Path

import tensorflow as tf


class Profile:
    """Records a profile of the first steps after the first call."""

    def __init__(self, folder: Path, steps: int | None) -> None:
        """Sets folder and length; the recording starts later.

        Args:
            folder: Folder for the recording.
            steps: Number of steps to record, rounded up to whole calls; None for none.
        """
        self._folder, self._left = folder, steps or 0
        self._warm = self._records = False

    def call(self, train: Callable, count: int) -> object:
        """Runs `train()`, which does `count` steps; skips the first call, which traces the graph.

        Raises:
            OSError: If the recording cannot be written.
        """
        if self._left > 0 and self._warm and not self._records:
            tf.profiler.experimental.start(str(self._folder))
            self._records = True
        self._warm = True
        result = train()
        if self._records:
            self._left -= count
            if self._left <= 0:
                self.end()
        return result

    def end(self) -> None:
        """Stops a running recording and writes it."""
        if self._records:
            tf.profiler.experimental.stop()
            self._records = False
