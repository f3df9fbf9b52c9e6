"""Reads single records of shards, for machines that share the examples of a step."""

import mmap
import os
import threading
from collections.abc import Sequence

import numpy as np

from data.shards import records


class Files:
    """Shards whose records are read one by one; of all other records only the length is read."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Prepares to read shards.

        Args:
            paths: Paths of the shards.
        """
        self._paths = paths
        self._frames: dict[int, list[tuple[int, int]]] = {}
        self._lock = threading.Lock()

    def read(self, shards: np.ndarray, expected: int, positions: np.ndarray) -> np.ndarray:
        """Reads records of shards, each file from begin to end.

        Args:
            shards: Numbers of the shards, int32 [k].
            expected: Number of records in all these shards.
            positions: Places of the records to read, counted over all these shards, int32 [n].

        Returns:
            object [n]: the records, bytes.

        Raises:
            ValueError: If a shard has changed, or a record is damaged.
        """
        frames = [self._frames_of(shard) for shard in shards]
        ends = np.cumsum([len(each) for each in frames])
        if ends[-1] != expected:
            files = [self._paths[shard] for shard in shards]
            raise ValueError(f"shards changed: records expected {expected}, {ends[-1]} in {files}")
        contents = np.empty(len(positions), object)
        numbers = np.searchsorted(ends, positions, side="right")
        for index, shard in enumerate(shards):
            members = np.flatnonzero(numbers == index)
            record_numbers = positions[members] - (ends[index] - len(frames[index]))
            with open(self._paths[shard], "rb") as file:
                for number, position in sorted(
                    zip(record_numbers.tolist(), members.tolist(), strict=True)
                ):
                    contents[position] = records.read_at(file, *frames[index][number])
        return contents

    def _frames_of(self, shard: int) -> list[tuple[int, int]]:
        """Returns begin and end of each record of a shard; cached."""
        with self._lock:
            if shard not in self._frames:
                self._frames[shard] = _frames(self._paths[shard])
            return self._frames[shard]


def _frames(path: str) -> list[tuple[int, int]]:
    if not os.path.getsize(path):
        return []
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
        memory.madvise(mmap.MADV_RANDOM)
        frames, end = records.frames(memory)
        if end < len(memory):
            raise ValueError(f"{path} is damaged or cut off, at byte {end}")
    return frames
