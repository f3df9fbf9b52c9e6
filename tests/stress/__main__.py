"""Attacks on what must not be lost: kills, damaged files, hostile images; counts what went wrong.

    python -m tests.stress kills --count=300        trainings killed at random moments
    python -m tests.stress settings --count=50      any settings, stopped and resumed
    python -m tests.stress workers --count=20       one of two workers killed at random steps
    python -m tests.stress saves                    a save killed at each of its steps
    python -m tests.stress checkpoints --count=1000 damaged checkpoint files
    python -m tests.stress shards --count=500       damaged shards, JPEG and raw
    python -m tests.stress images --count=100000    mutated images, decoded as classify.py does
    unshare -rm python -m tests.stress disks --count=100   full disks (needs to mount them)

Prints one line of figures and exits with 1 if anything went wrong; `tests/test_stress.py` runs
smaller shares.
"""

import sys
import tempfile
import time
from pathlib import Path

from runtime import console

with console.quiet_import():
    from tests.stress import disks, files, images, saves, trainings, workers
    from training import meter  # noqa: F401  with all that train.py imports: a fork starts at once

ATTACKS = {
    "kills": trainings.kills,
    "settings": trainings.any_settings,
    "workers": workers.killed_workers,
    "saves": saves.killed_saves,
    "checkpoints": files.damaged_checkpoints,
    "shards": files.damaged_shards,
    "images": images.mutated_images,
    "disks": disks.full_disks,
}
WRONG = {
    "different",
    "cannot resume",
    "neither before nor after",
    "cannot save again",
    "unnoticed",
    "no fall-back",
    "not named",
    "crashed",
    "hung",
    "lost",
    "exit code",
    "not one line",
    "damaged",
}


def main() -> None:
    """Runs one attack and prints what it counted."""
    parser = console.Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("attack", choices=ATTACKS)
    parser.add_argument("--count", type=int, default=100, help="how often (100); not for saves")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (0)")
    options = parser.parse_args()
    began = time.monotonic()
    with console.user_errors(), tempfile.TemporaryDirectory() as folder:
        counts = ATTACKS[options.attack](options.count, Path(folder), options.seed)
    seconds = time.monotonic() - began
    print(", ".join(f"{name}: {count}" for name, count in counts.items()), f"({seconds:.0f} s)")
    sys.exit(any(counts[name] for name in WRONG))


if __name__ == "__main__":
    main()
