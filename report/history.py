"""What a run folder says about its training."""

import csv
import dataclasses
import json
from pathlib import Path

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
        """Flags that decide what is trained, but the seed."""
        return {n: v for n, v in self.settings["flags"].items() if n not in _SEED_LIKE}

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
