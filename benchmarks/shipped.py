"""Copies trained networks without the optimizer's variables and without this machine's places.

python benchmarks/shipped.py runs/RUN weights/NAME.safetensors
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime import console

with console.quiet_import():
    from engine import checkpoints, runs


def places(flags: Mapping) -> dict[str, str]:
    """Returns a name for each place in a run's flags: the data's and the run's folder."""
    return {flags["data"]: Path(flags["data"]).name, flags["run_dir"]: "runs"}


def renamed(text: str, names: Mapping[str, str]) -> str:
    """Replaces places in a text or JSON text by their names."""
    for place, name in names.items():
        text = text.replace(json.dumps(place)[1:-1], name)
    return text


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
    text = renamed(json.dumps(source.about), places(source.about["flags"]))
    in_use = {f"model/{path}": value for path, value in checkpoints.weights_in_use(source).items()}
    checkpoints.write(target, source.tensors if trains else in_use, json.loads(text))


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
