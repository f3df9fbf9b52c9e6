"""Background jobs, one at a time, whose errors reach the training."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Background:
    """A thread for jobs such as writing a checkpoint; the process waits for it before exiting."""

    def __init__(self) -> None:
        """Creates the thread pool."""
        self._pool = ThreadPoolExecutor(1)
        self._job: Future | None = None

    def start(self, job: Callable[[], object]) -> None:
        """Waits for the previous job, then starts a new one.

        Raises:
            Exception: The previous job's error.
        """
        self.wait()
        self._job = self._pool.submit(job)

    def check(self) -> None:
        """Raises the error of a job that has finished."""
        if self._job and self._job.done():
            self.wait()

    def wait(self) -> None:
        """Waits for the running job; raises its error, once."""
        job, self._job = self._job, None
        if job:
            job.result()
