"""Kept results and run folders of trainings that never were, for tests of benchmarks/."""

import json

import numpy as np

from benchmarks import execution, plan
from engine import checkpoints

DIGEST = "ab" * 32


def result(training, top1=0.5, train=(0.3, 0.8), **changes):
    """The result of a training on this machine at 100 images/s, as kept."""
    return {
        "data": training.data,
        "flags": list(training.flags),
        "seed": training.seed,
        "fingerprint": "f" * 64,
        "train": list(train),
        "tests": {"1": {"top1": top1, "n": 1000}},
        "steps": 20,
        "images": 2000,
        "parameters": 1234,
        "multiply_adds": 5e6,
        "images_per_second": 100.0,
        "minutes": 2.0,
        "precision": "float32",
        "machine": plan.machine(),
        "commit": "c",
        "digest": DIGEST,
    } | changes


def places(folder, **data):
    return execution.Places(data, folder / "runs", folder / "trainings.jsonl", folder / "running")


def shards(folder, fingerprint="f" * 64):
    """A folder that says whose shards it holds."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps({"fingerprint": fingerprint}))
    return folder


def run_folder(folder, epochs=2, ended=True):
    """The files of a run of ten steps an epoch, of ten images each."""
    (folder / "checkpoints").mkdir(parents=True)
    settings = {
        "command": ["train.py", "--model=lenet5", "--epochs=2", "--data=x", f"--run_dir={folder}"],
        "flags": {"batch_size": 10, "seed": 3, "model": "lenet5", "epochs": 2}
        | {"learning_rate": 0.05, "schedule": "cosine"},
        "data": {"fingerprint": "f" * 64},
        "cost": {"parameters": 1234, "multiply_adds": 5e6},
        "precision": "float32",
        "git_commit": "c",
    }
    (folder / "run.json").write_text(json.dumps(settings))
    head = "epoch,step,train_top1_accuracy,validation_top1_accuracy,images_per_second\n"
    rows = [f"{n},{10 * n},0.{n}23456,,{100 * n}\n" for n in range(1, epochs + 1)]
    (folder / "metrics.csv").write_text(head + "".join(rows))
    end = f"done: step {10 * epochs}  weights sha256 {DIGEST}\n" * ended
    (folder / "train.log").write_text(f"epoch\n{end}")
    tensors = {name: np.ones(2, np.float32) for name in ("model/w", "optimizer/w")}
    about = {"flags": {"data": f"{folder.parent}/pictures", "run_dir": str(folder)}}
    for step in (10, 10 * epochs):
        path = folder / "checkpoints" / f"step-{step:08d}.safetensors"
        checkpoints.write(path, tensors, about | {"step": step})
    return folder
