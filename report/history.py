"""Reads the history of a run from its folder."""

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

# Flag defaults, and flags in which repetitions of a training may differ, for runs of earlier
# versions, which did not record them in run.json.
_EARLIER = json.loads(Path(__file__).with_name("earlier_flags.json").read_text())


@dataclasses.dataclass(frozen=True)
class History:
    """History of a run.

    Attributes:
        folder: Run folder.
        settings: Content of run.json.
        rows: Rows of metrics.csv, one per epoch, as numbers without the empty cells.
        tested: Content of test.json; empty if test.py has not been run.
    """

    folder: Path
    settings: dict
    rows: list[dict[str, float]]
    tested: dict

    def flags(self, runs: Sequence["History"]) -> dict:
        """Returns the flags that determine the training, except the seed, to compare runs.

        Args:
            runs: All runs of the comparison; flags that did not exist yet when this run was
                started have the defaults that the others record.
        """
        settings = [run.settings for run in (*runs, self)]
        recorded = {n: v for each in settings for n, v in each.get("defaults", {}).items()}
        values = recorded | _EARLIER["defaults"] | self.settings["flags"]
        values |= {
            name: self._data(values[name]) for name in ("data", "val_data") if values.get(name)
        }
        repeats = set().union(*(each.get("repeats", _EARLIER["repeats"]) for each in settings))
        return {name: value for name, value in values.items() if name not in repeats}

    def _data(self, path: str) -> str:
        """Identifies data by name and size, because older runs recorded the path as typed."""
        images = self.settings.get("data", {}).get("examples", {}).get("train")
        return Path(path).name + (f" ({images:,} images)" if images else "")

    @property
    def best_accuracy(self) -> float | None:
        """Highest validation top-1 accuracy, a fraction."""
        accuracies = self.column("validation_top1_accuracy")
        return max(accuracies) if accuracies else None

    @property
    def seconds(self) -> float:
        """Training time without validation, computed from the speed of every epoch."""
        previous_step, total = 0, 0.0
        for row in self.rows:
            images = (row["step"] - previous_step) * self.settings["flags"]["batch_size"]
            total += images / row["images_per_second"]
            previous_step = row["step"]
        return total

    def column(self, name: str) -> list[float]:
        """Returns a column of metrics.csv without its empty cells."""
        return [row[name] for row in self.rows if name in row]


def read(folder: str | Path) -> History:
    """Reads a run folder.

    Raises:
        FileNotFoundError: If the folder holds no run, or the run has not finished an epoch.
        ValueError: If the run's files are damaged.
    """
    folder = Path(folder)
    for name in ("run.json", "metrics.csv"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no {name} in {folder}, expected a run with a finished epoch")
    try:
        settings = json.loads((folder / "run.json").read_text())
        with open(folder / "metrics.csv", newline="") as file:
            rows = [
                {name: float(value) for name, value in row.items() if value}
                for row in csv.DictReader(file)
            ]
        test_path = folder / "test.json"
        tested = json.loads(test_path.read_text()) if test_path.is_file() else {}
        settings["flags"]["batch_size"]
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(f"the files of {folder} are damaged: {error!r}") from error
    if not rows:
        raise FileNotFoundError(f"no rows in {folder}/metrics.csv, expected one per epoch")
    return History(folder, settings, rows, tested)
