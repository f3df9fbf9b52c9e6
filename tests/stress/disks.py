"""Trainings and conversions on disks that are too small, until somebody makes room."""

import contextlib
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from engine import checkpoints, runs
from runtime import console
from tests.stress import forked, pictures

TRAINING = ("--data=digits", "--epochs=2", "--checkpoint_steps=4", "--batch_size=128")
_PAGE = 4096  # of tmpfs, in bytes
_ROOM = 1 << 28
_IMAGES = 40


def full_disks(count: int, folder: Path, seed: int) -> Counter:
    """Fills disks (tmpfs) of all sizes by a training or a conversion, makes room and goes on.

    Half the time nothing that looks at the free space beforehand sees that there is too little, as
    when others fill the disk.

    Args:
        count: Disks.
        folder: For the disks, which only a root may mount (`unshare -rm`).
        seed: Of the sizes.

    Returns:
        "trainings" and "conversions" that found the disk full, those that were "large enough", and
        what went wrong: "exit code", "not one line", "damaged" (a checkpoint or a conversion),
        "cannot resume", "different".
    """
    choose, counts = random.Random(seed), Counter()
    pictures.write(folder / "images", count=_IMAGES, side=64)
    works = [_Trains(), _Converts(folder / "images")]
    for work in works:
        with _disk(folder / f"whole {work.name}", _ROOM) as disk:
            if work.go(disk, sees=True).code:
                raise RuntimeError(f"{work.name} fail by themselves: {work.said(disk)}")
            work.expected, work.bytes = work.result(disk), _used(disk)
    for number in range(count):
        work = works[number % 2]
        size = choose.randrange(_PAGE, work.bytes, _PAGE)
        with _disk(folder / f"disk {number}", size) as disk:
            code = work.go(disk, sees=choose.random() < 0.5).code
            if code == 0:
                counts["large enough"] += 1
                continue
            counts[work.name] += 1
            too_late = "too little space for" not in work.said(disk)  # what stands before the work
            counts["exit code"] += code != (console.FAILED if too_late else console.WRONG_INPUT)
            lines = [line for line in work.said(disk).splitlines() if line.startswith("error: ")]
            counts["not one line"] += len(lines) != 1 or "Traceback" in work.said(disk)
            counts["damaged"] += not work.is_whole(disk)
            _mount(disk, _ROOM, again=True)
            code = work.go(disk, sees=True).code
            counts["cannot resume"] += code != 0
            counts["different"] += code == 0 and work.result(disk) != work.expected
    return counts


@contextlib.contextmanager
def _disk(folder: Path, size: int) -> Iterator[Path]:
    """A disk of `size` bytes."""
    folder.mkdir()
    _mount(folder, size)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def _mount(folder: Path, size: int, *, again: bool = False) -> None:
    options = f"{'remount,' if again else ''}size={size}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True)


def _used(disk: Path) -> int:
    return shutil.disk_usage(disk).used


class _Work:
    """What is done on a disk; its output lies beside it."""

    name: str
    expected: object  # what it makes with room enough
    bytes: int  # of the disk that it takes

    def words(self, disk: Path) -> list[str]:
        """The command."""
        raise NotImplementedError

    def go(self, disk: Path, *, sees: bool) -> forked.Ended:
        """Does it, or goes on with it; `sees` how much of the disk is free, or not."""

        def work() -> None:
            if not sees:
                free = shutil.disk_usage("/")
                shutil.disk_usage = lambda path: free
            forked.script(self.words(disk), self._log(disk))

        with forked.forked(work) as ended:
            pass
        return ended

    def said(self, disk: Path) -> str:
        """The output of the last time."""
        return self._log(disk).read_text(errors="replace")

    @staticmethod
    def _log(disk: Path) -> Path:
        return disk.with_suffix(".log")


class _Trains(_Work):
    name = "trainings"

    def words(self, disk: Path) -> list[str]:
        run = runs.Run(disk / "run")
        resume = ["--resume"] if run.exists else []
        return ["train.py", *TRAINING, f"--run_dir={run.folder}", *resume]

    def is_whole(self, disk: Path) -> bool:
        """Whether every checkpoint that there is can be read, and no part of another is left."""
        found = list((disk / "run" / "checkpoints").glob("*"))
        with contextlib.suppress(ValueError):
            return all(checkpoints.read(path) for path in found)
        return False

    def result(self, disk: Path) -> object:
        """The last line, and the losses of metrics.csv."""
        losses = [(row["step"], row["train_loss"]) for row in runs.Run(disk / "run").metrics()]
        return forked.DONE.findall(self.said(disk)), losses


class _Converts(_Work):
    name = "conversions"

    def __init__(self, images: Path) -> None:
        self._images = images

    def words(self, disk: Path) -> list[str]:
        options = ["--shards=5", "--workers=1", "--short_side=0"]
        return ["-mdata.convert", str(self._images), str(disk / "shards"), *options]

    def is_whole(self, disk: Path) -> bool:
        """Whether nothing stands where only a whole conversion may."""
        return not (disk / "shards").exists()

    def result(self, disk: Path) -> object:
        """The bytes of all files."""
        return {path.name: path.read_bytes() for path in sorted((disk / "shards").iterdir())}
