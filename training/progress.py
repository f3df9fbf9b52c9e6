"""Speed and progress of a training, measured and shown on the console."""

import math
import sys
import time

from tqdm import tqdm

LINE_SECONDS = 10  # interval between lines if the console is not a terminal


class Meter:
    """Measures images per second and the fraction of the time spent waiting for input.

    Attributes:
        calls: Number of calls of the training step.
        seconds: Total duration of the counted calls.
    """

    def __init__(self) -> None:
        """Starts at zero."""
        self.calls = 0
        self.reset()

    def reset(self) -> None:
        """Starts over, as at the start of an epoch."""
        self._images, self.seconds, self._waited = 0, 0.0, 0.0

    def add(self, images: int, seconds: float, waited: float) -> None:
        """Counts a call of the training step.

        The very first call traces the graph and may wait until all images are decoded, so it is
        dropped as soon as there is a second one.

        Args:
            images: Images of the call.
            seconds: Duration of the call.
            waited: Part of `seconds` spent waiting for batches.
        """
        if self.calls == 1:
            self.reset()
        self.calls += 1
        self._images += images
        self.seconds += seconds
        self._waited += waited

    @property
    def images_per_second(self) -> float:
        """Images per second of training-step time; NaN before the first call."""
        return self._images / self.seconds if self.seconds else math.nan

    @property
    def input_wait_fraction(self) -> float:
        """Fraction of the time spent waiting for batches, in [0, 1]; NaN before the first call."""
        return self._waited / self.seconds if self.seconds else math.nan


class Line:
    """Shows the progress: one live bar per epoch on a terminal, otherwise occasional lines."""

    def __init__(self, epochs: int, steps_per_epoch: int, *, shown: bool = True) -> None:
        """Takes the length of the training, and whether to print anything."""
        self._epochs, self._steps_per_epoch, self._shown = epochs, steps_per_epoch, shown
        self._bar: tqdm | None = None
        self._printed = time.monotonic()

    def update(self, step: int, text: str) -> None:
        """Shows the progress after a step."""
        epoch = math.ceil(step / self._steps_per_epoch)
        if not self._shown:
            return
        if not sys.stderr.isatty():
            if step % self._steps_per_epoch and self._is_time():
                print(f"epoch {epoch}/{self._epochs}  {text}", flush=True)
            return
        if self._bar is None:
            label = f"epoch {epoch}/{self._epochs}"
            self._bar = tqdm(total=self._steps_per_epoch, desc=label, unit="step", leave=False)
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(step - (epoch - 1) * self._steps_per_epoch - self._bar.n)

    def finish(self, text: str, last: bool) -> None:
        """Prints the epoch's final line; if not on a terminal, at most one per `LINE_SECONDS`."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        elif not self._shown or not (last or self._is_time()):
            return
        print(text, flush=True)

    def _is_time(self) -> bool:
        """Whether `LINE_SECONDS` have passed since the last line; if so, restarts the interval."""
        if time.monotonic() - self._printed < LINE_SECONDS:
            return False
        self._printed = time.monotonic()
        return True


def clock(seconds: float) -> str:
    """Formats a time left as in "1:02:03"."""
    return tqdm.format_interval(seconds) if math.isfinite(seconds) else "?"
