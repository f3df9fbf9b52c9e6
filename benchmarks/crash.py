"""Attacks on what must not be lost: kills, damaged files, hostile images; counts what went wrong.

    python benchmarks/crash.py kills --count=300        trainings killed at random moments
    python benchmarks/crash.py settings --count=50      any settings, stopped and resumed
    python benchmarks/crash.py saves                    a save killed at each of its steps
    python benchmarks/crash.py checkpoints --count=1000 damaged checkpoint files
    python benchmarks/crash.py shards --count=500       damaged shards, JPEG and raw

Prints one line of figures and exits with 1 if anything went wrong; `tests/test_crash.py` runs
smaller shares.
"""

import contextlib
import functools
import itertools
import os
import random
import re
import runpy
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import console

with console.quiet_import():
    import numpy as np
    import safetensors.numpy
    import tensorflow as tf
    from PIL import Image

    import meter  # noqa: F401  with all that train.py imports: a fork starts at once
    from data import (
        augment,
        convert,
        damage,
        datasets,
        decode,
        decoded,
        pipeline,
        records,
        sources,
    )
    from engine import optimizers, runs, schedules

ROOT = Path(__file__).resolve().parent.parent
DONE = re.compile(r"^done: step (\d+)  weights sha256 ([0-9a-f]{64})$", re.M)
# Dropout, momentum, plateau, checkpoints within epochs: 55 steps, 14 checkpoints.
TRAINING = ("--data=digits", "--epochs=5", "--dropout=0.5", "--model=lenet5")
TRAINING += ("--checkpoint_steps=4", "--schedule=plateau", "--batch_size=128")
SETTINGS = {  # all that a checkpoint must restore, or that changes what is computed
    "model": ("lenet5", "cifarnet", "cifar_resnet20"),
    "optimizer": tuple(optimizers.OPTIMIZERS),
    "schedule": tuple(schedules.SCHEDULES),
    "augment": tuple(augment.POLICIES),
    "precision": ("float32", "mixed_bfloat16"),
    "cache": decoded.CACHES,
    "warmup_epochs": (0, 1),
    "weight_decay": (0, 5e-4),
    "checkpoint_steps": (5, 7, 1000),
    "patience": (1, 5),
}
MOST_KILLS = 5  # of one training
_DIED = 99  # exit code of a writer that was to die
_CHUNKS = 8  # in which a file is written when its writer may be killed


def kills(count: int, folder: Path, seed: int) -> Counter:
    """Trains again and again, killing at random moments, and compares with a training left alone.

    Args:
        count: Kills, at least.
        folder: For the runs.
        seed: Of the moments.

    Returns:
        "kills", "trainings", and what went wrong: "different", "cannot resume".
    """
    choose, counts = random.Random(seed), Counter()
    began = time.monotonic()
    _, whole = _trained(folder / "whole")
    expected, longest = DONE.search(whole).groups(), time.monotonic() - began
    while counts["kills"] < count:
        run_dir = folder / f"run-{counts['trainings']}"
        for _ in range(choose.randint(1, MOST_KILLS)):
            code, _ = _trained(run_dir, after=choose.uniform(0, longest))
            counts["kills"] += code == -signal.SIGKILL
        code, output = _trained(run_dir)
        done = DONE.search(output)
        counts["trainings"] += 1
        counts["cannot resume"] += code != 0
        counts["different"] += code == 0 and done.groups() != expected
    return counts


def any_settings(count: int, folder: Path, seed: int) -> Counter:
    """Stops trainings with random settings at random steps, resumes, and compares.

    Args:
        count: Settings to draw.
        folder: For the runs.
        seed: Of the settings and steps.

    Returns:
        "trainings", and what went wrong: "different", "cannot resume".
    """
    choose, counts = random.Random(seed), Counter()
    for number in range(count):
        words = [f"--{name}={choose.choice(values)}" for name, values in SETTINGS.items()]
        words += ["--data=digits", "--batch_size=16", "--epochs=2", f"--seed={number}"]
        end, steps = "--max_steps=110", choose.sample(range(1, 110), 2)  # an epoch has 101
        whole, stopped = folder / f"whole-{number}", folder / f"stopped-{number}"
        _, expected = _trained(whole, [*words, end])
        for step in sorted(steps):
            _trained(stopped, [*words, f"--max_steps={step}"])
        code, output = _trained(stopped, [*words, end])
        counts["trainings"] += 1
        counts["cannot resume"] += code != 0
        same = DONE.findall(output) == DONE.findall(expected) != []
        counts["different"] += code == 0 and not same
        if not same:
            print("wrong:", *words, f"stopped at {steps}", flush=True)
    return counts


def _trained(
    run_dir: Path, words: Sequence[str] = TRAINING, after: float | None = None
) -> tuple[int, str]:
    """Starts or resumes a training, perhaps kills it; returns exit code and output."""
    resume = ["--resume"] if (run_dir / "run.json").exists() else []
    log = run_dir.with_suffix(".log")
    log.touch()
    with _forked(lambda: _train([*words, *resume, f"--run_dir={run_dir}"], log)) as ended:
        if after is not None:
            time.sleep(after)
            ended.kill()
    return ended.code, log.read_text(errors="replace")


def _train(words: list[str], log: Path) -> None:
    """As `python train.py WORDS > LOG 2>&1` in a process that has imported TensorFlow already."""
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.chdir(ROOT)
    sys.argv = ["train.py", *words]
    runpy.run_path("train.py", run_name="__main__")


def saves(folder: Path) -> Counter:
    """Kills the writer of a checkpoint before each write, fsync, rename, link and removal.

    Args:
        folder: For the runs.

    Returns:
        "kills", and what went wrong: "neither before nor after", "cannot save again".
    """
    counts = Counter()
    for best in (False, True):
        for step in itertools.count():
            run = runs.Run(folder / f"run-{best}-{step}")
            run.write_settings({})
            run.save(_tensors(1), {"step": 1}, keep=1, best=True)
            with _forked(functools.partial(_save_until, run, best, step)) as ended:
                pass
            if ended.code == 0:  # there are no more steps than that
                break
            if ended.code != _DIED:
                raise RuntimeError(f"the save failed by itself, before its step {step}")
            counts["kills"] += 1
            counts["neither before nor after"] += not _is_whole(run)
            run.remove_litter()
            run.save(_tensors(2), {"step": 2}, keep=1, best=best)
            counts["cannot save again"] += not _is_whole(run, after=True)
    return counts


def _tensors(step: int) -> dict[str, np.ndarray]:
    return {"weights": np.full([1000], step, np.float32)}


def _is_whole(run: runs.Run, after: bool = False) -> bool:
    """Whether newest and best are one of the two states, the later one if `after`."""
    newest = run.last(lambda line: None)
    found = [newest.about["step"], run.find("best").about["step"]]
    whole = all((newest.tensors["weights"] == found[0]).tolist())
    return whole and (found[0] == 2 if after else set(found) <= {1, 2})


def _save_until(run: runs.Run, best: bool, last: int) -> None:
    """Saves step 2; dies before the step of the save that has the number `last`."""
    left = itertools.count(last, -1)

    def counted(function: Callable) -> Callable:
        def call(*arguments, **options):
            if next(left) == 0:
                os._exit(_DIED)
            return function(*arguments, **options)

        return call

    for name in ("fsync", "replace", "link", "unlink"):
        setattr(os, name, counted(getattr(os, name)))
    write = counted(lambda file, part: (file.write(part), file.flush()))

    def save_file(tensors: dict, path: Path, metadata: dict) -> None:
        data = safetensors.numpy.save(tensors, metadata)
        with open(path, "wb") as file:
            for begin in range(0, len(data), -(-len(data) // _CHUNKS)):
                write(file, data[begin : begin - (-len(data) // _CHUNKS)])

    safetensors.numpy.save_file = save_file
    run.save(_tensors(2), {"step": 2}, keep=1, best=best)


def damaged_checkpoints(count: int, folder: Path, seed: int) -> Counter:
    """Damages the newer of two checkpoints and reads the run.

    Args:
        count: How often.
        folder: For the run.
        seed: Of kinds and places.

    Returns:
        "damages" of each kind, and what went wrong: "unnoticed", "no fall-back".
    """
    choose, counts = random.Random(seed), Counter()
    run = runs.Run(folder / "run")
    run.write_settings({})
    for step in (1, 2):
        run.save(_tensors(step), {"step": step, "flags": {"data": "digits"}}, keep=2, best=False)
    path = run.step_files()[-1]
    whole = path.read_bytes()
    for _ in range(count):
        kind, damage = choose.choice(list(DAMAGES.items()))
        damaged = damage(whole, choose.randrange(len(whole)), choose)
        if damaged == whole:
            continue
        _put(path, damaged)
        said = []
        found = run.last(said.append)
        counts[kind] += 1
        counts["unnoticed"] += damaged is not None and not said
        counts["no fall-back"] += found is None or found.about["step"] != 1
    return counts


def damaged_shards(count: int, folder: Path, seed: int) -> Counter:
    """Damages one of a few shards and reads an epoch.

    Args:
        count: How often.
        folder: For the shards.
        seed: Of kinds and places.

    Returns:
        "damages" of each kind, and what went wrong: "unnoticed", "not named".
    """
    choose, counts = random.Random(seed), Counter()
    for label, number in itertools.product(range(2), range(12)):
        path = folder / "images" / f"class {label}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (20, 20, 3), np.uint8)
        Image.fromarray(noise).save(path)
    source = sources.open_source(folder / "images", validation_fraction=0.0)
    for encoding in decode.ENCODINGS:
        convert.convert(
            source, folder / encoding, decode.Storage(20, 95, encoding), shards=3, progress=False
        )
    for number in range(count):
        shards = folder / decode.ENCODINGS[number % 2]
        path = choose.choice(sorted(shards.glob("train-*")))
        whole = path.read_bytes()
        kind, damage_to = choose.choice(list({**DAMAGES, "cut between": _cut_between}.items()))
        changed = damage_to(whole, choose.randrange(len(whole)), choose)
        if changed == whole:
            continue
        _put(path, changed)
        complaint = _complaint(shards)
        counts[kind] += 1
        counts["unnoticed"] += not complaint
        is_inside = changed is not None and len(changed) == len(whole)
        expected = rf"{path.name}.*record \d" if is_inside else path.name
        counts["not named"] += not re.search(expected, complaint or path.name + " record 0")
        path.write_bytes(whole)
    return counts


def _complaint(shards: Path) -> str:
    """What reading an epoch says; empty if nothing."""
    try:
        dataset = datasets.load(shards)
        examples = dataset.num_examples("train")
        with damage.named(dataset):
            batches = pipeline.train_batches(
                dataset,
                augment.POLICIES["none"],
                size=16,
                batch_size=8,
                seed=0,
                steps=examples // 8,
                threads=1,
            )
            for _ in batches:
                pass
    except (ValueError, OSError, RuntimeError, tf.errors.OpError) as error:
        return str(error)
    return ""


def _cut_between(data: bytes, place: int, choose: random.Random) -> bytes:
    """Cut off between two records, which TensorFlow does not notice."""
    found, _ = records.frames(memoryview(data))
    return data[: choose.choice(found)[0] - records.HEADER_BYTES]


def _put(path: Path, content: bytes | None) -> None:
    """Makes a file hold something else; None removes it."""
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)


def _flipped(data: bytes, place: int, choose: random.Random) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << choose.randrange(8)]) + data[place + 1 :]


DAMAGES = {
    "flipped bit": _flipped,
    "cut off": lambda data, place, choose: data[:place],
    "zeroed page": lambda data, place, choose: data[:place] + bytes(512) + data[place + 512 :],
    "emptied": lambda data, place, choose: b"",
    "missing": lambda data, place, choose: None,
}


class _Ended:
    """A forked process; its exit code when it has ended."""

    def __init__(self, process: int) -> None:
        self.process, self.code = process, None

    def kill(self) -> None:
        """Sends SIGKILL, which comes too late where it has ended already."""
        os.kill(self.process, signal.SIGKILL)


@contextlib.contextmanager
def _forked(work: Callable[[], object]) -> Iterator[_Ended]:
    """Does work in a fork of this process, which is waited for."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    ended = _Ended(child)
    try:
        yield ended
    finally:
        _, status = os.waitpid(child, 0)
        ended.code = os.waitstatus_to_exitcode(status)


ATTACKS = {
    "kills": lambda options, folder: kills(options.count, folder, options.seed),
    "settings": lambda options, folder: any_settings(options.count, folder, options.seed),
    "saves": lambda options, folder: saves(folder),
    "checkpoints": lambda options, folder: damaged_checkpoints(options.count, folder, options.seed),
    "shards": lambda options, folder: damaged_shards(options.count, folder, options.seed),
}
WRONG = {
    "different",
    "cannot resume",
    "neither before nor after",
    "cannot save again",
    "unnoticed",
    "no fall-back",
    "not named",
}


def main() -> None:
    """Runs one attack and prints what it counted."""
    parser = console.Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("attack", choices=ATTACKS)
    parser.add_argument("--count", type=int, default=100, help="how often (100)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (0)")
    options = parser.parse_args()
    began = time.monotonic()
    with console.user_errors(), tempfile.TemporaryDirectory() as folder:
        counts = ATTACKS[options.attack](options, Path(folder))
    seconds = time.monotonic() - began
    print(", ".join(f"{name}: {count}" for name, count in counts.items()), f"({seconds:.0f} s)")
    sys.exit(any(counts[name] for name in WRONG))


if __name__ == "__main__":
    main()
