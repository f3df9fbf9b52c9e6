import threading

import pytest

from data.pipeline.ahead import ahead


def test_items_come_in_order_from_another_thread():
    threads = set()

    def items():
        for number in range(20):
            threads.add(threading.current_thread())
            yield number

    assert list(ahead(items(), 3)) == list(range(20))
    assert len(threads) == 1 and threading.current_thread() not in threads


def test_no_more_are_made_than_asked_for():
    made = []
    coming = ahead((made.append(number) or number for number in range(100)), 2)
    assert [next(coming) for _ in range(3)] == [0, 1, 2]
    assert len(made) <= 3 + 2
    coming.close()


def test_errors_come_where_the_item_would():
    def items():
        yield 1
        raise ValueError("two")

    coming = ahead(items(), 2)
    assert next(coming) == 1
    with pytest.raises(ValueError, match="two"):
        next(coming)
