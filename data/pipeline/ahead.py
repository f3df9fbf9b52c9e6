"""Prefetches the items of any iterator in a thread (for a tf.data pipeline: `prefetch`)."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")

_END = object()


def ahead(items: Iterator[Item], count: int) -> Iterator[Item]:
    """Prefetches items in a thread.

    Args:
        items: The iterator, which runs in the thread.
        count: Number of items to prefetch, at least 1.

    Yields:
        The items in their order; an exception of the iterator is raised here.
    """
    thread = ThreadPoolExecutor(1)
    coming = deque(thread.submit(next, items, _END) for _ in range(count))
    try:
        while (item := coming.popleft().result()) is not _END:
            coming.append(thread.submit(next, items, _END))
            yield item
    finally:
        thread.shutdown(wait=False, cancel_futures=True)
