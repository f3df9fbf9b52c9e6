"""What a run folder says about its training."""

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

_REPEATS = {"seed", "run_dir", "resume"}  # of runs of earlier versions, which do not say


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

    def flags(self, runs: Sequence["History"]) -> dict:
        """The flags that decide what is trained, except the seed, for a comparison of runs.

        Args:
            runs: All that are compared: a flag that is newer than this one has the default that
                another one names.
        """
        settings = [run.settings for run in (*runs, self)]
        values = {n: v for each in settings for n, v in each.get("defaults", {}).items()}
        values |= self.settings["flags"]
        values |= {
            name: self._data(values[name]) for name in ("data", "val_data") if values.get(name)
        }
        repeats = set().union(*(each.get("repeats", _REPEATS) for each in settings))
        return {name: value for name, value in values.items() if name not in repeats}

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
