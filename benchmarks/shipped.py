"""Copies trained networks without the optimizer's variables and without this machine's places.

    python benchmarks/shipped.py runs/RUN weights/NAME.safetensors

The networks in weights/ are such copies.
"""

import argparse
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime import console

with console.quiet_import():
    from engine import checkpoints, runs
    from training.run_folder import PATHS


def places(flags: Mapping) -> dict[str, str]:
    """Returns the last part of each absolute path in a run's flags, the longest paths first."""
    paths = [flags.get(name) for name in PATHS]
    found = sorted((path for path in paths if path and Path(path).is_absolute()), key=len)
    return {path: Path(path).name for path in reversed(found)}


def renamed(value, names: Mapping[str, str]):
    """Replaces places by their names in all texts of a JSON value."""
    if isinstance(value, dict):
        return {key: renamed(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [renamed(each, names) for each in value]
    if isinstance(value, str):
        for place, name in names.items():
            value = value.replace(place, name)
    return value


def copy(source: checkpoints.Checkpoint, target: Path, *, trains: bool) -> None:
    """Writes a copy of a checkpoint that names no place.

    Args:
        source: The checkpoint.
        target: File to write.
        trains: Whether a training can go on from the copy; otherwise it holds the weights for
            inference only.

    Raises:
        OSError: If the file cannot be written.
    """
    about = renamed(source.about, places(source.about["flags"]))
    in_use = {f"model/{path}": value for path, value in checkpoints.weights_in_use(source).items()}
    checkpoints.write(target, source.tensors if trains else in_use, about)


def main(argv: list[str] | None = None) -> None:
    """Parses the command line and copies the best checkpoint of a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="run folder")
    parser.add_argument("file", type=Path, help="file to write")
    given = parser.parse_args(argv)
    with console.user_errors():
        copy(runs.open_checkpoint(given.run, "best")[1], given.file, trains=False)
    print(f"{given.file}: sha256 {hashlib.sha256(given.file.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
