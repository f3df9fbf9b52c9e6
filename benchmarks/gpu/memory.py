"""The check of a GPU with too little memory for a batch."""

import json
from argparse import Namespace

from benchmarks.gpu.jobs import DIVIDED, Jobs, leave_out, yes
from benchmarks.gpu.sections import Section

NETWORKS = ["alexnet"]
BATCH_SIZE, STEPS = 512, 2
MEBIBYTES = 2048  # of the logical GPU


def check(options: Namespace, section: Section) -> None:
    """Trains with a batch that cannot fit, with and without micro batches."""
    if options.dry_run:
        leave_out(section, "only the memory of a GPU can be limited")
        return
    section.header("network", "", "result", "as expected")
    section.note(
        f"A logical GPU with {MEBIBYTES:,} MiB, batches of {BATCH_SIZE} of the built-in digits, "
        f"{STEPS} steps. Without micro batches, one error line that names the batch is expected."
    )
    jobs = Jobs(options, 1)
    by = (*DIVIDED, 1, MEBIBYTES, "--")
    for network in options.networks or NETWORKS:
        words = [
            f"--model={network}",
            "--data=digits",
            f"--batch_size={BATCH_SIZE}",
            f"--max_steps={STEPS}",
        ]
        folder = jobs.folder(f"{network}-auto")
        done = jobs.train(folder, *words, "--micro_batch=auto", by=by)
        found = done.line
        if not done.code:
            size = json.loads((folder / "run.json").read_text())["micro_batch"]
            found = f"trains, {size} images at a time"
        section.row(network, "--micro_batch=auto", found, yes(done.code == 0))
        done = jobs.train(jobs.folder(f"{network}-whole"), *words, by=by)
        errors = [line for line in done.errors.splitlines() if line.startswith("error:")]
        expected = done.code == 1 and len(errors) == 1 and str(BATCH_SIZE) in errors[0]
        section.row(network, "the whole batch", f"{done.code}: {done.line}", yes(expected))
