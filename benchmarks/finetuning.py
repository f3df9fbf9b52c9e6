"""Compares training from pretrained weights with training from scratch, on few images of a class.

    python benchmarks/finetuning.py --data=FLOWERS --weights=torchvision:FILE --scratch=FOLDER

FLOWERS has a folder for each class. A seeded draw puts some images of every class into train/ and
all others into test/. Every training has the default flags, with and without `--init_from`. The
results of all runs so far are kept in benchmarks/results/finetuning.json, and the table in
finetuning.md is made of them: the same command goes on with the runs that are missing.

A tenth of few images is a small validation set, by which the best checkpoint is almost drawn by
lot: the last checkpoint is tested beside it.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime import console, files

with console.quiet_import():
    from benchmarks import tables

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
STARTS = ("scratch", "pretrained")
CHECKPOINTS = ("best", "last")


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


def script(*words: str) -> None:
    """Runs a script of the project."""
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True)


def measured(data: Path, run_dir: Path, model: str, weights: str | None, seed: int) -> dict:
    """Trains, resuming an interrupted training, and tests; returns the result of the run."""
    if (run_dir / "run.json").exists():
        script("train.py", "--resume", f"--run_dir={run_dir}")
    else:
        words = [f"--data={data}", f"--model={model}", f"--seed={seed}", f"--run_dir={run_dir}"]
        script("train.py", *words, *([f"--init_from={weights}"] if weights else []))
    top1 = {}
    for checkpoint in CHECKPOINTS:
        script("test.py", str(run_dir), "--split=test", f"--checkpoint={checkpoint}")
        tested = json.loads((run_dir / "test.json").read_text())
        top1[checkpoint] = tested["top1_accuracy"]
    return {**top1, "examples": tested["examples"]}


def percent(values: list[float]) -> str:
    """Formats fractions as their mean in percent, with the standard deviation if there is one."""
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread}"


def page(found: dict) -> str:
    """Returns the results in Markdown."""
    rows = [["training", "seeds", "test images", "best checkpoint, %", "last checkpoint, %"]]
    for count in sorted({run["images"] for run in found["runs"]}):
        for start in STARTS:
            runs = [r for r in found["runs"] if (r["images"], r["start"]) == (count, start)]
            if runs:
                top1 = [percent([run[key] for run in runs]) for key in CHECKPOINTS]
                seeds = ", ".join(str(run["seed"]) for run in runs)
                examples = f"{runs[0]['examples']:,}"
                rows.append([f"{count} images a class, {start}", seeds, examples, *top1])
    return (
        f"# Fine-tuning with default flags: {found['model']}\n\n"
        "Top-1 on all images that are not trained on: means over the seeds and standard "
        "deviations. The best\ncheckpoint has the highest validation accuracy, on a tenth of "
        "the training images; with few of\nthem it is chosen almost by lot. Each run is in "
        "finetuning.json.\n\n"
        f"{tables.markdown(rows)}\n\n{tables.machine_line(found['machine'])}\n\n"
        f"    {found['command']}\n"
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
    path, scratch = given.output / "finetuning.json", given.scratch.resolve()
    found = json.loads(path.read_text()) if path.exists() else {"runs": []}
    found |= {"model": given.model, "machine": tables.machine()}
    found["command"] = (
        "python benchmarks/finetuning.py --data=FLOWERS --weights=torchvision:FILE --scratch=FOLDER"
    )
    for count in given.images:
        data = scratch / f"images-{count}"
        if not data.exists():
            draw(given.data.resolve(), data, count)
        for seed in given.seeds:
            for start in STARTS:
                key = {"images": count, "start": start, "seed": seed}
                if any(key.items() <= run.items() for run in found["runs"]):
                    continue
                run_dir = scratch / f"{start}-{count}-{seed}"
                weights = given.weights if start == "pretrained" else None
                found["runs"].append(key | measured(data, run_dir, given.model, weights, seed))
                files.write(path, (json.dumps(found, indent=1) + "\n").encode())
                files.write(given.output / "finetuning.md", page(found).encode())


if __name__ == "__main__":
    main()
