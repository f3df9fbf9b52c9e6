"""How fast a training runs and how far it is, measured and shown on the console."""

import math
import sys
import time

from tqdm import tqdm

LINE_SECONDS = 10  # between two lines on a console that is not a terminal


class Meter:
    """Images per second and the share of the time spent waiting for input.

    Attributes:
        calls: Of the training step.
        seconds: That were counted.
    """

    def __init__(self) -> None:
        """Starts at zero."""
        self.calls = 0
        self.reset()

    def reset(self) -> None:
        """Starts over, at an epoch's begin."""
        self._images, self.seconds, self._waited = 0, 0.0, 0.0

    def add(self, images: int, seconds: float, waited: float) -> None:
        """Counts one call of the training step, and how long of it waited for batches.

        The very first one traces the graph, and may wait until all images are decoded; it counts
        only until there is another.
        """
        if self.calls == 1:
            self.reset()
        self.calls += 1
        self._images += images
        self.seconds += seconds
        self._waited += waited

    @property
    def images_per_second(self) -> float:
        """Over the time of the training steps alone; not a number before the first call."""
        return self._images / self.seconds if self.seconds else math.nan

    @property
    def input_wait_fraction(self) -> float:
        """In [0, 1]; not a number before the first call."""
        return self._waited / self.seconds if self.seconds else math.nan


class Line:
    """One line per epoch: a live bar on a terminal, else now and then a plain line."""

    def __init__(self, epochs: int, steps_per_epoch: int, *, shown: bool = True) -> None:
        """Takes the length of the whole training, and whether to print anything."""
        self._epochs, self._steps_per_epoch, self._shown = epochs, steps_per_epoch, shown
        self._bar: tqdm | None = None
        self._printed = time.monotonic()

    def update(self, step: int, text: str) -> None:
        """Shows a step of an epoch that goes on or has just ended."""
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
        """Ends the epoch's line; away from a terminal only every `LINE_SECONDS`, and the last."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        elif not self._shown or not (last or self._is_time()):
            return
        print(text, flush=True)

    def _is_time(self) -> bool:
        """Whether the last line is long ago; then this is the time of the next."""
        if time.monotonic() - self._printed < LINE_SECONDS:
            return False
        self._printed = time.monotonic()
        return True


def duration(seconds: float) -> str:
    """As in "1:02:03"."""
    return tqdm.format_interval(seconds) if math.isfinite(seconds) else "?"
