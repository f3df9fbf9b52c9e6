"""Python inside of a pipeline: functions of arrays, which its threads call."""

import atexit
import functools
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

_QUIET_SECONDS = 0.1
_LONGEST_SECONDS = 10.0


class _Calls:
    """How many calls have begun, and how many of them go on."""

    def __init__(self) -> None:
        self.begun, self.going_on = 0, 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.begun += 1
            self.going_on += 1

    def __exit__(self, *_) -> None:
        with self._lock:
            self.going_on -= 1


_calls = _Calls()


def call(
    function: Callable[..., np.ndarray], arguments: Sequence[tf.Tensor], dtype: tf.DType
) -> tf.Tensor:
    """As `tf.numpy_function`, for functions without state, in pipelines that Python outlives.

    Python's end waits for the threads of a pipeline that is still there, and a call that goes on
    in one of them waits for Python: the process would hang for ever. So the end is put off until
    no call goes on; the buffers of a pipeline that nobody reads from are full soon.
    """

    @functools.wraps(function)
    def counted(*arrays):
        with _calls:
            return function(*arrays)

    return tf.numpy_function(counted, arguments, dtype, stateful=False)


@atexit.register
def _wait_until_quiet() -> None:
    last, longest = 0, time.monotonic() + _LONGEST_SECONDS
    while (_calls.going_on or _calls.begun > last) and time.monotonic() < longest:
        last = _calls.begun
        time.sleep(_QUIET_SECONDS)
