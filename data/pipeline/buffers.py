"""Reuses the memory of batches: page faults in new memory take as long as copying into it."""

import collections
import weakref
from collections.abc import Sequence

import numpy as np

_ALIGNMENT = 64  # bytes; TensorFlow copies arrays that are not aligned to it
_KEPT_BYTES = 256 << 20  # maximum size of all free buffers together

_free: collections.deque[np.ndarray] = collections.deque()  # oldest first


def empty(shape: Sequence[int]) -> np.ndarray:
    """An uninitialised uint8 array, whose memory TensorFlow takes over without a copy.

    Once the array and all views of it are released, by NumPy or TensorFlow, its memory is reused.
    Thread-safe; any thread may release the array.
    """
    count = int(np.prod(shape))
    owner = _reuse_or_allocate(count + _ALIGNMENT)
    # NumPy makes this the base of all its views, since its own base is not an array.
    lent = np.frombuffer(memoryview(owner), np.uint8)
    weakref.finalize(lent, _give_back, owner).atexit = False
    start = -lent.ctypes.data % _ALIGNMENT
    return lent[start : start + count].reshape(shape)


def _reuse_or_allocate(size: int) -> np.ndarray:
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
