"""A save whose writer dies at any of its steps."""

import functools
import itertools
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.numpy

from engine import runs
from tests.stress import forked

_DIED = 99  # exit code of a writer that was to die
_CHUNKS = 8  # in which a file is written when its writer may be killed


def killed_saves(count: int, folder: Path, seed: int) -> Counter:
    """Kills the writer of a checkpoint before each write, fsync, rename, link and removal.

    Args:
        count: Not used: every step of a save is one kill.
        folder: For the runs.
        seed: Not used.

    Returns:
        "kills", and what went wrong: "neither before nor after", "cannot save again".
    """
    counts = Counter()
    for best in (False, True):
        for step in itertools.count():
            run = runs.Run(folder / f"run-{best}-{step}")
            run.write_settings({})
            run.save(_tensors(1), {"step": 1}, keep=1, best=True)
            with forked.forked(functools.partial(_save_until, run, best, step)) as ended:
                pass
            if ended.code == 0:  # there are no more steps than that
                break
            if ended.code != _DIED:
                raise RuntimeError(f"the save failed by itself, before its step {step}")
            counts["kills"] += 1
            counts["neither before nor after"] += not _is_whole(run)
            run.remove_litter()
            run.save(_tensors(2), {"step": 2}, keep=1, best=best)
            counts["cannot save again"] += not _is_whole(run, after=True)
    return counts


def _tensors(step: int) -> dict[str, np.ndarray]:
    return {"weights": np.full([1000], step, np.float32)}


def _is_whole(run: runs.Run, after: bool = False) -> bool:
    """Whether newest and best are one of the two states, the later one if `after`."""
    newest = run.last(lambda line: None)
    found = [newest.about["step"], run.find("best").about["step"]]
    whole = all((newest.tensors["weights"] == found[0]).tolist())
    return whole and (found[0] == 2 if after else set(found) <= {1, 2})


def _save_until(run: runs.Run, best: bool, last: int) -> None:
    """Saves step 2; dies before the step of the save that has the number `last`."""
    left = itertools.count(last, -1)

    def counted(function: Callable) -> Callable:
        def call(*arguments, **options):
            if next(left) == 0:
                os._exit(_DIED)
            return function(*arguments, **options)

        return call

    for name in ("fsync", "replace", "link", "unlink"):
        setattr(os, name, counted(getattr(os, name)))
    write = counted(lambda file, part: (file.write(part), file.flush()))

    def save_file(tensors: dict, path: Path, metadata: dict) -> None:
        data = safetensors.numpy.save(tensors, metadata)
        with open(path, "wb") as file:
            for begin in range(0, len(data), -(-len(data) // _CHUNKS)):
                write(file, data[begin : begin - (-len(data) // _CHUNKS)])

    safetensors.numpy.save_file = save_file
    run.save(_tensors(2), {"step": 2}, keep=1, best=best)
