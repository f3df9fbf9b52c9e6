"""The report of a device: a JSON file with a section per check, and a page made of it."""

import json
from datetime import date
from pathlib import Path

from benchmarks import tables
from benchmarks.gpu.checks import CHECKS
from runtime import files


class Report:
    """Sections by name of the check; sections of earlier runs are kept."""

    def __init__(self, folder: Path, device: str) -> None:
        """Reads the file of the device if it exists.

        Args:
            folder: Folder of the results.
            device: Name of the device.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"gpu-{device.replace(' ', '_')}.json"
        self._device, self._machine = device, tables.machine()
        kept = json.loads(self._path.read_text()) if self._path.exists() else {}
        self._sections = kept.get("sections", {})

    @property
    def page(self) -> Path:
        """Path of the page."""
        return self._path.with_suffix(".md")

    def add(self, name: str, section: dict) -> None:
        """Adds or replaces the section of a check, and writes both files."""
        self._sections[name] = section
        content = {
            "device": self._device,
            "date": date.today().isoformat(),
            "machine": self._machine,
            "sections": {each: self._sections[each] for each in CHECKS if each in self._sections},
        }
        for path, text in (
            (self._path, json.dumps(content, indent=1) + "\n"),
            (self.page, page(content)),
        ):
            files.replace(path, lambda temporary, text=text: temporary.write_text(text))


def page(content: dict) -> str:
    """Formats a report in Markdown."""
    line = tables.machine_line(content["machine"])
    parts = [
        f"# {content['device']}",
        f"Written by `python -m benchmarks.gpu` on {content['date']}: {line}.",
    ]
    for section in content["sections"].values():
        parts += _section(section)
    return "\n\n".join(parts) + "\n"


def _section(section: dict) -> list[str]:
    parts = [f"## {section['title']}"]
    if section["failed"]:
        parts.append(f"**Not finished:** {section['failed']}")
    if section["rows"]:
        rows = [[cell.replace("|", "/") for cell in row] for row in section["rows"]]
        parts.append(tables.markdown(rows))
    if section["notes"]:
        parts.append("\n".join(f"- {note}" for note in section["notes"]))
    return [*parts, f"{section['date']}, {section['seconds']:g} s."]
