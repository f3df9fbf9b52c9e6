"""Prints classification results as text, JSON lines or CSV.

A result is `{"image", "predictions": [{"class", "probability"}, ...]}` or `{"image", "error"}`,
optionally with "frame" and "seconds", "unsure", and "explained": {"class", "picture"}.
"""

import csv
import json
import sys

from runtime import console

COLUMNS = (
    "image",
    "frame",
    "seconds",
    "rank",
    "class",
    "probability",
    "unsure",
    "explained",
    "error",
)


def show_json(result: dict) -> None:
    """Prints a result as a JSON object on one line."""
    print(json.dumps(result), flush=True)


def show_table(result: dict) -> None:
    """Prints the image's name and its classes, or an error to stderr."""
    name = result["image"]
    if "frame" in result:
        name += f", frame {result['frame']} ({result['seconds']:.2f} s)"
    if "error" in result:
        line = console.printable(f"error: {name}: {result['error']}")
        print(line, file=sys.stderr, flush=True)
        return
    lines = [name, *(["  unsure"] if result.get("unsure") else [])]
    for prediction in result["predictions"]:
        lines.append(f"  {100 * prediction['probability']:6.2f} %  {prediction['class']}")
    if "explained" in result:
        explained = result["explained"]
        lines.append(f"  evidence for {explained['class']}: {explained['picture']}")
    print("\n".join(map(console.printable, lines)), flush=True)


class Csv:
    """Prints results as CSV, with a row for each predicted class or error."""

    def __init__(self) -> None:
        """Writes the header."""
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        self._writer.writerow(COLUMNS)

    def __call__(self, result: dict) -> None:
        """Writes the rows of a result."""
        pictures = {}
        if "explained" in result:
            pictures[result["explained"]["class"]] = result["explained"]["picture"]
        ranked = [
            {"rank": rank, "explained": pictures.get(prediction["class"]), **prediction}
            for rank, prediction in enumerate(result.get("predictions", []), start=1)
        ]
        for row in ranked or [{}]:
            self._writer.writerow([(result | row).get(column) for column in COLUMNS])
        sys.stdout.flush()
