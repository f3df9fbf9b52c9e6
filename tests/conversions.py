"""Conversions that the tests stop: their command line, what they leave and what they make."""

from pathlib import Path

SHARDS = 6  # of the train split; validation has one
# Runs a conversion that sends itself a signal in the n-th call of a function.
STOPPED = """
import importlib, itertools, os, sys
from data import convert

number, place, name, nth = sys.argv[1:5]
place = importlib.import_module(place)
*owner, name = name.split(".")
for part in owner:
    place = getattr(place, part)
function, calls = getattr(place, name), itertools.count(1)

def stopping(*args, **kwargs):
    if next(calls) == int(nth):
        os.kill(os.getpid(), int(number))
    return function(*args, **kwargs)

setattr(place, name, stopping)
convert.main(sys.argv[5:])
"""


def options(source, output, *more):
    return (source, output, "--short_side=32", f"--shards={SHARDS}", "--workers=2", *more)


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def accounted(folder):
    """Shards that are accounted for, with what changes when they are written again."""
    done = [path.stem for path in folder.glob("*.account")]
    status = {name: (folder / "shards" / name).stat() for name in sorted(done)}
    return {name: (row.st_ino, row.st_mtime_ns) for name, row in status.items()}
