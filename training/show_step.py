"""Draws the images of a training step: `python train.py ... --show_step=N`."""

from pathlib import Path

from report import batch
from training.build import Setup


def draw_step(setup: Setup, step: int) -> list[str]:
    """Draws the images of a step next to the stored images and their crop windows.

    Returns:
        A line per image, then a line with the path of the picture.

    Raises:
        ValueError: If the step is not below the number of steps.
    """
    if step >= setup.total:
        raise ValueError(f"--show_step expects a step below {setup.total}, received {step}")
    images, origins = setup.batches.images_of(step), setup.batches.origins_of(step)
    rows, lines = [], []
    for number, (origin, seen) in enumerate(zip(origins, images, strict=True)):
        name = setup.dataset.class_names[origin.label]
        mirrored = ", mirrored" if origin.mirrored else ""
        title = f"{number}: {name} ({origin.label}){mirrored}"
        lines.append(f"{title}  {origin.filename}")
        rows.append(batch.Row(title, origin.filename, origin.stored, origin.window, seen))
    path = Path(setup.running.run_dir or ".") / f"step-{step:08d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    batch.draw(rows, path)
    return [*lines, f"step {step}: {path}"]
