import threading

import pytest

from training.background import Background


def test_jobs_follow_each_other_and_are_waited_for():
    background, done, may_end = Background(), [], threading.Event()
    background.start(lambda: may_end.wait(10) and done.append(1))
    background.check()
    assert done == []
    may_end.set()
    background.start(lambda: done.append(2))
    background.wait()
    assert done == [1, 2]


def test_what_a_job_raises_is_raised_once():
    def fails():
        raise OSError("disk full")

    background = Background()
    background.start(fails)
    with pytest.raises(OSError, match="disk full"):
        background.wait()
    background.wait()
    background.start(fails)
    with pytest.raises(OSError, match="disk full"):
        background.start(lambda: None)
    background.start(fails)
    with pytest.raises(OSError, match="disk full"):
        while True:
            background.check()
