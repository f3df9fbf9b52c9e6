"""Run folders: the files that a training writes, and how to find and read them.

run.json                            how the run was started
checkpoints/step-00000240.safetensors, best.safetensors
metrics.csv                         one row per epoch
train/ validation/                  TensorBoard event files
train.log                           the lines printed on the console
"""

import csv
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from engine import checkpoints
from runtime import files

ROOT = Path("runs")
METRICS = (
    "epoch",
    "step",
    "learning_rate",
    "train_loss",
    "train_top1_accuracy",
    "validation_loss",
    "validation_top1_accuracy",
    "validation_top5_accuracy",
    "images_per_second",
    "input_wait_fraction",
)
_SETTINGS = "run.json"
_CHECKPOINTS = "checkpoints"
_SUFFIX = ".safetensors"
_BEST = f"best{_SUFFIX}"
_LOCK = ".lock"


def make_folder(name: str) -> Path:
    """Creates `runs/NAME`, or the first of `runs/NAME-2`, `-3`, ... that does not exist."""
    folder, number = ROOT / name, 1
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
            folder = ROOT / f"{name}-{number}"


def newest(*, saved: bool = False) -> "Run":
    """Returns the run under `runs/` that was started, or wrote a checkpoint, last.

    Args:
        saved: Whether to ignore runs without a checkpoint.

    Raises:
        FileNotFoundError: If there is none.
    """
    runs = _started()
    if saved:
        runs = [run for run in runs if run.checkpoint_files()]
    if not runs:
        expected = "checkpoint" if saved else _SETTINGS
        raise FileNotFoundError(f"no run found: expected a folder with a {expected} under {ROOT}/")
    return max(runs, key=lambda run: run.last_change)


def any_saved() -> bool:
    """Whether a run under `runs/` has a checkpoint."""
    return any(run.checkpoint_files() for run in _started())


def _started() -> list["Run"]:
    return [Run(path.parent) for path in ROOT.glob(f"*/{_SETTINGS}")]


def open_checkpoint(path: str | None, selector: str) -> tuple[Path, checkpoints.Checkpoint]:
    """Reads a checkpoint; returns it after the folder for results about it.

    Args:
        path: Run folder or checkpoint file; None for the newest run with a checkpoint.
        selector: `best`, `last`, a step, or a checkpoint file, which needs no run folder.

    Raises:
        FileNotFoundError: If there is no such run or checkpoint.
        ValueError: If the checkpoint is damaged or of another program, or `path` and `selector`
            contradict each other.
    """
    _check_one(path, selector)
    for file in (path, selector):
        if file and Path(file).suffix == _SUFFIX:
            folder = Path(file).parent
            run = folder.parent if folder.name == _CHECKPOINTS else folder
            return run, checkpoints.read(Path(file))
        if file and Path(file).is_file():
            raise ValueError(
                f"{file} is not a checkpoint, expected a {_SUFFIX} file; others may run code "
                "and are not opened (published weights: --model=NAME --init_from=FILE)"
            )
    run = Run(path) if path else newest(saved=True)
    return run.folder, run.find(selector)


def _check_one(path: str | None, selector: str) -> None:
    """Raises ValueError if `path` and `selector` contradict each other."""
    if not path:
        return
    if Path(path).suffix == _SUFFIX and selector != "best":
        raise ValueError(f"{path} is a checkpoint itself, received --checkpoint={selector} too")
    inside = Path(selector).resolve().is_relative_to(Path(path).resolve())
    if Path(selector).suffix == _SUFFIX and not inside:
        raise ValueError(f"expected a checkpoint of {path}, received --checkpoint={selector}")


class Run:
    """One run folder."""

    def __init__(self, folder: Path | str) -> None:
        """Sets the folder; reads and writes no files."""
        self.folder = Path(folder)

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return (self.folder / _SETTINGS).is_file()

    @property
    def last_change(self) -> float:
        """Time of the start or the last checkpoint, in seconds since 1970."""
        return max(map(_changed, (self.folder / _SETTINGS, *self.step_files())))

    def step_files(self) -> list[Path]:
        """Returns the checkpoint files of steps, oldest first."""
        return sorted((self.folder / _CHECKPOINTS).glob(f"step-*{_SUFFIX}"))

    def checkpoint_files(self) -> list[Path]:
        """Returns the file of the best checkpoint, if it exists, followed by `step_files`."""
        best = self.folder / _CHECKPOINTS / _BEST
        return [*([best] if best.exists() else []), *self.step_files()]

    def lock(self) -> TextIO:
        """Creates the folder and locks it against other trainings until the file is closed.

        Returns:
            The open lock file, which is closed at the latest when the process ends.

        Raises:
            ValueError: If another training holds the lock.
            OSError: If the folder or the lock cannot be created.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        file = open(self.folder / _LOCK, "a")
        message = f"another training is writing {self.folder}: expected it to have ended"
        try:
            files.acquire(file, fcntl.LOCK_EX, message)
        except BaseException:
            file.close()
            raise
        return file

    def write_settings(self, settings: Mapping) -> None:
        """Creates the folder and writes settings, command line and git commit to `run.json`.

        Raises:
            OSError: If the folder cannot be written.
        """
        (self.folder / _CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        text = json.dumps({"command": sys.argv, **settings, "git_commit": _git_commit()}, indent=2)
        files.write(self.folder / _SETTINGS, f"{text}\n".encode())

    def settings(self) -> dict:
        """Reads `run.json`.

        Raises:
            FileNotFoundError: If no run was started in this folder.
            ValueError: If the file is damaged.
        """
        path = self.folder / _SETTINGS
        if not path.is_file():
            raise FileNotFoundError(f"no run in {self.folder}: expected a file {_SETTINGS} there")
        try:
            return json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is damaged: {error}") from error

    def save(self, tensors: Mapping, about: Mapping, *, keep: int, best: bool) -> None:
        """Writes the checkpoint of `about["step"]` and removes all but the newest `keep`.

        Args:
            tensors: Arrays by name.
            about: Header of the checkpoint, see `checkpoints`.
            keep: Number of checkpoints to keep besides the best, at least 1.
            best: Whether this checkpoint is the best so far.
        """
        path = self.folder / _CHECKPOINTS / _step_file(about["step"])
        if best:  # first, because nothing restores a missing best once the step file exists
            checkpoints.write(path.with_name(_BEST), tensors, about)
            files.replace(path, lambda new: _link_or_copy(path.with_name(_BEST), new))
        else:
            checkpoints.write(path, tensors, about)
        damaged = [file for file in self.step_files() if file.name > path.name]
        for file in damaged:
            file.unlink()
        for old in self.step_files()[:-keep]:
            old.unlink()

    def last(self, warn: Callable[[str], None]) -> checkpoints.Checkpoint | None:
        """Reads the newest intact checkpoint, or else the best; None if none was written yet.

        Args:
            warn: Function that receives warnings about damaged checkpoints.

        Raises:
            ValueError: If all checkpoints are damaged.
        """
        written = self.checkpoint_files()
        for path in reversed(written):
            try:
                return checkpoints.read(path)
            except FileNotFoundError:  # a running training has replaced it by a newer one
                return self.last(warn)
            except ValueError as error:
                warn(f"warning: {error}; trying the one before it")
        if written:
            raise ValueError(f"all checkpoints of {self.folder} are damaged")
        return None

    def find(self, selector: str) -> checkpoints.Checkpoint:
        """Reads a checkpoint of this run.

        Args:
            selector: `best` (the last one if nothing was validated), `last`, or a step.

        Raises:
            FileNotFoundError: If there is no such checkpoint.
            ValueError: If it is damaged, or `selector` is invalid.
        """
        folder = self.folder / _CHECKPOINTS
        if not self.exists and not folder.is_dir():
            raise FileNotFoundError(f"no run folder {self.folder}")
        if selector.isdecimal():
            return checkpoints.read(folder / _step_file(int(selector)))
        if selector not in ("best", "last"):
            raise ValueError(
                f"expected best, last, a step or a checkpoint file, received {selector}"
            )
        if selector == "best" and (folder / _BEST).exists():
            return checkpoints.read(folder / _BEST)
        checkpoint = self.last(lambda line: print(line, file=sys.stderr))
        if checkpoint is None:
            raise FileNotFoundError(f"no checkpoint in {folder}")
        return checkpoint

    def remove_litter(self) -> None:
        """Removes temporary files and folders left by killed processes."""
        files.remove_litter(self.folder)

    def keep_metrics(self, step: int) -> None:
        """Drops the rows of `metrics.csv` after `step`, which a resumed run writes again."""
        rows = [row for row in self.metrics() if int(row["step"]) <= step]
        self._write_metrics(rows)

    def add_metrics(self, row: Mapping) -> None:
        """Appends a row to `metrics.csv`, replacing rows of the same or later epochs."""
        rows = [old for old in self.metrics() if int(old["epoch"]) < row["epoch"]]
        self._write_metrics([*rows, row])

    def metrics(self) -> list[dict]:
        """Returns the rows of `metrics.csv`, with values as strings."""
        path = self.folder / "metrics.csv"
        if not path.exists():
            return []
        with open(path, newline="") as file:
            return list(csv.DictReader(file))

    def _write_metrics(self, rows: list[Mapping]) -> None:
        def save(temporary: Path) -> None:
            with open(temporary, "w", newline="") as file:
                writer = csv.DictWriter(file, METRICS)
                writer.writeheader()
                writer.writerows(rows)

        files.replace(self.folder / "metrics.csv", save)

    def add_picture(self, name: str, content: bytes) -> None:
        """Writes a PNG file to the run folder."""
        (self.folder / f"{name}.png").write_bytes(content)

    def add_table(self, name: str, rows: Iterable[Sequence]) -> None:
        """Writes a CSV file to the run folder."""
        with open(self.folder / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows(rows)

    def log(self, line: str) -> None:
        """Appends a line to `train.log`."""
        with open(self.folder / "train.log", "a") as file:
            file.write(line + "\n")


class Watched(Run):
    """A run folder that another process writes: all methods that write do nothing."""

    def _skip(self, *_: object, **__: object) -> None:
        """Does nothing."""

    lock = write_settings = save = remove_litter = keep_metrics = add_metrics = log = _skip
    add_picture = add_table = _skip


def _changed(path: Path) -> float:
    """Returns a file's modification time in seconds since 1970; 0 if it has been removed."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _step_file(step: int) -> str:
    return f"step-{step:08d}{_SUFFIX}"


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _git_commit() -> str | None:
    """Returns the git commit, with `-dirty` if files are modified; None outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        result = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
        return result.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
