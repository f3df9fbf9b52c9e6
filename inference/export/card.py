"""Writes the model card of an export: the network, its accuracy, and how to call it."""

import html
from pathlib import Path

import jinja2

from report import history
from runtime import console

_SHOWN = 20  # class names
_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=False,  # noqa: S701 - Markdown
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


def accuracies(folder: Path | None, digest: str | None, step: int | None) -> list[str]:
    """Returns lines about the accuracy of a checkpoint, as far as its run's files record it.

    Args:
        folder: Run folder; None if there is no run.
        digest: sha256 of the checkpoint's tensors, which test.json refers to.
        step: Step of the checkpoint.
    """
    try:
        run = history.read(folder) if folder else None
    except FileNotFoundError:
        run = None
    if run is None:
        return []
    lines = []
    if digest and run.tested.get("digest") == digest:
        lines.append(
            f"{_percent(run.tested, '')} on {run.tested['examples']:,} images of the "
            f"{run.tested['split']} split, {run.tested['crops']} crop(s) (test.py)"
        )
    for row in run.rows:
        if row["step"] == step and "validation_top1_accuracy" in row:
            lines.append(f"{_percent(row, 'validation_')} on validation images while training")
    return lines


def _percent(row: dict, prefix: str) -> str:
    top1, top5 = (100 * row[f"{prefix}top{k}_accuracy"] for k in (1, 5))
    return f"top-1 {top1:.2f} %, top-5 {top5:.2f} %"


def _plain(name: str) -> str:
    """Escapes an untrusted name for a Markdown table."""
    return html.escape(console.printable(name)).replace("|", "&#124;").replace("`", "'")


def write(path: Path, facts: dict) -> None:
    """Writes a model card from the template `card.md`, whose variables are the facts."""
    names = [_plain(name) for name in facts["network"].class_names]
    shown = names[:_SHOWN] + ([f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else [])
    data = facts["data"] and _plain(facts["data"])
    text = _TEMPLATES.get_template("card.md").render({**facts, "data": data}, shown=shown)
    path.write_text(text + "\n", encoding="utf-8")
