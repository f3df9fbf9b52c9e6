"""Work beside the training: one job at a time, and its errors are not lost."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Background:
    """A thread for jobs such as writing a checkpoint; the end of the process waits for it."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self._pool = ThreadPoolExecutor(1)
        self._job: Future | None = None

    def start(self, job: Callable[[], object]) -> None:
        """Starts a job when the one before it has ended.

        Raises:
            Exception: What the one before it raised.
        """
        self.wait()
        self._job = self._pool.submit(job)

    def check(self) -> None:
        """Raises what a job raised that has ended."""
        if self._job and self._job.done():
            self.wait()

    def wait(self) -> None:
        """Returns when nothing runs; raises what the last job raised, once."""
        job, self._job = self._job, None
        if job:
            job.result()
