import gc

import numpy as np
import pytest

from data.pipeline import buffers


@pytest.fixture(autouse=True)
def nothing_kept():
    gc.collect()
    buffers._free.clear()


def place(array):
    return array.__array_interface__["data"][0]


def test_memory_is_lent_again_when_no_view_is_left():
    array = buffers.empty([3, 5, 7])
    assert array.shape == (3, 5, 7) and array.dtype == np.uint8
    assert place(array) % 64 == 0 and array.flags.writeable and array.flags.c_contiguous
    first, view = place(array), array.reshape([5, 21])[1:, ::2]
    view[...] = 9
    del array
    other = buffers.empty([105])
    assert not np.shares_memory(other, view) and (view == 9).all()
    del view
    assert place(buffers.empty([105])) == first


def test_another_size_gets_other_memory():
    first = place(buffers.empty([100]))
    kept = buffers.empty([101])
    assert place(kept) != first
    assert place(buffers.empty([100])) == first


def test_little_is_kept(monkeypatch):
    monkeypatch.setattr(buffers, "_KEPT_BYTES", 1000)
    lent = [buffers.empty([200 + size]) for size in range(20)]
    del lent
    assert 0 < sum(map(len, buffers._free)) <= 1000
