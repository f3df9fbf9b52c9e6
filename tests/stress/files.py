"""Checkpoints and shards that are damaged, and must be noticed."""

import random
import re
from collections import Counter
from pathlib import Path

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
    path = run.step_files()[-1]
    whole = path.read_bytes()
    for _ in range(count):
        kind, damage = choose.choice(list(DAMAGES.items()))
        damaged = damage(whole, choose.randrange(len(whole)), choose)
        if damaged == whole:
            continue
        put(path, damaged)
        said = []
        found = run.last(said.append)
        counts[kind] += 1
        counts["unnoticed"] += damaged is not None and not said
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
        whole = path.read_bytes()
        kind, damage_to = choose.choice(list({**DAMAGES, "cut between": _cut_between}.items()))
        changed = damage_to(whole, choose.randrange(len(whole)), choose)
        if changed == whole:
            continue
        put(path, changed)
        complaint = _complaint(shards)
        counts[kind] += 1
        counts["unnoticed"] += not complaint
        is_inside = changed is not None and len(changed) == len(whole)
        expected = rf"{path.name}.*record \d" if is_inside else path.name
        counts["not named"] += not re.search(expected, complaint or path.name + " record 0")
        path.write_bytes(whole)
    return counts


def _complaint(shards: Path) -> str:
    """What reading an epoch says; empty if nothing."""
    try:
        dataset = datasets.load(shards)
        examples = dataset.num_examples("train")
        with integrity.named(dataset):
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
