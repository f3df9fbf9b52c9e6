"""Compares training from pretrained weights with training from scratch, on few images of a class.

    python benchmarks/finetuning.py --data=FLOWERS --weights=torchvision:FILE --scratch=FOLDER

FLOWERS has a folder for each class. A seeded draw puts some images of every class into train/ and
all others into test/. Every training has the default flags, with and without `--init_from`. The
results of all runs so far are kept in benchmarks/results/finetuning.jsonl, and the table in
finetuning.md is made of them: the same command goes on with the runs that are missing.

A tenth of few images is a small validation set, by which the best checkpoint is almost drawn by
lot: the last checkpoint is tested beside it.
"""

import argparse
import itertools
import json
import random
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime import console, files

with console.quiet_import():
    from benchmarks import kept, scripts, tables

RESULTS = scripts.ROOT / "benchmarks" / "results"
STARTS = ("scratch", "pretrained")
CHECKPOINTS = ("best", "last")
COMMAND = (
    "python benchmarks/finetuning.py --data=FLOWERS --weights=torchvision:FILE --scratch=FOLDER"
)


def draw(source: Path, folder: Path, count: int) -> None:
    """Copies `count` images of each class to train/ and the others to test/; seeded."""
    with files.new_folder(folder) as unfinished:
        for images in sorted(path for path in source.iterdir() if path.is_dir()):
            paths = sorted(path for path in images.iterdir() if not path.name.startswith("."))
            random.Random(f"0 {images.name}").shuffle(paths)
            for split, chosen in (("train", paths[:count]), ("test", paths[count:])):
                target = unfinished / split / images.name
                target.mkdir(parents=True)
                for path in chosen:
                    shutil.copy(path, target)


def measured(data: Path, run_dir: Path, model: str, weights: str | None, seed: int) -> dict:
    """Trains, resuming an interrupted training, and tests; returns the result of the run."""
    if (run_dir / "run.json").exists():
        scripts.run("train.py", "--resume", f"--run_dir={run_dir}")
    else:
        words = [f"--data={data}", f"--model={model}", f"--seed={seed}", f"--run_dir={run_dir}"]
        scripts.run("train.py", *words, *([f"--init_from={weights}"] if weights else []))
    top1 = {}
    for checkpoint in CHECKPOINTS:
        scripts.run("test.py", str(run_dir), "--split=test", f"--checkpoint={checkpoint}")
        tested = json.loads((run_dir / "test.json").read_text())
        top1[checkpoint] = tested["top1_accuracy"]
    return {**top1, "examples": tested["examples"]}


def percent(values: list[float]) -> str:
    """Formats fractions as their mean and standard deviation in percent."""
    return tables.spread([100 * value for value in values], 1)


def page(results: list[dict]) -> str:
    """Returns the results of one network in Markdown."""
    rows = [["training", "seeds", "test images", "best checkpoint, %", "last checkpoint, %"]]
    for count in sorted({run["images"] for run in results}):
        for start in STARTS:
            runs = [run for run in results if (run["images"], run["start"]) == (count, start)]
            if runs:
                top1 = [percent([run[key] for run in runs]) for key in CHECKPOINTS]
                seeds = ", ".join(str(run["seed"]) for run in runs)
                examples = f"{runs[0]['examples']:,}"
                rows.append([f"{count} images a class, {start}", seeds, examples, *top1])
    machines = dict.fromkeys(tables.machine_line(run["machine"]) for run in results)
    return (
        f"# Fine-tuning with default flags: {results[0]['model']}\n\n"
        "Top-1 on all images that are not trained on: means over the seeds and standard "
        "deviations. The best\ncheckpoint has the highest validation accuracy, on a tenth of "
        "the training images; with few of\nthem it is chosen almost by lot. Each run is a line of "
        "finetuning.jsonl.\n\n"
        f"{tables.markdown(rows)}\n\n" + "\n\n".join(machines) + f"\n\n    {COMMAND}\n"
    )


def main(argv: list[str] | None = None) -> None:
    """Runs the trainings that are missing, and writes the results after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of class folders")
    parser.add_argument("--weights", required=True, help="value of --init_from")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for data and runs")
    parser.add_argument("--model", default="squeezenet1_1")
    parser.add_argument("--images", type=int, nargs="+", default=[20, 100], help="of each class")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args(argv)
    with console.user_errors():
        measure(given, given.output / "finetuning.jsonl", given.scratch.resolve())


def measure(given: argparse.Namespace, path: Path, scratch: Path) -> None:
    """Runs the trainings that are not kept in a file, and writes the page after each."""
    for count in given.images:
        data = scratch / f"images-{count}"
        if not data.exists():
            draw(given.data.resolve(), data, count)
        for seed, start in itertools.product(given.seeds, STARTS):
            key = {"model": given.model, "images": count, "start": start, "seed": seed}
            if any(key.items() <= run.items() for run in kept.read(path)):
                continue
            run_dir = scratch / f"{start}-{count}-{seed}"
            weights = given.weights if start == "pretrained" else None
            result = key | measured(data, run_dir, given.model, weights, seed)
            kept.append(path, result | {"machine": tables.machine()})
            results = [run for run in kept.read(path) if run["model"] == given.model]
            files.write(given.output / "finetuning.md", page(results).encode())


if __name__ == "__main__":
    main()
