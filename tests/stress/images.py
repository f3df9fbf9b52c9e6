"""Image files that are changed at random, through the decoder of classify.py."""

import random
from collections import Counter
from pathlib import Path

from data.images import workers
from data.images.decode import Storage
from data.images.examples import Example
from tests import corpus
from tests.stress.damages import mutated

_AT_ONCE = 10_000  # images, which lie in one file


def mutated_images(count: int, folder: Path, seed: int) -> Counter:
    """Changes sound images at random and has them decoded in processes, as classify.py does.

    Args:
        count: Images.
        folder: For the images.
        seed: Of kinds and places.

    Returns:
        "decoded", "rejected", and what went wrong: "crashed", "hung", "lost" (no outcome).
    """
    choose, counts = random.Random(seed), Counter()
    corpus.write(folder)
    whole = [path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()]
    path = folder / "mutated"
    for first in range(0, count, _AT_ONCE):
        examples, place = [], 0
        with open(path, "wb") as file:
            for number in range(first, min(first + _AT_ONCE, count)):
                data = mutated(choose.choice(whole), choose)
                file.write(data)
                examples.append(Example(str(number), 0, str(path), place, len(data)))
                place += len(data)
        results = list(workers.stored(examples, Storage(), workers=2))
        counts["lost"] += len(examples) - len(results)
        for result in results:
            counts[_outcome(result)] += 1
    return counts


def _outcome(result: object) -> str:
    if not isinstance(result, workers.Rejected):
        return "decoded"
    if result.reason == workers.CRASHED:
        return "crashed"
    return "hung" if result.reason.startswith("takes over") else "rejected"
