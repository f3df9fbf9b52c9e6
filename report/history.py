"""What a run folder says about its training."""

import ast
import contextlib
import csv
import dataclasses
import functools
import json
from pathlib import Path

_TRAIN = Path(__file__).parent.parent / "train.py"
_SEED_LIKE = {"seed", "run_dir", "resume", "verify", "cache", "threads", "keep"}
_SEED_LIKE |= {
    "checkpoint_steps",
    "log_device_placement",
    "devices",
    "cluster_timeout",
    "histograms",
    "seeds",
    "profile",
    "meter",
    "json",
    "show_step",
    "find_lr",
}


@dataclasses.dataclass(frozen=True)
class History:
    """One training.

    Attributes:
        folder: Of the run.
        settings: Content of run.json.
        rows: Of metrics.csv, one per epoch, as numbers; what was not measured is missing.
        tested: Content of test.json; empty where test.py was not run.
    """

    folder: Path
    settings: dict
    rows: list[dict[str, float]]
    tested: dict

    @property
    def flags(self) -> dict:
        """Flags that decide what is trained, but the seed; one that is newer has its default."""
        known = defaults() | self.settings["flags"]
        known |= {name: self._data(known[name]) for name in ("data", "val_data") if known[name]}
        return {n: v for n, v in known.items() if n not in _SEED_LIKE}

    def _data(self, path: str) -> str:
        """What sets data apart: name and size, not the place, which older runs kept as typed."""
        images = self.settings.get("data", {}).get("examples", {}).get("train")
        return Path(path).name + (f" ({images:,} images)" if images else "")

    @property
    def best_accuracy(self) -> float | None:
        """Highest validation top-1 accuracy, a fraction."""
        found = self.column("validation_top1_accuracy")
        return max(found) if found else None

    @property
    def seconds(self) -> float:
        """Of training, without validation: from the speed of every epoch."""
        before, total = 0, 0.0
        for row in self.rows:
            images = (row["step"] - before) * self.settings["flags"]["batch_size"]
            total += images / row["images_per_second"]
            before = row["step"]
        return total

    def column(self, name: str) -> list[float]:
        """A column of metrics.csv, without empty places."""
        return [row[name] for row in self.rows if name in row]


@functools.cache
def defaults() -> dict:
    """Defaults of train.py's flags that are constants, from its text.

    To import it, and TensorFlow with it, would take seconds.
    """
    found = {}
    for node in ast.walk(ast.parse(_TRAIN.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("flags.DEFINE_"):
            name, default = node.args[:2]
            with contextlib.suppress(ValueError):  # as many as the machine has of something
                found[ast.literal_eval(name)] = ast.literal_eval(default)
    return found


def read(folder: str | Path) -> History:
    """Reads a run folder.

    Raises:
        FileNotFoundError: If there is no run, or no epoch of it has ended.
        ValueError: If its files are damaged.
    """
    folder = Path(folder)
    for name in ("run.json", "metrics.csv"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no {name} in {folder}, expected an epoch that has ended")
    try:
        settings = json.loads((folder / "run.json").read_text())
        with open(folder / "metrics.csv", newline="") as file:
            rows = [
                {name: float(value) for name, value in row.items() if value}
                for row in csv.DictReader(file)
            ]
        tested = folder / "test.json"
        found = json.loads(tested.read_text()) if tested.is_file() else {}
        settings["flags"]["batch_size"]
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(f"the files of {folder} are damaged: {error!r}") from error
    if not rows:
        raise FileNotFoundError(f"no rows in {folder}/metrics.csv, expected one per epoch")
    return History(folder, settings, rows, found)
