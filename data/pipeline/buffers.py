"""Memory for batches, used again: the pages of a fresh one cost as much as copying into it."""

import collections
import weakref
from collections.abc import Sequence

import numpy as np

_ALIGNMENT = 64  # bytes; TensorFlow copies what is aligned otherwise
_KEPT_BYTES = 256 << 20  # of buffers that are free

_free: collections.deque[np.ndarray] = collections.deque()  # the oldest first


def empty(shape: Sequence[int]) -> np.ndarray:
    """Memory for uint8 [...] that TensorFlow takes over without a copy.

    When the array and all views of it are gone, on whatever side, the memory is lent again. Any
    thread may call this, and any may be the last to let go.
    """
    count = int(np.prod(shape))
    owner = _taken(count + _ALIGNMENT)
    # NumPy makes this the base of all its views, since its own base is not an array.
    lent = np.frombuffer(memoryview(owner), np.uint8)
    weakref.finalize(lent, _give_back, owner).atexit = False
    start = -lent.ctypes.data % _ALIGNMENT
    return lent[start : start + count].reshape(shape)


def _taken(size: int) -> np.ndarray:
    for _ in range(len(_free)):
        try:
            owner = _free.popleft()
        except IndexError:  # another thread took the last one
            break
        if len(owner) == size:
            return owner
        _free.append(owner)
    return np.empty(size, np.uint8)


def _give_back(owner: np.ndarray) -> None:
    _free.append(owner)
    while sum(map(len, list(_free))) > _KEPT_BYTES:
        try:
            _free.popleft()
        except IndexError:
            return
