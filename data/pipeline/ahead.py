"""Making things ahead of those who use them."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")

_END = object()


def ahead(items: Iterator[Item], count: int) -> Iterator[Item]:
    """Has a thread make the next items while one is used.

    Args:
        items: Are made in that thread.
        count: How many are made ahead, at least 1.

    Yields:
        The items in their order; what raises in the thread raises here.
    """
    thread = ThreadPoolExecutor(1)
    coming = deque(thread.submit(next, items, _END) for _ in range(count))
    try:
        while (item := coming.popleft().result()) is not _END:
            coming.append(thread.submit(next, items, _END))
            yield item
    finally:
        thread.shutdown(wait=False, cancel_futures=True)
