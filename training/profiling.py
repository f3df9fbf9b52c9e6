"""What a device does in some steps of a training, for TensorBoard's profiler."""

from collections.abc import Callable
from pathlib import Path

import tensorflow as tf


class Profile:
    """Records some steps."""

    def __init__(self, folder: Path, steps: int | None) -> None:
        """Records nothing yet.

        Args:
            folder: For the recording.
            steps: How many to record, in whole calls; None for none.
        """
        self._folder, self._left = folder, steps or 0
        self._warm = self._records = False

    def call(self, train: Callable, count: int) -> object:
        """Returns `train()`, which does `count` steps; the first call sets everything up.

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
        """Writes what is recorded."""
        if self._records:
            tf.profiler.experimental.stop()
            self._records = False
