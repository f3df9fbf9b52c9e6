"""Calls Python functions of NumPy arrays from the threads of a tf.data pipeline."""

import atexit
import functools
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

_QUIET_SECONDS = 0.1  # without a call, after which Python may exit
_MAX_WAIT_SECONDS = 10.0  # then Python exits in any case


class _Calls:
    """Counts the calls that have begun, and those still running."""

    def __init__(self) -> None:
        self.begun, self.running = 0, 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.begun += 1
            self.running += 1

    def __exit__(self, *_) -> None:
        with self._lock:
            self.running -= 1


_calls = _Calls()


def call(
    function: Callable[..., np.ndarray], arguments: Sequence[tf.Tensor], dtype: tf.DType
) -> tf.Tensor:
    """Like `tf.numpy_function` for stateless functions, but lets Python exit without a deadlock.

    At exit Python waits for the threads of a pipeline that still exists, while a running call waits
    for Python's lock. Therefore the exit is delayed until no call is running, which is soon: the
    buffers of a pipeline that nobody reads from are full.
    """

    @functools.wraps(function)
    def counted(*arrays):
        with _calls:
            return function(*arrays)

    return tf.numpy_function(counted, arguments, dtype, stateful=False)


@atexit.register
def _wait_until_quiet() -> None:
    begun, deadline = 0, time.monotonic() + _MAX_WAIT_SECONDS
    while (_calls.running or _calls.begun > begun) and time.monotonic() < deadline:
        begun = _calls.begun
        time.sleep(_QUIET_SECONDS)
