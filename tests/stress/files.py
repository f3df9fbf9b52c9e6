"""Checkpoints and shards that are damaged, and must be noticed."""

import contextlib
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from data import pipeline
from data.checks import integrity
from data.conversion import conversion
from data.images import decode
from data.pipeline import augment
from data.shards import datasets, records
from data.sources import sources
from engine import runs
from tests.stress import pictures
from tests.stress.damages import DAMAGES, put


def damaged_checkpoints(count: int, folder: Path, seed: int) -> Counter:
    """Damages the newer of two checkpoints and reads the run.

    Args:
        count: How often.
        folder: For the run.
        seed: Of kinds and places.

    Returns:
        "damages" of each kind, and what went wrong: "unnoticed", "no fall-back".
    """
    choose, counts = random.Random(seed), Counter()
    run = runs.Run(folder / "run")
    run.write_settings({})
    for step in (1, 2):
        tensors = {"weights": np.full([1000], step, np.float32)}
        run.save(tensors, {"step": step, "flags": {"data": "digits"}}, keep=2, best=False)
    newest = run.step_files()[-1]
    for _ in range(count):
        with _damaged(newest, DAMAGES, choose) as damage:
            if damage:
                said = []
                found = run.last(said.append)
                counts[damage.kind] += 1
                counts["unnoticed"] += damage.content is not None and not said
                counts["no fall-back"] += found is None or found.about["step"] != 1
    return counts


def damaged_shards(count: int, folder: Path, seed: int) -> Counter:
    """Damages one of a few shards and reads an epoch.

    Args:
        count: How often.
        folder: For the shards.
        seed: Of kinds and places.

    Returns:
        "damages" of each kind, and what went wrong: "unnoticed", "not named".
    """
    choose, counts = random.Random(seed), Counter()
    pictures.write(folder / "images", count=24, side=20)
    source = sources.open_source(folder / "images", validation_fraction=0.0)
    for encoding in decode.ENCODINGS:
        conversion.convert(
            source, folder / encoding, decode.Storage(20, 95, encoding), shards=3, progress=False
        )
    for number in range(count):
        shards = folder / decode.ENCODINGS[number % len(decode.ENCODINGS)]
        path = choose.choice(sorted(shards.glob("train-*")))
        length = path.stat().st_size
        with _damaged(path, {**DAMAGES, "cut between": _cut_between}, choose) as damage:
            if damage:
                complaint = _complaint(shards)
                counts[damage.kind] += 1
                counts["unnoticed"] += not complaint
                is_inside = damage.content is not None and len(damage.content) == length
                expected = rf"{path.name}.*record \d" if is_inside else path.name
                counts["not named"] += not re.search(expected, complaint or path.name + " record 0")
    return counts


class _Damage(NamedTuple):
    """A kind of damage, and what it left of the file: None if it is gone."""

    kind: str
    content: bytes | None


@contextlib.contextmanager
def _damaged(path: Path, damages: dict, choose: random.Random) -> Iterator[_Damage | None]:
    """Damages a file at random and repairs it in the end; None if nothing has changed."""
    whole = path.read_bytes()
    kind, damage = choose.choice(list(damages.items()))
    content = damage(whole, choose.randrange(len(whole)), choose)
    put(path, content)
    yield _Damage(kind, content) if content != whole else None
    path.write_bytes(whole)


def _complaint(shards: Path) -> str:
    """What reading an epoch says; empty if nothing."""
    try:
        dataset = datasets.load(shards)
        examples = dataset.num_examples("train")
        with integrity.naming_damage(dataset):
            batches = pipeline.train_batches(
                dataset,
                augment.POLICIES["none"],
                size=16,
                batch_size=8,
                seed=0,
                steps=examples // 8,
                threads=1,
            )
            for _ in batches:
                pass
    except (ValueError, OSError, RuntimeError, tf.errors.OpError) as error:
        return str(error)
    return ""


def _cut_between(data: bytes, place: int, choose: random.Random) -> bytes:
    """Cut off between two records, which TensorFlow does not notice."""
    found, _ = records.frames(memoryview(data))
    return data[: choose.choice(found)[0] - records.HEADER_BYTES]
