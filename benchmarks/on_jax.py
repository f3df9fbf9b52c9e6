r"""Trains networks for 32 pixels on JAX, with all images in device memory, in minutes on a GPU.

    python benchmarks/on_jax.py CIFAR10 FOLDER @recipes/cifar_fast.flags \
        "--model=cifar_resnet20 --epochs=150 --batch_size=256 --optimizer=nesterov \
         --learning_rate=0.4 --weight_decay=5e-4 --schedule=one_cycle"

CIFAR10 has the folders train/CLASS and test/CLASS; all of train/ is trained on. A training is given
by flags of train.py, or by `@` and a recipe's file; `in_memory.flags` lists the supported ones.
Networks, schedules, updates, averages and augmentation (by default the network's own) are the same
as in train.py; shuffling and random draws are JAX's own. TensorFlow need not be installed.

The test accuracy is printed and written to FOLDER/on_jax.json, with 1, 2 and 6 views of each image
as `test.py --crops` averages them. FOLDER/0.safetensors is the first training's network, and so on:
checkpoints for test.py, classify.py, export.py and `train.py --init_from`, with TensorFlow:

    python test.py FOLDER/0.safetensors --split=test --crops=6
    python test.py FOLDER/0.safetensors --split=test --data=CIFAR10          where that has moved
    python benchmarks/shipped.py FOLDER/0.safetensors weights/NAME.safetensors
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime import console

with console.quiet_import():
    import keras

    from benchmarks import tables
    from benchmarks.in_memory import flags, images, saving, testing, training


def main(argv: list[str] | None = None) -> None:
    """Parses the command line, trains, tests and saves."""
    parser = console.Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("data", type=Path, help="folder of train/CLASS and test/CLASS")
    parser.add_argument("output", type=Path, help="folder for networks and accuracies")
    parser.add_argument("trainings", nargs="+", help="flags of train.py, or @FILE")
    parser.add_argument("--precision", default="mixed_bfloat16", help="or float32")
    options = parser.parse_args(argv)
    keras.config.set_dtype_policy(options.precision)
    options.output.mkdir(parents=True, exist_ok=True)
    report = {"machine": tables.machine(), "precision": options.precision, "trainings": []}
    with console.user_errors():
        recipes = [flags.parse(words) for words in options.trainings]
        data = images.read(options.data)
        for number, (words, recipe) in enumerate(zip(options.trainings, recipes, strict=True)):
            began = time.perf_counter()
            trained = training.train(recipe, data)
            seconds = time.perf_counter() - began
            found = {
                "training": words,
                "seconds": seconds,
                "training top-1": 100 * trained.accuracy,
            }
            found["test top-1 by views"] = testing.test(trained.model, *data.test)
            report["trainings"].append(found)
            print(json.dumps(found), flush=True)
            (options.output / "on_jax.json").write_text(json.dumps(report, indent=1) + "\n")
            file = options.output / f"{number}.safetensors"
            saving.save(file, trained, recipe, options.precision, data)


if __name__ == "__main__":
    main()
