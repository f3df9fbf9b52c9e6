"""Does trainings: starts or goes on with them, tests them, and keeps their results."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks import scripts, trainings
from benchmarks.trainings import Training
from runtime import files
from runtime.cores import cores

RUNNING = trainings.ROOT / "benchmarks" / "running"  # checkpoints of trainings that take days


@dataclasses.dataclass(frozen=True)
class Places:
    """Folders and files of trainings.

    Attributes:
        data: Folders of shards, by name of the data.
        runs: Folder for run folders.
        results: File of the kept results.
        running: Folder for the newest checkpoints of unfinished trainings.
    """

    data: dict[str, Path]
    runs: Path
    results: Path = trainings.RESULTS / trainings.FILE
    running: Path = RUNNING


def perform(
    training: Training, places: Places, views: Sequence[int], seconds: float | None = None
) -> bool:
    """Trains, or goes on where the training was stopped, tests, and keeps the result.

    Args:
        training: The training.
        places: Folders and files.
        views: Numbers of views per test image, for a test each.
        seconds: Time after which training is stopped; its newest checkpoint is then put into
            `places.running`, from where any machine goes on.

    Returns:
        Whether it came to its end.

    Raises:
        ValueError: If the data is missing, not converted, or not that of the kept trainings.
        RuntimeError: If train.py or test.py fails.
    """
    data = places.data.get(training.data)
    trainings.check_data(
        places.results, trainings.read(places.results), training.data, _fingerprint(data, training)
    )
    folder, saved = places.runs / training.name, places.running / training.name
    if _newest_step(saved) > _newest_step(folder):
        shutil.copytree(saved, folder, dirs_exist_ok=True)
    if (folder / "run.json").exists():
        words = ["--resume", f"--threads={cores()}"]
    else:
        words = [*training.command, f"--seed={training.seed}"]
    words += [f"--data={data}", f"--run_dir={folder}"]
    if not scripts.run("train.py", *words, seconds=seconds):
        put_aside(folder, saved)
        return False
    trainings.keep(training, folder, places.results, views, data)
    if saved.exists():
        shutil.rmtree(saved)
    return True


def _fingerprint(data: Path | None, training: Training) -> str:
    """Reads the fingerprint of shards."""
    if data is None:
        raise ValueError(f"expected the folder of {training.data} to train, received none")
    try:
        return json.loads((data / "dataset.json").read_text())["fingerprint"]
    except FileNotFoundError:
        raise ValueError(
            f"expected shards of {training.data} (python -m data.convert), received {data}"
        ) from None


def put_aside(folder: Path, saved: Path) -> None:
    """Copies what a run needs to go on elsewhere, without names of this machine's places."""
    from benchmarks import shipped  # imports TensorFlow, which trainings that end do not need

    if _newest_step(folder) <= _newest_step(saved):
        return
    newest = _steps(folder)[-1]
    checkpoint = shipped.checkpoints.read(newest)
    names = shipped.places(checkpoint.about["flags"])
    if saved.exists():
        shutil.rmtree(saved)
    with files.new_folder(saved) as new:
        (new / "checkpoints").mkdir()
        shipped.copy(checkpoint, new / "checkpoints" / newest.name, trains=True)
        settings = json.loads((folder / "run.json").read_text())
        (new / "run.json").write_text(json.dumps(shipped.renamed(settings, names), indent=2))
        for name in ("metrics.csv", "train.log"):
            if (folder / name).exists():
                (new / name).write_text(shipped.renamed((folder / name).read_text(), names))


def _steps(folder: Path) -> list[Path]:
    """Returns the checkpoints of a run in the order of their steps."""
    return sorted((folder / "checkpoints").glob("step-*.safetensors"))


def _newest_step(folder: Path) -> int:
    """Returns the step of a run's newest checkpoint, -1 without any."""
    return max((int(path.stem.partition("-")[2]) for path in _steps(folder)), default=-1)
