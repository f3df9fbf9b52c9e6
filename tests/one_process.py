"""Runs a benchmark with all its candidates in this process: `tests/one_process.py SCRIPT FLAGS`.

They have processes of their own otherwise, each of which imports TensorFlow.
"""

import runpy
import sys

from benchmarks import turns
from engine import devices


def measure(pairs, *, seconds, repeat, say):
    """As `turns.measure`; a candidate that fails is an error."""
    results = []
    for candidate, setting in pairs:
        batches, about = turns._start(candidate.function, setting, candidate.options)
        prepared = turns.WARM_UP * setting.batch_size
        taken = [turns._run(batches, seconds, prepared) for _ in range(repeat)]
        results.append({"name": candidate.name, "label": candidate.label, **about, "turns": taken})
    return results


devices.configure(threads=1)  # before TensorFlow starts: from here on only --threads=1 is allowed
turns.measure, turns.WARM_UP_SECONDS = measure, 0
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
