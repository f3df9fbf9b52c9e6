"""Measures what a checkpoint costs a training: blocked seconds, and CPU seconds in the background.

    python benchmarks/saving.py --model=alexnet

The share is that of a training on all cores that saves every 10 minutes.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime import console
from runtime.cores import cores

with console.quiet_import():
    import models
    from engine import checkpoints, optimizers, runs

INTERVAL = 600  # seconds between checkpoints


def main() -> None:
    """Saves several checkpoints and prints the medians."""
    parser = console.Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--model", default="alexnet", choices=models.names())
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="on the disk to measure")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    model = models.build(options.model, 1000)
    optimizer = optimizers.build("momentum", 0.01, 0.9)
    optimizer.build(model.trainable_variables)
    variables = checkpoints.named_variables(model, optimizer)
    waits, works, seconds = [], [], []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        run = runs.Run(folder)
        run.write_settings({})
        for step in range(options.repeat):
            began = time.perf_counter()
            tensors = checkpoints.values(variables)
            waits.append(time.perf_counter() - began)
            began, worked = time.perf_counter(), time.process_time()
            run.save(tensors, {"step": step}, keep=2, best=True)
            seconds.append(time.perf_counter() - began)
            works.append(time.process_time() - worked)
        size = sum(tensor.nbytes for tensor in tensors.values())
    wait, work, saved = map(statistics.median, (waits, works, seconds))
    share = (wait + work / cores()) / INTERVAL
    print(
        f"{options.model}: {size / 1e6:,.0f} MB; waits {wait:.2f} s, saved after {saved:.1f} s "
        f"with {work:.1f} s of CPU: {100 * share:.2f} % of {INTERVAL} s"
    )


if __name__ == "__main__":
    main()
